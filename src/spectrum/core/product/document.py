"""A YAML document as a tree that knows its lines: what a vendor wrote, before anything in it is understood."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from spectrum.core.errors import Problem, Where

MAX_CHARACTERS = 512 * 1024
MAX_NODES = 20_000  # counted after aliases are expanded, so that a few lines of anchors can't become a billion values
MAX_DEPTH = 40

Scalar = str | int | float | bool | None

_TAG = "tag:yaml.org,2002:"
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+")
_OCTAL = re.compile(r"0[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_A_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Node:
    """One value and where it stands. The line of a mapping's value is the line of its key; lines count from 1."""

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    file: str
    line: int
    size: int = 1


def parse(text: str, file: str) -> Node:
    """The one document in `text` (YAML 1.2 as Compose reads it: no sexagesimal numbers, `yes` and `no` are strings).

    Raises Problem(invalid-product) with file and line: bad YAML, a duplicate key, an unknown tag, too large, too deep.
    """
    if len(text) > MAX_CHARACTERS:
        raise _problem(
            f"the file is larger than {MAX_CHARACTERS // 1024} KiB",
            file,
            None,
            "Move long texts into files of their own.",
        )
    try:
        return _Builder(file, YAML(typ="safe", pure=True).parse(text)).document()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(str(error.problem or error.context).split())
        hint = "Indent with spaces: YAML knows no tabs." if "'\\t'" in what else ""
        raise _problem(f"not valid YAML: {what}", file, mark.line + 1 if mark else None, hint) from None
    except (YAMLError, ValueError) as error:
        raise _problem(f"not valid YAML: {str(error).splitlines()[0]}", file, None) from None


def from_json(value: object, file: str) -> Node:
    """A stored document as a tree, every value on line 1. Raises Problem(invalid-product) beyond the limits of `parse`."""
    return _from_json(value, file, 0)


def _from_json(value: object, file: str, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise _problem(f"nested more than {MAX_DEPTH} levels deep", file, None)
    match value:
        case dict():
            members = {str(key): _from_json(item, file, depth + 1) for key, item in value.items()}
            return Node(members, file, 1, 1 + sum(member.size for member in members.values()))
        case list():
            items = tuple(_from_json(item, file, depth + 1) for item in value)
            return Node(items, file, 1, 1 + sum(item.size for item in items))
        case None | str() | int() | float():
            return Node(value, file, 1)
        case _:
            raise _problem(f"a value of type {type(value).__name__} is no JSON", file, None)


def _problem(message: str, file: str, line: int | None, hint: str = "") -> Problem:
    return Problem("invalid-product", f"{file} can't be read.", (Where(message, "", file, line, hint),))


class _Builder:
    """Makes the tree from the parser's events; each method takes the event that its value starts with."""

    def __init__(self, file: str, events: Iterator[Any]) -> None:
        self.file = file
        self.events = events
        self.anchors: dict[str, Node] = {}
        self.total = 0

    def document(self) -> Node:
        next(self.events)  # the start of the stream
        if isinstance(next(self.events), StreamEndEvent):
            raise _problem("the file is empty", self.file, None, "Start from an example product.")
        root = self.value(next(self.events), 0)
        next(self.events)  # the end of the document
        if not isinstance(extra := next(self.events), StreamEndEvent):
            raise self.error(extra, "a second document starts here", "A product is one YAML document: remove `---`.")
        return root

    def error(self, event: Any, message: str, hint: str = "") -> Problem:
        return _problem(message, self.file, event.start_mark.line + 1, hint)

    def value(self, event: Any, depth: int, line: int | None = None) -> Node:
        if depth > MAX_DEPTH:
            raise self.error(event, f"nested more than {MAX_DEPTH} levels deep")
        line = event.start_mark.line + 1 if line is None else line
        match event:
            case AliasEvent():
                node = self.alias(event, line)
            case ScalarEvent():
                node = Node(self.scalar(event), self.file, line)
            case SequenceStartEvent():
                node = self.sequence(event, depth, line)
            case MappingStartEvent():
                node = self.mapping(event, depth, line)
            case _:
                raise self.error(event, "a value is missing here")
        self.count(event, 1 if not isinstance(event, AliasEvent) else node.size)
        if not isinstance(event, AliasEvent) and event.anchor:
            self.anchors[event.anchor] = node
        return node

    def count(self, event: Any, more: int) -> None:
        self.total += more
        if self.total > MAX_NODES:
            raise self.error(event, f"more than {MAX_NODES} values once aliases are expanded", "Repeat less.")

    def alias(self, event: Any, line: int) -> Node:
        if event.anchor not in self.anchors:
            raise self.error(event, f"the alias *{event.anchor} has no anchor before it")
        found = self.anchors[event.anchor]
        return Node(found.value, found.file, line, found.size)

    def sequence(self, event: Any, depth: int, line: int) -> Node:
        self.check_tag(event, "seq")
        items = []
        while not isinstance(following := next(self.events), SequenceEndEvent):
            items.append(self.value(following, depth + 1))
        return Node(tuple(items), self.file, line, 1 + sum(item.size for item in items))

    def mapping(self, event: Any, depth: int, line: int) -> Node:
        self.check_tag(event, "map")
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        while not isinstance(key := next(self.events), MappingEndEvent):
            if not isinstance(key, ScalarEvent):
                raise self.error(key, "a key must be a plain word")
            name = self.text(key)
            value = self.value(next(self.events), depth + 1, key.start_mark.line + 1)
            if name == "<<" and key.implicit[0]:
                merged = {**self.merge_sources(key, value), **merged}
            elif name in own:
                first = own[name].line
                raise self.error(key, f"the key {name!r} is given twice (first on line {first})", "Keep one of them.")
            else:
                own[name] = value
        values = {**merged, **own}
        return Node(values, self.file, line, 1 + sum(value.size for value in values.values()))

    def merge_sources(self, event: Any, value: Node) -> dict[str, Node]:
        """What `<<` brings in (https://yaml.org/type/merge.html): of several mappings, the earlier one wins."""
        sources = value.value if isinstance(value.value, tuple) else (value,)
        result: dict[str, Node] = {}
        for source in reversed(sources):
            if not isinstance(source.value, Mapping):
                raise self.error(event, "`<<` needs a mapping, or a list of mappings")
            result.update(source.value)
        return result

    def text(self, event: Any) -> str:
        """The scalar's characters. YAML knows no surrogate pairs, as JSON writes them; neither does Compose."""
        text: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise self.error(
                event, "half of a surrogate pair is no character", "Write the character itself, or \\U0001F600."
            )
        return text

    def check_tag(self, event: Any, *allowed: str) -> str | None:
        if event.tag is None:
            return None
        tag = str(event.tag)
        if not tag.startswith(_TAG) or tag.removeprefix(_TAG) not in allowed:
            raise self.error(event, f"the tag {tag.replace(_TAG, '!!')} is not supported", "Remove the tag.")
        return tag.removeprefix(_TAG)

    def scalar(self, event: Any) -> Scalar:
        tag = self.check_tag(event, "str", "int", "float", "bool", "null")
        text = self.text(event)
        if tag == "str" or (tag is None and not event.implicit[0]):
            return text
        value = resolve(text)
        kind = {str: "str", bool: "bool", int: "int", float: "float", type(None): "null"}[type(value)]
        if tag not in (None, kind):
            raise self.error(event, f"{text!r} is no {tag}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(event, f"{text} is not a usable number", "Quote it if it is meant as text.")
        return value


def resolve(text: str) -> Scalar:
    """A plain scalar's value: the YAML 1.2 core schema, with the leading-zero octal that Compose files use for modes."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    if _DECIMAL.fullmatch(text) and len(text) < 20:
        return int(text)
    if _FLOAT.fullmatch(text) and not _DECIMAL.fullmatch(text):
        return float(text)
    return math.nan if _NOT_A_NUMBER.fullmatch(text) else text

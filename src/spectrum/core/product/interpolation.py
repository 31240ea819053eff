"""Compose's interpolation: `$NAME`, `${NAME}`, `${NAME:-default}` and their kin, as a tree that can be read before it is filled.

The grammar is compose-go's `template` package, oddities included: a `$` before anything else stays as it is, an operator's word
ends on its own line, and braces inside a word are counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 20
MAX_REFERENCES = 1_000

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-+?]")

Lookup = Callable[[str], str | None]


class InterpolationError(ValueError):
    """A text that is no template, or a reference that has no value."""


@dataclass(frozen=True, slots=True)
class Reference:
    """`${name<operator><word>}`; the operator is empty where there is none."""

    name: str
    operator: str = ""
    word: Template = ()

    @property
    def has_default(self) -> bool:
        """Whether plain Compose runs the file without the variable, and without a warning."""
        return self.operator.lstrip(":") in ("-", "+")


Part = str | Reference
Template = tuple[Part, ...]


def parse(text: str, depth: int = 0) -> Template:
    """The parts of a text. Raises InterpolationError."""
    if depth > MAX_DEPTH:
        raise InterpolationError(f"defaults are nested more than {MAX_DEPTH} deep")
    parts: list[Part] = []
    position = 0
    for _ in range(MAX_REFERENCES):
        dollar = text.find("$", position)
        if dollar < 0:
            return (*parts, text[position:]) if text[position:] else tuple(parts)
        if text[position:dollar]:
            parts.append(text[position:dollar])
        part, position = _parse_part(text, dollar, depth)
        parts.append(part)
    raise InterpolationError(f"more than {MAX_REFERENCES} variables in one text")


def _parse_part(text: str, dollar: int, depth: int) -> tuple[Part, int]:
    """What stands at a dollar sign, and the position after it."""
    following = text[dollar + 1 : dollar + 2]
    if following == "$":
        return "$", dollar + 2
    if following == "{":
        return _parse_braced(text, dollar, depth)
    if name := _NAME.match(text, dollar + 1):
        return Reference(name[0]), name.end()
    return "$", dollar + 1


def _parse_braced(text: str, dollar: int, depth: int) -> tuple[Part, int]:
    name = _NAME.match(text, dollar + 2)
    if name is None:
        raise _invalid(text, dollar)
    if text[name.end() : name.end() + 1] == "}":
        return Reference(name[0]), name.end() + 1
    operator = _OPERATOR.match(text, name.end())
    newline = text.find("\n", name.end())
    last = text.rfind("}", name.end(), newline if newline >= 0 else len(text))
    if operator is None or last < operator.end():
        raise _invalid(text, dollar)
    end = _closing_brace(text, dollar, last)
    return Reference(name[0], operator[0], parse(text[operator.end() : end], depth + 1)), end + 1


def _closing_brace(text: str, dollar: int, last: int) -> int:
    """The brace that closes the reference: counted, with the character after an opening brace passed over."""
    depth, position = 0, dollar
    while position <= last:
        if text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
        elif text[position] == "{":
            depth += 1
            position += 1
        position += 1
    return last


def _invalid(text: str, position: int) -> InterpolationError:
    piece = text[position : position + 20].split("\n")[0]
    return InterpolationError(f"{piece!r} is no variable; write a literal $ as $$")


def references(template: Template) -> Iterator[Reference]:
    """Every reference in it, nested ones included."""
    for part in template:
        if isinstance(part, Reference):
            yield part
            yield from references(part.word)


def evaluate(template: Template, lookup: Lookup) -> str:
    """The text with its references filled in. `lookup` returns None for what is not set. Raises InterpolationError."""
    return "".join(part if isinstance(part, str) else _fill(part, lookup) for part in template)


def _fill(reference: Reference, lookup: Lookup) -> str:
    value = lookup(reference.name)
    present = bool(value) if reference.operator.startswith(":") else value is not None
    match reference.operator.lstrip(":"):
        case "-":
            return value or "" if present else evaluate(reference.word, lookup)
        case "+":
            return evaluate(reference.word, lookup) if present else value or ""
        case "?":
            if not present:
                raise InterpolationError(f"{reference.name} has no value: {evaluate(reference.word, lookup)}")
            return value or ""
        case _:
            return value or ""


def interpolate(text: str, lookup: Lookup) -> str:
    """`text` with every reference filled in. Raises InterpolationError."""
    return evaluate(parse(text), lookup) if "$" in text else text


def literal(value: Any) -> Any:
    """A value in which no variable is possible: a text has its `$$` read as `$`; anything else stays."""
    return interpolate(value, lambda _: None) if isinstance(value, str) else value


def escape(text: str) -> str:
    """The template that gives exactly `text`."""
    return text.replace("$", "$$")

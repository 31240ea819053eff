"""Reading a tree while collecting every mistake in it: cursors that know pointer, file and line, and the report they fill."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spectrum.core.errors import Problem, Where
from spectrum.core.product.document import Node

MAX_ERRORS = 100
MAY_BE_EMPTY = frozenset({"command", "entrypoint", "deploy", "x-spectrum"})  # as in Compose; all else is a slip

Json = Any  # what json.loads gives: the canonical document is made of it


@dataclass(slots=True)
class Report:
    """All mistakes found so far, and where each part of the canonical document came from."""

    errors: list[Where] = field(default_factory=list)
    places: dict[str, tuple[str, int]] = field(default_factory=dict)

    def refuse(self, pointer: str, message: str, hint: str = "", place: tuple[str, int] | None = None) -> None:
        file, line = place or self.locate(pointer)
        where = Where(message, pointer, file, line, hint)
        if where not in self.errors and len(self.errors) < MAX_ERRORS:
            self.errors.append(where)

    def locate(self, pointer: str) -> tuple[str, int | None]:
        """File and line of the pointer, or of the nearest thing around it."""
        while pointer and pointer not in self.places:
            pointer = pointer.rpartition("/")[0]
        return self.places.get(pointer, ("", None))

    def located(self, errors: Iterable[Where]) -> tuple[Where, ...]:
        """The same errors with file and line."""
        return tuple(
            Where(error.message, error.pointer, *self.locate(error.pointer), hint=error.hint) for error in errors
        )

    def finish(self, what: str) -> None:
        """Raises Problem(invalid-product) with everything that was found, in the order of the file."""
        if self.errors:
            ordered = sorted(self.errors, key=lambda where: (where.file, where.line or 0))
            count = "one mistake" if len(ordered) == 1 else f"{len(ordered)} mistakes"
            count += " or more" if len(ordered) == MAX_ERRORS else ""
            raise Problem("invalid-product", f"{what} has {count}.", tuple(ordered))


def join(pointer: str, *keys: object) -> str:
    """A JSON pointer one or more steps further (RFC 6901)."""
    return pointer + "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word that was probably meant, or all of them where they are few."""
    options = sorted(known)
    return meant(word, options) or (f"Known here: {', '.join(options)}." if 0 < len(options) <= 12 else "")


def meant(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word that was probably meant, if there is one."""
    close = difflib.get_close_matches(word, sorted(known), 1, 0.6)
    return f"Did you mean {close[0]!r}?" if close else ""


def shown(value: object) -> str:
    """A value in a message: short, and on one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def plain_text(value: str | int | float | bool) -> str:
    """A scalar as text, the way Compose prints one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)


@dataclass(frozen=True, slots=True)
class Cursor:
    """One node under reading. Every reader returns None (or nothing) after it has refused what it met."""

    node: Node
    pointer: str
    report: Report

    def __post_init__(self) -> None:
        self.report.places.setdefault(self.pointer, (self.node.file, self.node.line))

    def refuse(self, message: str, hint: str = "") -> None:
        self.report.refuse(self.pointer, message, hint, (self.node.file, self.node.line))

    def at(self, node: Node, *keys: object) -> Cursor:
        return Cursor(node, join(self.pointer, *keys), self.report)

    @property
    def value(self) -> object:
        return self.node.value

    @property
    def is_null(self) -> bool:
        return self.node.value is None

    def mapping(self) -> dict[str, Cursor]:
        if isinstance(self.node.value, Mapping):
            return {key: self.at(node, key) for key, node in self.node.value.items()}
        self.refuse(f"expected a mapping, found {_kind(self.node.value)}")
        return {}

    def fields(self, known: Iterable[str], hints: Mapping[str, str] | None = None) -> dict[str, Cursor]:
        """The mapping without its `x-` members; each unknown key, and each empty one, is refused by name."""
        result = {}
        names = tuple(known)
        for key, cursor in self.mapping().items():
            if key in names and cursor.is_null:
                if key not in MAY_BE_EMPTY:
                    cursor.refuse(f"{key!r} is empty", "Give it a value, or remove it.")
            elif key in names:
                result[key] = cursor
            elif not key.startswith("x-"):
                hint = (hints or {}).get(key) or nearest(key, names) or "Remove it."
                cursor.refuse(f"{key!r} is not supported here", hint)
        return result

    def fields_given(self) -> frozenset[str]:
        """The keys of the mapping that have a value, right or wrong."""
        members = self.node.value if isinstance(self.node.value, Mapping) else {}
        return frozenset(key for key, node in members.items() if node.value is not None)

    def sequence(self) -> list[Cursor]:
        if isinstance(self.node.value, tuple):
            return [self.at(node, index) for index, node in enumerate(self.node.value)]
        self.refuse(f"expected a list, found {_kind(self.node.value)}")
        return []

    def one_or_more(self) -> list[Cursor]:
        """The members of a list, or what stands alone in its place."""
        return self.sequence() if isinstance(self.node.value, tuple) else [self]

    def text(self, *, numbers: bool = False) -> str | None:
        """A text that may hold variables; where Compose takes numbers and booleans too, they are written out."""
        return self._text("a text", numbers)

    def fixed(self, kind: str = "a text", *, numbers: bool = False) -> str | None:
        """A text, not empty, that must be known before any instance exists: no variable in it."""
        text = self._text(kind, numbers)
        if text == "":
            self.refuse(f"expected {kind}, found an empty text")
            return None
        if text is not None and "$" in text:
            hint = "Write the value itself; it is planned with before an instance exists."
            self.refuse(f"no variable is possible here: {shown(text)}", hint)
            return None
        return text

    def _text(self, kind: str, numbers: bool) -> str | None:
        value = self.node.value
        if isinstance(value, int | float) and numbers:
            return plain_text(value)
        if not isinstance(value, str):
            self.refuse(f"expected {kind}, found {_kind(value)}", "Quote it." if isinstance(value, int | float) else "")
            return None
        if "\0" in value:
            self.refuse("a NUL character can't be passed to a process")
            return None
        return value

    def boolean(self) -> bool | None:
        if isinstance(self.node.value, bool):
            return self.node.value
        self.refuse(f"expected true or false, found {_kind(self.node.value)}")
        return None

    def integer(self, minimum: int, maximum: int) -> int | None:
        value = self.node.value
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return value
        self.refuse(f"expected a whole number from {minimum} to {maximum}, found {shown(value)}")
        return None

    def choice(self, options: Iterable[str]) -> str | None:
        text = self.fixed()
        if text is None or text in (known := tuple(options)):
            return text
        self.refuse(f"{text!r} is not one of {', '.join(known)}", meant(text, known))
        return None


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case Mapping():
            return "a mapping"
        case tuple():
            return "a list"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case _:
            return f"the text {shown(value)}"

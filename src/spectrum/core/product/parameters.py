"""Parameters of a release: what a customer may set, which values are accepted, and which secrets are made."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from spectrum.core.product.interpolation import literal
from spectrum.core.product.report import Json, plain_text, shown

Value = str | int | float | bool

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
MAX_LENGTH = 4_096
MAX_MULTILINE = 65_536
MAX_MATCHED = 256  # with a pattern: together with MAX_PATTERN_WORK it bounds what backtracking can cost
MAX_PATTERN_WORK = 20_000_000
MAX_INTEGER = 2**53 - 1

ALPHABETS: Mapping[str, str] = {
    "alphanumeric": string.ascii_letters + string.digits,
    "letters": string.ascii_letters,
    "digits": string.digits,
    "hex": "0123456789abcdef",
    "urlsafe": string.ascii_letters + string.digits + "-_",
}


class ParameterType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class Generation:
    """A secret that is made when it is not given: `length` characters, each drawn evenly from `alphabet`."""

    parameter: str
    length: int
    alphabet: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `check` is its whole meaning; messages never hold a secret's value."""

    name: str
    type: ParameterType
    default: Value | None = None
    pattern: str = ""
    enum: tuple[Value, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    mutable: bool = False
    secret: bool = False
    multiline: bool = False
    generate: Generation | None = None

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Json]) -> Parameter:
        generate = data.get("generate")
        alphabet = ALPHABETS[generate.get("alphabet", "alphanumeric")] if generate else ""
        known = {
            key: data[key]
            for key in ("minimum", "maximum", "min_length", "max_length", "mutable", "secret", "multiline")
            if key in data
        }
        return cls(
            name=name,
            type=ParameterType(data["type"]),
            default=literal(data.get("default")),
            pattern=literal(data.get("pattern", "")) or "",
            enum=tuple(literal(value) for value in data.get("enum", ())),
            generate=Generation(name, generate["length"], alphabet) if generate else None,
            **known,
        )

    @property
    def longest(self) -> int:
        limit = MAX_MATCHED if self.pattern else MAX_MULTILINE if self.multiline else MAX_LENGTH
        return min(limit, self.max_length if self.max_length is not None else limit)

    def check(self, value: object) -> Value:
        """The value in its type. Raises ValueError with what is wrong, for people."""
        typed = self._typed(value)
        if self.enum and typed not in self.enum:
            raise ValueError(
                f"must be one of {', '.join(plain_text(option) for option in self.enum)}{self._found(value)}"
            )
        if isinstance(typed, str):
            self._check_text(typed)
        elif not isinstance(typed, bool):
            if self.minimum is not None and typed < self.minimum:
                raise ValueError(f"must be at least {plain_text(self.minimum)}{self._found(value)}")
            if self.maximum is not None and typed > self.maximum:
                raise ValueError(f"must be at most {plain_text(self.maximum)}{self._found(value)}")
        return typed

    def from_text(self, text: str) -> Value:
        """The value that a person typed, in its type. Raises ValueError."""
        match self.type:
            case ParameterType.STRING:
                return self.check(text)
            case ParameterType.BOOLEAN:
                if text not in ("true", "false"):
                    raise ValueError(f"must be true or false{self._found(text)}")
                return text == "true"
            case _:
                if not re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", text):
                    raise ValueError(f"must be a number{self._found(text)}")
                return self.check(float(text) if "." in text else int(text))

    def _typed(self, value: object) -> Value:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        match self.type:
            case ParameterType.STRING if isinstance(value, str):
                return value
            case ParameterType.BOOLEAN if isinstance(value, bool):
                return value
            case ParameterType.INTEGER if is_number and value == int(value) and abs(value) <= MAX_INTEGER:  # type: ignore[call-overload,arg-type]
                return int(value)  # type: ignore[call-overload, no-any-return]
            case ParameterType.NUMBER if is_number:
                return value  # type: ignore[return-value]
        article = "an" if self.type is ParameterType.INTEGER else "a"
        raise ValueError(f"must be {article} {self.type}{self._found(value)}")

    def _check_text(self, text: str) -> None:
        shortest = self.min_length if self.min_length is not None else int(self.secret)
        if not shortest <= len(text) <= self.longest:
            raise ValueError(f"must have from {shortest} to {self.longest} characters, has {len(text)}")
        allowed = "\n\r\t" if self.multiline else ""
        if any(
            unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
            for character in text
            if character not in allowed
        ):
            raise ValueError("must not hold control characters or line breaks")
        if self.pattern and re.fullmatch(self.pattern, text) is None:
            raise ValueError(f"must match {self.pattern}{self._found(text)}")

    def _found(self, value: object) -> str:
        return "" if self.secret else f", found {shown(value)}"


@dataclass(slots=True)
class _Group:
    """An open group of a pattern: its alternatives so far, and whether it holds a repetition."""

    alternatives: int = 1
    repeats: bool = False

    @property
    def rich(self) -> bool:
        return self.repeats or self.alternatives > 1


def check_pattern(pattern: str) -> None:
    """Refuses patterns whose matching could take long, by a bound on the ways in which they can match one value.

    Python's `re` backtracks. A repetition or an alternative inside a repeated group can take exponential time (Davis et
    al., "The Impact of Regular Expression Denial of Service in Practice", 2018); repetitions and alternatives one after
    another multiply. Raises ValueError.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression: {error}") from None
    work = 1
    groups = [_Group()]
    closed = _Group()
    for mark, low, high in _pattern_tokens(pattern):
        match mark:
            case "(":
                groups.append(_Group())
            case ")":
                closed = groups.pop()
                groups[-1].repeats |= closed.rich
                work *= closed.alternatives
            case "|":
                groups[-1].alternatives += 1
            case _:
                if mark == "repeat-group" and closed.rich and high > 1:
                    raise ValueError(
                        "a repeated group must not hold a repetition or an alternative: [a-z.]*, not ([a-z]+|[.])*"
                    )
                groups[-1].repeats = True
                work *= min(high, MAX_MATCHED) - min(low, MAX_MATCHED) + 1
    if work * groups[0].alternatives > MAX_PATTERN_WORK:
        raise ValueError("too many open repetitions or alternatives in a row: give them upper bounds, as in {1,60}")


_PATTERN_TOKEN = re.compile(
    r"(?P<escape>\\.)|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<repeat>[*+?]|\{\d*,?\d*\})[?+]?|(?P<open>\((?:\?:)?)|(?P<rest>.)",
    re.DOTALL,
)


def _pattern_tokens(pattern: str) -> Iterator[tuple[str, int, int]]:
    """What matters for the cost: groups, alternatives, repetitions with their bounds."""
    before = ""
    for match in _PATTERN_TOKEN.finditer(pattern):
        text = match[0]
        if (match["escape"] and text[1].isdigit() and text[1] != "0") or (
            match["open"] and pattern[match.end() :][:1] == "?"
        ):
            raise ValueError(
                f"{pattern[match.start() : match.start() + 4]!r} is not supported: no references, no look-around, no flags"
            )
        if match["repeat"] and re.fullmatch(r"[*+?]|\{\d+(,\d*)?\}|\{,\d+\}", match["repeat"]):
            low, high = _bounds(match["repeat"])
            yield "repeat-group" if before == ")" else "repeat", low, high
        elif match["open"]:
            yield "(", 0, 0
        elif text in ")|":
            yield text, 0, 0
        before = text


def _bounds(repeat: str) -> tuple[int, int]:
    if repeat in "*+?":
        return (int(repeat == "+"), 1 if repeat == "?" else MAX_MATCHED)
    low, comma, high = repeat[1:-1].partition(",")
    return int(low or 0), int(high) if high else MAX_MATCHED if comma else int(low)


def hostile_samples(parameter: Parameter) -> tuple[Value, ...]:
    """Values that a customer may legally give and that break careless products: quotes, `$`, `%`, unicode, very long ones."""
    if parameter.enum:
        return parameter.enum
    candidates: tuple[object, ...]
    match parameter.type:
        case ParameterType.BOOLEAN:
            candidates = (True, False)
        case ParameterType.INTEGER:
            candidates = (parameter.minimum, parameter.maximum, -1, 0, 1, MAX_INTEGER)
        case ParameterType.NUMBER:
            candidates = (parameter.minimum, parameter.maximum, -0.5, 0, 0.1, 1e15)
        case ParameterType.STRING:
            candidates = _hostile_texts(parameter)
    return tuple(
        dict.fromkeys(value for candidate in candidates if (value := _accepted(parameter, candidate)) is not None)
    )


def _accepted(parameter: Parameter, value: object) -> Value | None:
    try:
        return parameter.check(value)
    except ValueError:
        return None


def _hostile_texts(parameter: Parameter) -> tuple[str, ...]:
    long = "x" * parameter.longest
    texts = (
        "",
        "'",
        '"',
        "`id`",
        "$(id)",
        "${HOME}",
        "$$",
        "$x",
        "%",
        "%(a)s",
        "a b",
        "a;b",
        "a|b",
        "a&b",
        "<>",
        "\\",
        "#",
        "-x",
        "é\u202e☃😀",
        "a:b@c",
        long,
    )
    lines = ("a\nb", "a\r\nb: c", "a\tb") if parameter.multiline else ()
    generated = (parameter.generate.alphabet[:1] * parameter.generate.length,) if parameter.generate else ()
    return (*texts, *lines, *generated)

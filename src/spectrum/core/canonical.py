"""JSON in one form: the same value is the same bytes, in every language (RFC 8785)."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

_PLAIN = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
_WHOLE = 21  # digits up to which ECMAScript writes a number without an exponent


def canonical(value: Any) -> bytes:
    """A JSON value as RFC 8785 writes it. Raises ValueError for what JSON can't hold (NaN, Infinity, half a surrogate pair).

    Integers beyond 2^53, for which the RFC has no form, are written in full: two of them never look alike.
    """
    return (_PLAIN.encode(value) if _is_plain(value) else _text(value)).encode()


def _is_plain(value: Any) -> bool:
    """Whether the standard library writes it in the same form, which is several times faster: no fractions, no odd names."""
    kind = type(value)
    if kind is dict:
        return all(map(str.isascii, value)) and all(map(_is_plain, value.values()))
    if kind is list:
        return all(map(_is_plain, value))
    return kind is str or kind is int or kind is bool or value is None


def _text(value: Any) -> str:
    match value:
        case bool() | None | str():
            return json.dumps(value, ensure_ascii=False)
        case int():
            return str(value)
        case float():
            return _number(value)
        case list() | tuple():
            return f"[{','.join(map(_text, value))}]"
        case dict():
            return "{" + ",".join(f"{_text(name)}:{_text(value[name])}" for name in sorted(value, key=_units)) + "}"
        case _:
            raise ValueError(f"a {type(value).__name__} is no JSON value")


def _units(name: str) -> bytes:
    """Names are ordered by their UTF-16 code units (RFC 8785 §3.2.3)."""
    return name.encode("utf-16-be")


def _number(value: float) -> str:
    """As ECMAScript's Number::toString: the shortest digits that mean the same double."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no JSON number")
    if value == 0:
        return "0"
    sign, all_digits, exponent = Decimal(repr(abs(value))).as_tuple()
    assert isinstance(exponent, int) and not sign  # noqa: S101 - of a finite number
    point = len(all_digits) + exponent
    digits = "".join(map(str, all_digits)).rstrip("0")
    return ("-" if value < 0 else "") + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """0.`digits` × 10^`point`."""
    if len(digits) <= point <= _WHOLE:
        return digits.ljust(point, "0")
    if 0 < point <= _WHOLE:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"

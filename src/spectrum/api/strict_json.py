"""Reading JSON without surprises: what two readers could take for two things is refused (RFC 8259, RFC 7493)."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any, NoReturn

from spectrum.core.errors import Problem

MAX_DEPTH = 64


def parse(body: bytes) -> Any:
    """The value in a body. Raises Problem `malformed`.

    Refused are doubled keys, NaN and Infinity, NUL and lone surrogates (PostgreSQL can't keep them), more than 64
    levels, and anything but UTF-8.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} in line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _malformed(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError:  # Python's own guard: reading a number takes the square of its length
        raise _malformed("a number in it has too many digits; send it as a text") from None
    _check(value, may_hold_odd_text=b"\\u" in body or b"\x00" in body)
    return value


def digest(body: bytes) -> str:
    """SHA-256 of what a body means: the same for the same JSON in another order or layout."""
    with contextlib.suppress(ValueError, RecursionError):
        body = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise _malformed(f"the key {doubled!r} stands twice in one object")
    return result


def _constant(name: str) -> NoReturn:
    raise _malformed(f"{name} is no JSON number")


def _check(value: Any, may_hold_odd_text: bool) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _malformed(f"it is nested more than {MAX_DEPTH} levels deep")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
                if may_hold_odd_text:
                    below.extend(item)
            elif isinstance(item, list):
                below.extend(item)
            elif may_hold_odd_text and isinstance(item, str):
                _check_text(item)
        level = below


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise _malformed("a text in it holds a NUL character")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _malformed("a text in it holds half of a surrogate pair")


def _malformed(what: str) -> Problem:
    return Problem("malformed", f"The body is not acceptable JSON: {what}.")

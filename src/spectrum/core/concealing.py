"""What an instance says of itself, without its secrets: a program may print what it was given (P18)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from spectrum.core.errors import Failure

BLOT = "[secret]"
LINE = 500  # characters of a printed line that are kept with an output
SHORTEST = 4  # characters: what is shorter stands in half of all lines
WITHHELD = "[withheld: the secrets that it might hold could not be fetched]"


def conceal(value: Any, secrets: Collection[str]) -> Any:
    """`value` (as JSON has it) with every secret in its texts blotted out. Lines stand alone, so a secret's lines do too."""
    pieces = {line for secret in secrets for line in (secret, *secret.splitlines()) if len(line) >= SHORTEST}
    # The longest first: one secret may be part of another.
    return _blotted(value, sorted(pieces, key=len, reverse=True))


def conceal_lines(lines: Iterable[str], secrets: Collection[str]) -> list[str]:
    """What a program printed, for an output, which is stored only while it is small. It is cut last: half a secret is not found."""
    return [line[:LINE] for line in conceal(list(lines), secrets)]


def _blotted(value: Any, pieces: Collection[str]) -> Any:
    match value:
        case str():
            for piece in pieces:
                value = value.replace(piece, BLOT)
            return value
        case Mapping():
            return {name: _blotted(item, pieces) for name, item in value.items()}
        case list() | tuple():
            return type(value)(_blotted(item, pieces) for item in value)
        case _:
            return value


def conceal_failure(failure: Failure, secrets: Collection[str]) -> Failure:
    return replace(
        failure,
        message=conceal(failure.message, secrets),
        detail=conceal(failure.detail, secrets),
        evidence=conceal(failure.evidence, secrets),
    )


def withhold(failure: Failure) -> Failure:
    """The failure without what the instance itself said."""
    return replace(failure, evidence=(WITHHELD,))

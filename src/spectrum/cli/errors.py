"""Errors of the command line itself, and how every error is told: what was wrong, where, and the next command."""

from __future__ import annotations

import sys

from spectrum.core.errors import SpectrumError, Where

ERROR, USAGE, NOT_SIGNED_IN, INTERRUPTED = 1, 2, 7, 130

_NEXT = {
    "unauthenticated": "spectrum login URL",
    "forbidden": "spectrum token create NAME --scope …, with a token that may",
    "instance-busy": "spectrum job list --instance {name}",
    "precondition-failed": "spectrum instance show {name}, then the same command again",
    "operation-not-available": "spectrum --help",
    "idempotency-key-reused": "the same command with another --idempotency-key",
    "invalid-product": "spectrum product validate FILE",
    "rate-limited": "the same command a little later",
    "unavailable": "spectrum status",
}
_NEXT_BY_PLACE = {
    "/name": "the same command with another NAME",
    "/product": "spectrum product list",
    "/target": "spectrum target list",
    "/release": "spectrum product list",
    "/plan": "spectrum product show PRODUCT@VERSION",
    "/parameters": "spectrum product show PRODUCT@VERSION",
}
_NEXT_BY_NOUN = {"not-found": "spectrum {noun} list", "not-allowed-now": "spectrum {noun} list"}
_NEXT_OF = {
    ("instance", "not-allowed-now"): "spectrum instance show {name}",
    ("job", "not-allowed-now"): "spectrum job show {name}",
}


class UsageError(SpectrumError):
    """The command was called in a way that cannot work."""

    exit_code = USAGE

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotSignedIn(UsageError):
    """No server is known, or none that may be used."""

    exit_code = NOT_SIGNED_IN


def tell(error: SpectrumError, noun: str = "", name: str = "") -> None:
    """Put the error on stderr. `noun` and `name`: what the command was about."""
    message = getattr(error, "message", "") or getattr(error, "detail", "") or str(error)
    slug = getattr(error, "slug", "")
    lines = [f"error: {message}{f' ({slug})' if slug else ''}"]
    places: tuple[Where, ...] = getattr(error, "errors", ())
    for place in places:
        lines += _beside(message, place)
    if job := getattr(error, "job", None):
        lines += [f"  | {line}" for line in (job.error.evidence if job.error else ())]
    if request_id := getattr(error, "request_id", ""):
        lines.append(f"request: {request_id}")
    lines.append(f"next: {next_command(error, noun, name)}")
    sys.stderr.write("\n".join(lines) + "\n")


def next_command(error: SpectrumError, noun: str = "", name: str = "") -> str:
    """What to do about it: the error's own hint, else what helps with its kind."""
    slug = getattr(error, "slug", "")
    if hint := getattr(error, "hint", ""):
        return str(hint)
    if found := _NEXT_OF.get((noun, slug)):
        return found.format(name=name or "NAME")
    if slug in _NEXT_BY_NOUN:
        return _NEXT_BY_NOUN[slug].format(noun=noun) if noun else "spectrum --help"
    places: tuple[Where, ...] = getattr(error, "errors", ())
    if places and (found := _NEXT_BY_PLACE.get("/".join(places[0].pointer.split("/")[:2]))):
        return found
    return _NEXT.get(slug, f"spectrum {noun} --help".replace("  ", " ")).format(name=name or "NAME")


def why(error: Exception) -> str:
    """What the system or a library says, without the number and the file that it adds."""
    return getattr(error, "strerror", None) or str(error)


def _beside(message: str, place: Where) -> list[str]:
    """What a place adds to the message above it, which may be the same words."""
    if place.file or place.message.casefold() not in message.casefold():
        return place_lines(place)
    return [f"  {place.hint}"] if place.hint else []


def place_lines(place: Where) -> list[str]:
    position = ":".join(str(part) for part in (place.file, place.line) if part)
    head = " ".join(part for part in (position, place.pointer) if part)
    lines = [f"  {head}: {place.message}" if head else f"  {place.message}"]
    return [*lines, f"    {place.hint}"] if place.hint else lines

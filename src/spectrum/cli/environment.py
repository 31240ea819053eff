"""SPECTRUM_* variables: known by name, anything else refused (INTERFACES §6)."""

from __future__ import annotations

import difflib
import os

from spectrum.cli.errors import UsageError

PREFIX = "SPECTRUM_"
TESTS = "SPECTRUM_TEST_"
KNOWN = frozenset(
    PREFIX + name
    for name in (
        *("URL", "TOKEN", "CONTEXT"),
        *("HOME", "LISTEN", "PUBLIC_URL", "DATABASE_URL", "BUS", "MASTER_KEY_FILE", "LEASE_SECONDS", "RATE_LIMIT"),
        *("LOG_FORMAT", "STREAM_LIMIT"),
        *("KAFKA_TLS", "KAFKA_CA_FILE", "KAFKA_CERTIFICATE_FILE", "KAFKA_KEY_FILE"),
        *("KAFKA_USERNAME", "KAFKA_PASSWORD_FILE", "KAFKA_MECHANISM"),
        *("TARGETS", "KEY_FILE", "JOIN_TOKEN_FILE"),
    )
)


def refuse_unknown() -> None:
    """A misspelt variable would otherwise be ignored without a word. Raises `UsageError`."""
    for name in sorted(os.environ):
        if not name.startswith(PREFIX) or name.startswith(TESTS) or name in KNOWN:
            continue
        close = difflib.get_close_matches(name, KNOWN, 1)
        hint = f"Did you mean {close[0]}?" if close else f"unset {name}"
        raise UsageError(f"The environment variable {name} is not known", hint)


def variable(name: str) -> str | None:
    """The value of SPECTRUM_`name`; an empty one counts as unset."""
    return os.environ.get(PREFIX + name) or None

"""Durations, byte sizes, processor shares, signals and command lines, read exactly as Compose reads them."""

from __future__ import annotations

import re

_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6}
_NANOSECONDS |= {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9, "w": 604_800 * 10**9}
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]+)")
_SIZE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?([kmgtp]?)(i?b)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_CPUS = re.compile(r"[0-9]+(\.[0-9]+)?|\.[0-9]+", re.ASCII)
MAX_DURATION = 366 * 86_400.0

SIGNALS = frozenset(
    [
        "SIGABRT",
        "SIGALRM",
        "SIGCONT",
        "SIGHUP",
        "SIGINT",
        "SIGIO",
        "SIGKILL",
        "SIGPIPE",
        "SIGPROF",
        "SIGPWR",
        "SIGQUIT",
        "SIGSYS",
        "SIGTERM",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGUSR1",
        "SIGUSR2",
        "SIGVTALRM",
        "SIGWINCH",
        "SIGXCPU",
        "SIGXFSZ",
    ]
)


def seconds(text: str) -> float:
    """`1h30m`, `500ms`, `1w` in seconds (Compose: Go's durations and d, w). Raises ValueError; at most a year."""
    if text == "0":
        return 0.0
    total, position = 0.0, 0
    while match := _DURATION_PART.match(text, position):
        if match[2] not in _NANOSECONDS:
            raise ValueError(f"unknown unit {match[2]!r} in the duration {text!r}")
        total += float(match[1]) * _NANOSECONDS[match[2]]
        position = match.end()
    if not text or position != len(text):
        raise ValueError(f"{text!r} is no duration; write it like 30s, 1m30s or 500ms")
    if total > MAX_DURATION * 10**9:
        raise ValueError(f"the duration {text!r} is longer than a year")
    return total / 10**9


def byte_size(text: str) -> int:
    """`256M`, `1.5gb`, `512kib` or plain bytes, with binary units (docker/go-units RAMInBytes). Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if not match or (match[3] and match[3].lower() == "ib" and not match[2]):
        raise ValueError(f"{text!r} is no size; write it like 256M or 1G")
    size = int(float(match[1]) * _UNITS[match[2].lower()])
    if size >= 1 << 63:
        raise ValueError(f"the size {text!r} is too large")
    return size


def processors(text: str) -> float:
    """`0.5` or `2`: how many processors' worth of time. Raises ValueError."""
    if not _CPUS.fullmatch(text) or float(text) > 4096:
        raise ValueError(f"{text!r} is no number of processors; write it like 0.5 or 2")
    return float(text)


def processes(text: str) -> int:
    """How many processes at most; -1 is unlimited. Raises ValueError."""
    if not re.fullmatch(r"-1|[0-9]{1,9}", text, re.ASCII):
        raise ValueError(f"{text!r} is no number of processes; write it like 64")
    return int(text)


def signal_name(text: str) -> str:
    """`SIGINT` for `INT`, `int` and `SIGINT`. Raises ValueError."""
    name = text.upper() if text.upper().startswith("SIG") else "SIG" + text.upper()
    if name not in SIGNALS:
        raise ValueError(f"{text!r} is no signal's name; write it like SIGTERM or SIGINT")
    return name


def split_words(line: str) -> tuple[str, ...]:
    """A command line in words, by the quoting rules of mattn/go-shellwords, which Compose uses.

    Compose runs no shell: it would drop everything from `|`, `;`, `&`, `<` or `>` on without a word, so these are refused
    here, as are substitutions. Raises ValueError.
    """
    words: list[str] = []
    word: str | None = None
    quote, escaped = "", False
    for character in line:
        if escaped:
            word, escaped = (word or "") + character, False
        elif character == "\\" and quote != "'":
            escaped = True
        elif character == quote:
            word, quote = word or "", ""
        elif quote:
            word = (word or "") + character
        elif character in "\"'":
            quote = character
        elif character in " \t\r\n":
            if word is not None:
                words.append(word)
            word = None
        elif character in ";&|<>()`":
            raise ValueError(f"a command in one string is not run by a shell, so {character!r} has no meaning in it")
        else:
            word = (word or "") + character
    if quote or escaped:
        raise ValueError("a quote or an escape is not closed")
    return (*words, word) if word is not None else tuple(words)

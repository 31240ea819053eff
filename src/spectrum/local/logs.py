"""The parts' log files: bounded by rotation, and their last lines as evidence."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

LARGEST = 10 * 1024 * 1024  # bytes
KEPT = 3
TAIL_BYTES = 64 * 1024
_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")  # as `say` puts it before a line


def say(text: str) -> None:
    """A line of the supervisor's own log: its stdout."""
    sys.stdout.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
    sys.stdout.flush()


def rotate(path: Path, largest: int = LARGEST) -> None:
    """Copy a large log aside and empty it: its writers hold it open for appending and go on with the empty one.

    On a full disk the copy is given up and the log emptied, which is what makes room.
    """
    try:
        if path.stat().st_size < largest:
            return
    except FileNotFoundError:
        return
    for number in range(KEPT - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            _old(path, number).replace(_old(path, number + 1))
    try:
        shutil.copyfile(path, _old(path, 1))
    except OSError:
        _old(path, 1).unlink(missing_ok=True)
    os.truncate(path, 0)


def tail(path: Path, lines: int) -> tuple[str, ...]:
    """The last lines that say something, oldest first."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(line for line in text.splitlines() if line.strip())[-lines:]


def message(line: str) -> str:
    """What a line says, without its time and the members of a JSON line that only programs read."""
    try:
        record = json.loads(line)
    except ValueError:
        return _STAMP.sub("", line)
    return str(record.get("message", line)) if isinstance(record, dict) else line


def _old(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")

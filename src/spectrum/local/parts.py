"""The parts of an installation as data: what to run, what each needs before it starts, and how it is stopped."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spectrum.local.home import Home, write


@dataclass(frozen=True, slots=True)
class Part:
    """A program that an installation keeps running. It stays in the foreground and logs to stdout and stderr."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_files: Mapping[str, str] = field(default_factory=dict)  # variable -> file that holds its value
    port: int | None = None  # on loopback; the part is running once it accepts connections there
    gives_files: tuple[str, ...] = ()  # removed before a start; others read them, so it is running once they are there
    adopts: bool = False  # what holds its port may be its own: the program finds out, and says so
    needs_ports: tuple[int, ...] = ()  # it is started once these accept connections
    needs_files: tuple[str, ...] = ()  # it is started once these are there
    stop_signal: int = signal.SIGTERM
    grace: float = 10.0  # seconds to end by itself

    @property
    def digest(self) -> str:
        """Changes with everything for which a running part must be started anew."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def missing(self) -> str:
        """What it still waits for, in words; empty if it can start."""
        for path in (*self.needs_files, *self.environment_files.values()):
            if not Path(path).exists():
                return f"waits for {path}"
        for port in self.needs_ports:
            if not accepts(port):
                return f"waits for port {port}"
        return ""


def store(home: Home, parts: tuple[Part, ...]) -> None:
    write(home.parts, json.dumps([asdict(part) for part in parts], indent=1))


def load(home: Home) -> tuple[Part, ...]:
    """What is wanted running: nothing after `down`."""
    return _read(home.parts)


def withdraw(home: Home) -> tuple[Part, ...]:
    """Want nothing running any more, also across a crash. Answers what was wanted, now or before an earlier withdrawal."""
    if home.parts.exists():
        home.parts.replace(home.unwanted_parts)
    return _read(home.unwanted_parts)


def _read(path: Path) -> tuple[Part, ...]:
    try:
        return tuple(_part(entry) for entry in json.loads(path.read_text()))
    except FileNotFoundError:
        return ()


def fingerprint(parts: tuple[Part, ...]) -> str:
    """Changes with any of the parts."""
    return "-".join(part.digest for part in parts)


def accepts(port: int) -> bool:
    """Whether somebody on this machine accepts connections on the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _part(entry: dict[str, Any]) -> Part:
    lists = ("command", "gives_files", "needs_ports", "needs_files")
    return Part(**(entry | {key: tuple(entry[key]) for key in lists}))

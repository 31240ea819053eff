"""Which program listens on a port of this machine, as far as the caller may see it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


def owner_of(port: int) -> str:
    """`name (pid N)` of the program that listens there, or words for one that the caller may not see."""
    inodes = set(_sockets(port))
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if any(link in inodes for link in _links(folder)):
                name = (folder.parent / "comm").read_text().strip()
                return f"{name} (pid {folder.parent.name})"
    return "another program"


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on the port. The caller must be its owner."""
    return not set(_sockets(port)).isdisjoint(_links(Path(f"/proc/{pid}/fd")))


def _links(folder: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                yield str(entry.readlink())


def _sockets(port: int) -> Iterator[str]:
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[9]}]"

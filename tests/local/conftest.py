"""Installations of tiny real programs, and what is left of them."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spectrum.local import lifecycle
from spectrum.local.home import Home, port_is_free, prepare
from spectrum.local.parts import Part
from tests.waiting import wait_until

LISTENER = """
import signal, socket, sys
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
while True:
    server.accept()[0].close()
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, outside the range from which the kernel serves everybody else."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.randbelow(10_000) + 10_000
        if port not in found and port_is_free(port):
            found.append(port)
    return found


def processes_of(home: Home) -> list[int]:
    """Every process that carries the home's path in its command: its parts, their launchers, its supervisor."""
    marker = str(home.root).encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(marker in word for word in words):
            found.append(int(folder.name))
    return found


def program(home: Home, name: str, source: str, *arguments: object, **more: object) -> Part:
    command = (sys.executable, "-I", "-S", "-c", source, *map(str, arguments), f"{home.root}/{name}")
    return Part(name, command, grace=5.0, **more)  # type: ignore[arg-type]


def listener(home: Home, name: str, port: int, **more: object) -> Part:
    return program(home, name, LISTENER, port, port=port, **more)


@pytest.fixture
def make_home(tmp_path: Path) -> Iterator[Callable[[str], Home]]:
    made: list[Home] = []

    def make(name: str = "home") -> Home:
        home = Home(tmp_path / name)
        prepare(home)
        made.append(home)
        return home

    yield make
    for home in made:
        lifecycle.stop(home, lambda _: None)
        wait_until(lambda home=home: processes_of(home) == [])  # type: ignore[misc]


@pytest.fixture
def home(make_home: Callable[[str], Home]) -> Home:
    return make_home("home")

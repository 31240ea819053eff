"""The real command as a process of its own, in a pipe or on a terminal, against a server with canned answers."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.canned import TOKEN, Canned

SPECTRUM = (sys.executable, "-m", "spectrum.cli")
SECONDS = 60.0


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass
class Shell:
    """A person's shell: a folder, a home and an environment of its own."""

    folder: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return kept | {"HOME": str(self.home), "TERM": "xterm", "COLUMNS": "100"} | self.environment

    def run(self, *arguments: str, stdin: str | None = None) -> Ended:
        ended = subprocess.run(
            [*SPECTRUM, *arguments],
            cwd=self.folder,
            env=self.variables(),
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*SPECTRUM, *arguments],
            cwd=self.folder,
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def terminal(self, *arguments: str, types: str = "") -> Ended:
        """Run on a terminal of its own, where stdout and stderr are one; `types` is typed once a question is asked."""
        pid, descriptor = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            os.execve(sys.executable, [*SPECTRUM, *arguments], self.variables())
        text = _until_end(descriptor, types)
        os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        return Ended(os.waitstatus_to_exitcode(status), text, "")


def _until_end(descriptor: int, types: str) -> str:
    text = ""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if not select.select([descriptor], [], [], 1.0)[0]:
            continue
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # the terminal's other end is closed
            return text
        if not part:
            return text
        text += part.decode()
        if types and text.rstrip().endswith(("[y/N]", "Token:")):
            os.write(descriptor, types.encode())
            types = ""
    raise AssertionError(f"it does not end; it said: {text}")


@pytest.fixture
def server() -> Iterator[Canned]:
    with Canned() as canned:
        yield canned


@pytest.fixture
def bare(tmp_path: Path) -> Shell:
    """A shell that knows no server."""
    folder, home = tmp_path / "work", tmp_path / "person"
    folder.mkdir(mode=0o755)
    home.mkdir(mode=0o700)
    return Shell(folder, home)


@pytest.fixture
def shell(bare: Shell, server: Canned) -> Shell:
    bare.environment = {"SPECTRUM_URL": server.url, "SPECTRUM_TOKEN": TOKEN}
    return bare

"""Copies of the control plane on one PostgreSQL, behind a plain load balancer that knows their ports and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from spectrum.core.access import TOKEN_ENTROPY, make_token
from spectrum.db.embedded import Embedded
from spectrum.local.home import Home, prepare
from spectrum.ports import SystemEntropy
from spectrum.sdk import Client
from tests.local.conftest import free_ports
from tests.postgres import chosen_binaries
from tests.waiting import wait_until

START = 180.0  # seconds
GRACE = 15.0  # seconds within which a copy has gone, ten of them for what it is answering
SPECTRUM = (sys.executable, "-m", "spectrum.cli")


@dataclass
class Balancer:
    """Gives each connection to the next copy in turn, or to one after it where that one refuses. In a thread of its own."""

    port: int
    backends: tuple[int, ...]
    given: list[int] = field(default_factory=list)
    _turn: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def running(self) -> Iterator[None]:
        ready = threading.Event()
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=(self._serve(ready),))
        thread.start()
        ready.wait()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(self._told.set)
            thread.join()
            loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._told = asyncio.Event()
        self._links: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._link, "127.0.0.1", self.port)
        ready.set()
        await self._told.wait()
        server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            there = await self._next()
            if there is not None:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pass_on(reader, there[1]))
                    both.create_task(_pass_on(there[0], writer))
        except (asyncio.CancelledError, ExceptionGroup):
            pass
        finally:
            writer.close()
            self._links.discard(task)

    async def _next(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        first = next(self._turn)
        for offset in range(len(self.backends)):
            port = self.backends[(first + offset) % len(self.backends)]
            with contextlib.suppress(OSError):
                opened = await asyncio.open_connection("127.0.0.1", port)
                self.given.append(port)
                return opened
        return None


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side has said all: then the other side hears that too."""
    try:
        while said := await reader.read(1 << 16):
            writer.write(said)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@dataclass
class Copies:
    """Processes by port. `environment` is what they have in common."""

    folder: Path
    environment: Mapping[str, str]
    ports: tuple[int, ...]
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, port: int) -> None:
        """Returns once it is ready for work."""
        command = (*SPECTRUM, "server", "--bootstrap", str(self.folder / "token"))
        environment = {**self.environment, "SPECTRUM_LISTEN": f"127.0.0.1:{port}"}
        with (self.folder / f"server-{port}.log").open("ab") as log:
            self.running[port] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        wait_until(lambda: self._ready(port), START)

    def _ready(self, port: int) -> bool:
        process = self.running[port]
        assert process.poll() is None, (self.folder / f"server-{port}.log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self, port: int) -> tuple[int, float]:
        """Its exit code, and how long it took to go (seconds)."""
        process = self.running.pop(port)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        return process.wait(GRACE), time.monotonic() - began

    def log(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("server-*.log"))


@dataclass
class Cell:
    """The copies, the way to them, and who may use it."""

    url: str
    token: str
    copies: Copies
    balancer: Balancer
    folder: Path

    @contextmanager
    def client(self) -> Iterator[Client]:
        with Client(self.url, self.token) as client:
            yield client

    def spectrum(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command line, as a person uses it who knows the balancer's address alone."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        environment = {**kept, "HOME": str(self.folder), "SPECTRUM_URL": self.url, "SPECTRUM_TOKEN": self.token}
        return subprocess.run((*SPECTRUM, *words), env=environment, capture_output=True, text=True, timeout=120)

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process for a target that is added here, where root's instances can live too."""
        home, root = self.folder / "worker", Home(self.folder / "home").instances
        target = f"process://{root}"
        home.mkdir(mode=0o700)
        with self.client() as client:
            client.targets.add("local", target)
            (home / "join-token").write_text(f"{client.workers.join_token('local').token}\n")
        environment = {
            **_inherited(),
            "SPECTRUM_HOME": str(home),
            "SPECTRUM_URL": self.url,
            "SPECTRUM_JOIN_TOKEN_FILE": str(home / "join-token"),
        }
        with (home / "log").open("wb") as log:
            process = subprocess.Popen((*SPECTRUM, "worker", "run", "--target", target), env=environment, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)
            shutil.rmtree(root, ignore_errors=True)


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SPECTRUM_")}


@contextmanager
def cell(folder: Path, count: int = 2) -> Iterator[Cell]:
    """PostgreSQL, so many copies, and a balancer before them."""
    token = make_token(SystemEntropy().token(TOKEN_ENTROPY)).text
    (folder / "token").write_text(token)
    prepare(Home(folder / "home"))
    embedded = Embedded(folder / "postgres", durable=False, dies_with_parent=True, binaries=chosen_binaries())
    front, *ports = free_ports(count + 1)
    url = f"http://127.0.0.1:{front}"
    environment = {
        **_inherited(),
        "SPECTRUM_HOME": str(folder / "home"),
        "SPECTRUM_PUBLIC_URL": url,
        "SPECTRUM_DATABASE_URL": embedded.start().url(),
    }
    copies = Copies(folder, environment, tuple(ports))
    balancer = Balancer(front, tuple(ports))
    try:
        with balancer.running():
            for port in ports:
                copies.start(port)
            yield Cell(url, token, copies, balancer, folder)
    finally:
        for process in copies.running.values():
            process.kill()
            process.wait()
        embedded.remove()

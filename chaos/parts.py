"""The system under test: two control planes, two workers on one target, and PostgreSQL, each a real process that can be harmed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncpg
import psutil

from chaos.machine import Impossible, Means, faked, run
from chaos.network import LOOPBACK, Address, Namespaces, Relay, Way, free_port, relaying
from spectrum.core.access import TOKEN_ENTROPY, make_token
from spectrum.core.errors import SpectrumError
from spectrum.db.embedded import Embedded
from spectrum.local.home import Home, prepare
from spectrum.ports import SystemEntropy
from spectrum.providers import open_provider
from spectrum.providers.protocol import Call
from spectrum.sdk import Client
from spectrum.server import DATABASE

READY = 300.0  # seconds
SPECTRUM = (sys.executable, "-m", "spectrum.cli")
SERVERS = ("server-1", "server-2")
WORKERS = ("worker-1", "worker-2")
HOST = "host"  # where both workers and all instances live
FILLER = "filler"  # the file that makes a disk full
LAST = 2**50  # a fence after all others
DISKS = {"worker-1": "4m", "worker-2": "4m", HOST: "96m"}


class ChaosError(SpectrumError):
    """The run can't go on; the message says what is wrong."""


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises `ChaosError` once the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ChaosError(f"{what} did not come to be within {seconds:.0f} s")
        time.sleep(0.05)


@dataclass
class Part:
    """A process that is started again whenever it has ended, unless it is held down."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    namespace: str | None = None
    process: subprocess.Popen[bytes] | None = None
    held: bool = False
    ended_by_itself: list[int] = field(default_factory=list)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        way_in = ("nsenter", f"--net=/run/netns/{self.namespace}") if self.namespace else ()
        with self._turn, self.log.open("ab") as log:
            self.held = False
            if self.process is not None and self.process.poll() is None:
                return  # two faults that overlapped: the first one's end has started it
            self.process = subprocess.Popen(
                (*way_in, *self.command), env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and nobody starts it again before `start`."""
        with self._turn:
            self.held = True
            if self.process is not None:
                self.process.kill()
                self.process.wait()

    def look_after(self) -> None:
        """What a supervisor does: start again what has ended."""
        if self.process is not None and not self.held and (code := self.process.poll()) is not None:
            self.ended_by_itself.append(code)
            self.start()


@dataclass
class Cell:
    """All parts, the ways between them, and a way in for clients to either control plane."""

    folder: Path
    lease: float
    skipped: Mapping[Means, str]
    namespaces: Namespaces = field(default_factory=Namespaces)
    parts: dict[str, Part] = field(default_factory=dict)
    ways: dict[str, Way] = field(default_factory=dict)
    disks: dict[str, Path] = field(default_factory=dict)
    clocks: dict[str, Path] = field(default_factory=dict)
    doors: dict[str, str] = field(default_factory=dict)  # where a worker that has joined calls, each its own
    fronts: tuple[str, ...] = ()
    token: str = ""
    admin_url: str = ""

    def __post_init__(self) -> None:
        self.postgres = Embedded(self.folder / "postgres", durable=False, dies_with_parent=True)
        self.home = Home(self.folder / "home")

    @property
    def target(self) -> str:
        return f"process://{self.home.instances}"

    def client(self, front: int = 0, patience: float = 5.0) -> Client:
        return Client(self.fronts[front % len(self.fronts)], self.token, patience=patience)

    def look_after(self) -> None:
        for part in self.parts.values():
            part.look_after()

    def end_postgres(self) -> None:
        """Immediate shutdown, as if its machine had lost power."""
        server = self.postgres.running()
        if server is not None:
            os.kill(server.pid, signal.SIGQUIT)
            psutil.Process(server.pid).wait(60)

    def kill_supervisors(self) -> None:
        """Of all instances; what they supervise goes on, and whoever needs one starts it anew."""
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or ()
            if "supervise" in words and str(self.home.instances) in words:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def spooled(self) -> int:
        """Reports that wait on the workers' disks."""
        homes = (Path(self.parts[name].environment["SPECTRUM_HOME"]) for name in WORKERS)
        return sum(len(list((home / "spool").glob("*.json"))) for home in homes)

    def ready(self) -> bool:
        return all(answers(f"{front}/readyz") for front in self.fronts)

    def log_of(self, part: str) -> str:
        return self.parts[part].log.read_text(errors="replace")


def answers(url: str) -> bool:
    """Whether somebody there says that all is well."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def cell(folder: Path, lease: float, skipped: Mapping[Means, str]) -> Iterator[Cell]:
    """Everything running and joined; all of it is gone afterwards, whatever happened."""
    made = Cell(folder, lease, skipped)
    with ExitStack() as stack:
        if Means.NAMESPACES not in skipped:
            stack.callback(made.namespaces.remove)
            made.namespaces.make((*SERVERS, HOST))
        prepare(made.home)
        stack.callback(shutil.rmtree, made.home.instances, ignore_errors=True)
        _mount(made, stack)
        stack.callback(_clear, made)
        stack.callback(made.postgres.remove)
        stack.enter_context(relaying(_start_parts(made, stack)))
        wait_until(made.ready, READY, "readiness of both control planes")
        _join(made)
        yield made


def _start_parts(made: Cell, stack: ExitStack) -> list[Relay]:
    """PostgreSQL and the control planes; the relays that are to lead to them, and from the workers."""
    server = made.postgres.start()
    asyncio.run(_keep_commits(server.url()))
    made.admin_url = server.url(DATABASE)
    made.token = make_token(SystemEntropy().token(TOKEN_ENTROPY)).text
    token_file = made.folder / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(made.token)
    relays, backends, fronts = [], [], []
    public = free_port(made.namespaces.of(HOST))
    for name in SERVERS:
        namespace, near = made.namespaces.of(name), made.namespaces.near(name)
        own, far = free_port(namespace), made.namespaces.far(name)
        entry = free_port(host=near)
        way = made.ways[name] = Way(name, entry, namespace)
        relays.append(Relay(Address(near, entry), (Address(LOOPBACK, server.port),), way))
        front = free_port()
        relays.append(Relay(Address(LOOPBACK, front), (Address(far, own),), Way(f"clients-{name}", front, None)))
        backends.append(Address(far, own))
        fronts.append(f"http://{LOOPBACK}:{front}")
        environment = {
            **_inherited(),
            **_clock(made, name),
            "SPECTRUM_HOME": str(made.home.root),
            "SPECTRUM_LISTEN": f"{far}:{own}",
            "SPECTRUM_PUBLIC_URL": f"http://{LOOPBACK}:{public}",
            "SPECTRUM_LEASE_SECONDS": str(made.lease),
            "SPECTRUM_DATABASE_URL": server.url().replace(f"{LOOPBACK}:{server.port}", f"{near}:{entry}"),
        }
        command = (*SPECTRUM, "server", "--bootstrap", str(token_file))
        _add(made, stack, Part(name, command, environment, made.folder / f"{name}.log", namespace))
    made.fronts = tuple(fronts)
    for name in WORKERS:
        relays += _way_of(made, stack, name, tuple(backends), public)
    first = relays[-1].listen
    door = Address(LOOPBACK, public, made.namespaces.of(HOST))
    relays.append(Relay(door, (replace(first, namespace=door.namespace),), Way("door", public, None)))
    for name in SERVERS:
        made.parts[name].start()
    return relays


async def _keep_commits(admin_url: str) -> None:
    """What was committed must outlive an immediate shutdown. Its machine goes on, so nothing has to reach the disk for that."""
    admin = await asyncpg.connect(admin_url)
    try:
        for setting in ("synchronous_commit", "full_page_writes"):
            await admin.execute(f"ALTER SYSTEM SET {setting} = on")
        await admin.execute("SELECT pg_reload_conf()")
    finally:
        await admin.close()


def _way_of(made: Cell, stack: ExitStack, name: str, backends: tuple[Address, ...], public: int) -> list[Relay]:
    """A worker calls its own loopback; from there its way crosses to the machine, and on to either control plane."""
    namespace, near = made.namespaces.of(HOST), made.namespaces.near(HOST)
    inner, outer = free_port(namespace), free_port(host=near)
    way = made.ways[name] = Way(name, outer, namespace)
    home = made.disks.get(name) or made.folder / name
    home.mkdir(mode=0o700, exist_ok=True)
    environment = {
        **_inherited(),
        **_clock(made, name),
        "SPECTRUM_HOME": str(home),
        "SPECTRUM_URL": f"http://{LOOPBACK}:{public}",  # it joins under the URL that calls are signed for
        "SPECTRUM_JOIN_TOKEN_FILE": str(home / "join-token"),
    }
    made.doors[name] = f"http://{LOOPBACK}:{inner}"
    command = (*SPECTRUM, "worker", "run", "--target", made.target)
    _add(made, stack, Part(name, command, environment, made.folder / f"{name}.log", namespace))
    plain = Way(f"{name}-inner", inner, namespace)
    return [
        Relay(Address(LOOPBACK, inner, namespace), (Address(near, outer, namespace),), plain),
        Relay(Address(near, outer), backends, way),
    ]


def _add(made: Cell, stack: ExitStack, part: Part) -> None:
    made.parts[part.name] = part
    stack.callback(part.kill)


def _join(made: Cell) -> None:
    with made.client(patience=60) as client:
        client.targets.add("local", made.target)
        for name in WORKERS:
            home = Path(made.parts[name].environment["SPECTRUM_HOME"])
            (home / "join-token").write_text(f"{client.workers.join_token('local').token}\n")
            made.parts[name].start()
        for name in WORKERS:
            home = Path(made.parts[name].environment["SPECTRUM_HOME"])
            wait_until((home / "worker.json").exists, READY, f"the joining of {name}")
            made.parts[name].kill()
            made.parts[name].environment = {**made.parts[name].environment, "SPECTRUM_URL": made.doors[name]}
            made.parts[name].start()
        wait_until(
            lambda: sum(w.state == "live" for w in client.workers.list()) == len(WORKERS), READY, "two live workers"
        )


def _mount(made: Cell, stack: ExitStack) -> None:
    """Small disks for what a full one would hurt: the workers' spools, and everything that instances write."""
    if Means.TMPFS in made.skipped:
        return
    for name, size in DISKS.items():
        folder = made.home.instances if name == HOST else made.folder / name
        mode = "755" if name == HOST else "700"
        folder.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"size={size},mode={mode}", "chaos", str(folder))
        stack.callback(_unmount, folder)
        made.disks[name] = folder


def _clear(made: Cell) -> None:
    """Purge whatever instances a run that was given up has left: nothing of it stays on the machine."""
    for folder in made.disks.values():
        (folder / FILLER).unlink(missing_ok=True)

    async def purge() -> None:
        provider = open_provider(made.target)
        for instance in {item.instance for item in await provider.inventory()}:
            await provider.remove(Call(instance, "instance/base", "", LAST, LAST))
        await provider.close()

    if (made.home.instances / "instances").exists():
        asyncio.run(purge())


def _unmount(folder: Path) -> None:
    with contextlib.suppress(Impossible):
        run("umount", "--lazy", str(folder))


def _clock(made: Cell, name: str) -> Mapping[str, str]:
    if Means.FAKETIME in made.skipped:
        return {}
    place = made.clocks[name] = made.folder / f"{name}.clock"
    place.write_text("+0\n")
    return faked(place)


def _inherited() -> dict[str, str]:
    """Parts that are killed often start from bytecode, whatever their developer prefers."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SPECTRUM_") and name != "PYTHONDONTWRITEBYTECODE"
    }

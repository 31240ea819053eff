"""The ways between the parts: a network namespace each, relays that can be slow, and rules that drop what goes through.

Without namespaces everything is on loopback; then relays are all there is, and what needs nftables is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from chaos.machine import Impossible, enter, run

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
CONNECT = 10.0  # seconds
LOSS = 20  # percent


class Harm(StrEnum):
    """What rules do to the packets of one way, seen from the part that begins it."""

    DEAF = "deaf"  # no answer comes in
    MUTE = "mute"  # nothing goes out
    LOSSY = "lossy"


@dataclass(frozen=True)
class Address:
    host: str
    port: int
    namespace: str | None = None


@dataclass
class Way:
    """From one part towards others, by the port that this part calls. `delay`: seconds that each piece of a stream waits."""

    name: str
    port: int
    namespace: str | None
    delay: float = 0.0
    harms: set[Harm] = field(default_factory=set)

    def rules(self) -> Iterator[tuple[str, str]]:
        """(chain, rule)"""
        for harm in sorted(self.harms):
            match harm:
                case Harm.DEAF:
                    yield "arriving", f"tcp sport {self.port} drop"
                case Harm.MUTE:
                    yield "leaving", f"tcp dport {self.port} drop"
                case Harm.LOSSY:
                    yield "arriving", f"tcp sport {self.port} numgen random mod 100 < {LOSS} drop"
                    yield "leaving", f"tcp dport {self.port} numgen random mod 100 < {LOSS} drop"


@dataclass
class Namespaces:
    """One for each named place, joined to the machine's own by a pair of interfaces. Empty where there can be none."""

    names: dict[str, str] = field(default_factory=dict)
    _network: str = ""

    def of(self, place: str) -> str | None:
        return self.names.get(place)

    def near(self, place: str) -> str:
        """The address at which the machine is reached from there."""
        return f"{self._network}.{4 * self._number(place) + 1}" if self.names else LOOPBACK

    def far(self, place: str) -> str:
        """The address at which the place is reached from the machine."""
        return f"{self._network}.{4 * self._number(place) + 2}" if self.names else LOOPBACK

    def _number(self, place: str) -> int:
        return list(self.names).index(place)

    def make(self, places: tuple[str, ...]) -> None:
        taken = run("ip", "-o", "-4", "addr")
        tries = (f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(250) + 1}" for _ in range(100))
        self._network = next(network for network in tries if f" {network}." not in taken)
        mark = secrets.token_hex(2)
        self.names = {place: f"chaos-{mark}-{place}" for place in places}
        for place, name in self.names.items():
            near, far = f"ch{mark}n{self._number(place)}", f"ch{mark}f{self._number(place)}"
            run("ip", "netns", "add", name)
            run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
            run("ip", "addr", "add", f"{self.near(place)}/30", "dev", near)
            run("ip", "link", "set", near, "up")
            for words in (
                ("addr", "add", f"{self.far(place)}/30", "dev", far),
                ("link", "set", far, "up"),
                ("link", "set", "lo", "up"),
            ):
                run("ip", "-n", name, *words)

    def remove(self) -> None:
        for name in self.names.values():
            with contextlib.suppress(Impossible):
                run("ip", "netns", "del", name)

    def apply(self, ways: list[Way]) -> None:
        """Make the rules of a namespace those of the ways that begin there, in one transaction."""
        namespace = ways[0].namespace
        assert namespace is not None
        rules = [rule for way in ways for rule in way.rules()]
        arriving = "; ".join(text for chain, text in rules if chain == "arriving")
        leaving = "; ".join(text for chain, text in rules if chain == "leaving")
        text = (
            "table inet chaos\ndelete table inet chaos\ntable inet chaos {\n"
            f"chain arriving {{ type filter hook input priority 0; {arriving}\n}}\n"
            f"chain leaving {{ type filter hook output priority 0; {leaving}\n}}\n}}\n"
        )
        run("nsenter", f"--net=/run/netns/{namespace}", "nft", "-f", "-", given=text)


def inside(namespace: str | None, make: Callable[[], T]) -> T:
    """Do this in a thread that is in the namespace."""
    if namespace is None:
        return make()
    with ThreadPoolExecutor(1, initializer=enter, initargs=(namespace,)) as pool:
        return pool.submit(make).result()


def free_port(namespace: str | None = None, host: str = LOOPBACK) -> int:
    """A port outside the range from which the kernel serves outgoing connections."""

    def free() -> int:
        while True:
            port = secrets.randbelow(10_000) + 20_000
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind((host, port))
                return port

    return inside(namespace, free)


@dataclass
class Relay:
    """Gives each connection to the next backend in turn, or to one after it where that one refuses."""

    listen: Address
    backends: tuple[Address, ...]
    way: Way
    _turn: Iterator[int] = field(default_factory=itertools.count)

    async def serve(self) -> asyncio.Server:
        made = inside(
            self.listen.namespace, lambda: socket.create_server((self.listen.host, self.listen.port), backlog=256)
        )
        return await asyncio.start_server(self._link, sock=made)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await self._next()
            if there is not None:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass_on(reader, there[1]))
                    both.create_task(self._pass_on(there[0], writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _next(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        first = next(self._turn)
        for offset in range(len(self.backends)):
            with contextlib.suppress(OSError):
                return await self._open(self.backends[(first + offset) % len(self.backends)])
        return None

    async def _open(self, to: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        outgoing = inside(to.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        outgoing.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT):
                await asyncio.get_running_loop().sock_connect(outgoing, (to.host, to.port))
        except BaseException:
            outgoing.close()
            raise
        return await asyncio.open_connection(sock=outgoing)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one side has said all: then the other side hears that too."""
        try:
            while said := await reader.read(1 << 16):
                if self.way.delay:
                    await asyncio.sleep(self.way.delay)
                writer.write(said)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@contextmanager
def relaying(relays: list[Relay]) -> Iterator[None]:
    """All relays in one thread of their own."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    failed: list[BaseException] = []
    over = asyncio.Event()

    async def serve() -> None:
        try:
            servers = [await relay.serve() for relay in relays]
        except OSError as error:
            failed.append(error)
            return
        finally:
            ready.set()
        await over.wait()
        for server in servers:
            server.close()
        links = asyncio.all_tasks() - {asyncio.current_task()}
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name=f"relays-{os.getpid()}")
    thread.start()
    ready.wait()
    try:
        if failed:
            raise failed[0]
        yield
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()

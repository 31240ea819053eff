"""Hosts: machines of the simulated world that crash, pause, and have clocks of their own.

A crash takes a process away between two instructions: nothing that it would still have done may happen, `finally` blocks included.
Python runs those when a suspended coroutine is collected. So a crash never touches the coroutines: the life that they belong to is
declared over, the loop throws away whatever would make them go on, they are kept until the run has been judged, and every port
refuses a caller whose life is over (`require_alive`). A life is one incarnation; tasks inherit it through their context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from sim.loop import SimHandle, SimLoop, SimTask

T = TypeVar("T")

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Dead(BaseException):
    """A port was called by a process that has crashed: what the call would do must not happen."""


class _Nowhere(list["SimHandle"]):
    """The queue of a life that is over."""

    def append(self, handle: SimHandle) -> None:
        """Drop it."""


class Life:
    """One incarnation of a host: from a start to a crash."""

    __slots__ = ("alive", "bereaved", "host", "inbox", "number", "tasks")

    def __init__(self, host: Host, number: int, ready: list[SimHandle]) -> None:
        self.host = host
        self.number = number
        self.alive = True
        self.inbox = ready
        # Called when it is over, in order: what a broken connection tells the other side.
        self.bereaved: dict[object, Callable[[], None]] = {}
        self.tasks: list[SimTask[Any]] = []


LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


def require_alive() -> None:
    """Called by every twin before it does anything for its caller.

    Raises Dead for a caller whose host has crashed.
    """
    life = LIFE.get()
    if life is not None and not life.alive:
        raise Dead(f"{life.host.name} has crashed")


class HostClock:
    """The Clock port of a host: its wall clock is off by an offset, and both its clocks run at its own rate."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._host.boot_time() + self._host.offset)

    def monotonic(self) -> float:
        return self._host.boot_time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class HostEntropy:
    """The Entropy port of a host: a keyed hash of a counter, independent of every other draw and of Python's version."""

    def __init__(self, seed: int, host: str) -> None:
        self._key = f"{seed}:{host}".encode()[:64]
        self._count = 0

    def token(self, size: int) -> bytes:
        self._count += 1
        token = b""
        while len(token) < size:
            block = f"{self._count}:{len(token)}".encode()
            token += blake2b(block, key=self._key).digest()
        return token[:size]

    def uniform(self) -> float:
        return int.from_bytes(self.token(7), "big") / 2**56


class Host:
    """A machine with one process on it. `boot` makes the main coroutine of each of its lives."""

    def __init__(self, loop: SimLoop, name: str, boot: Callable[[Host], Coroutine[Any, Any, None]]) -> None:
        self.name = name
        self.rate = 1.0  # seconds of this host for one of the world
        self.offset = 0.0  # seconds that its wall clock is off
        self.clock = HostClock(self)
        self.entropy = HostEntropy(loop.seed, name)
        self.life: Life | None = None
        self._loop = loop
        self._boot = boot
        self._lives = 0

    @property
    def up(self) -> bool:
        return self.life is not None

    @property
    def paused(self) -> bool:
        return self.life is not None and self.life.inbox is not self._loop.ready

    def boot_time(self) -> float:
        """Its monotonic clock, in seconds."""
        return self._loop.now * self.rate

    def start(self) -> None:
        """Begin a new life, which ends when its main coroutine does or by a crash."""
        if self.life is not None:
            raise RuntimeError(f"host {self.name} is already up: crash it first")
        self._lives += 1
        self.life = Life(self, self._lives, self._loop.ready)
        self._loop.lives.append(self.life)
        self.spawn(self._boot(self), f"{self.name}#{self._lives}").add_done_callback(self._loop.inspect)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a coroutine as this host's process would, such as the handler of a request that arrives.

        Raises ConnectionRefusedError when the host is down.
        """
        if self.life is None:
            coroutine.close()
            raise ConnectionRefusedError(f"host {self.name} is down")
        context = Context()
        context.run(LIFE.set, self.life)
        return self._loop.create_task(coroutine, name=name, context=context)

    def crash(self) -> None:
        """Take the process away, from outside it."""
        if self.life is not None and LIFE.get() is self.life:
            raise RuntimeError(f"{self.name} cannot crash itself and go on: await crash_here()")
        self._end()

    async def crash_here(self) -> NoReturn:
        """Crash in the middle of a call of this host's own: the caller never gets an answer."""
        self._end()
        await self._loop.create_future()
        raise AssertionError("a dead process went on")

    def _end(self) -> None:
        if self.life is None:
            return
        life, self.life = self.life, None
        life.alive = False
        self._loop.withdraw(life)
        life.inbox = _Nowhere()
        for told in life.bereaved.values():
            self._loop.later(0, told)
        self._loop.tell(f"{self.name} crashes", "nemesis")

    def pause(self) -> None:
        """Stop the process as SIGSTOP does: it notices nothing, and goes on where it was (a zombie if its lease has lapsed)."""
        if self.life is not None and not self.paused:
            self.life.inbox = self._loop.withdraw(self.life)
            self._loop.tell(f"{self.name} stands still", "nemesis")

    def resume(self) -> None:
        if self.life is not None and self.paused:
            self._loop.tell(f"{self.name} goes on", "nemesis")
            parked, self.life.inbox = self.life.inbox, self._loop.ready
            self._loop.ready.extend(parked)

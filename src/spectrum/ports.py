"""The ambient ports: clock, entropy and task spawning, the only ways in which nondeterminism enters production code (DESIGN §2).

Nothing else reads a clock, draws a random number or starts a task. The real implementations live here; the simulator brings its
own clock and entropy, and runs the same `Tasks`. `sim/lint.py` keeps the rest of the code honest.
"""

from __future__ import annotations

import asyncio
import gc
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from spectrum.core import ids

T = TypeVar("T")


class Clock(Protocol):
    """What time it is for this process. No two processes agree on it, and safety never depends on it (P17)."""

    def now(self) -> datetime:
        """The wall clock, UTC. It may jump either way."""

    def monotonic(self) -> float:
        """Seconds since the machine started, suspended time included. It never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Come back after at least `seconds`; 0 lets others run."""


class Entropy(Protocol):
    """Where chance comes from."""

    def token(self, size: int) -> bytes:
        """`size` bytes that nobody can guess."""

    def uniform(self) -> float:
        """A number in [0, 1), for jitter and sampling; it is no secret."""


def new_id(prefix: str, moment: datetime, entropy: Entropy) -> str:
    """A fresh id of this kind, of a moment (UTC)."""
    return ids.make(prefix, moment, entropy.token(ids.ENTROPY_BYTES))


class Spawner(Protocol):
    """What starts tasks, keeps them alive, and ends them with their owner."""

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run the coroutine beside the caller. An exception that it ends with, and that nobody looks at, is logged."""

    async def close(self) -> None:
        """Cancel everything that still runs and wait until it has ended."""


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        # CLOCK_MONOTONIC stands still while a laptop sleeps; a lease does not.
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemEntropy:
    """The operating system's randomness."""

    def token(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def uniform(self) -> float:
        return random.random()  # noqa: S311


class Tasks:
    """The one owner of the tasks of a part of the system."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[Any], None] = {}  # ordered, so that closing is the same in every run
        self._closed = False

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        if self._closed:
            coroutine.close()
            raise RuntimeError(f"cannot start task {name!r}: its owner is closed")
        task = asyncio.create_task(coroutine, name=name)
        self._running[task] = None
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        self._closed = True
        while running := [task for task in self._running if task is not asyncio.current_task()]:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for task in running:
                self._running.pop(task, None)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        # The exception is not looked at here: asyncio logs one that nobody looks at, and only such a one is unexpected.
        self._running.pop(task, None)


def settle_garbage() -> None:
    """Called once a program has loaded what it runs: that is looked through no more, and the rest not after every few hundred
    objects. A batch makes and drops ten thousands.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


_chooser: Callable[[str], bool] | None = None


def buggify(name: str) -> bool:
    """Whether to take the rare path called `name` now. False outside the simulator.

    After FoundationDB's BUGGIFY: production code offers the simulator its own rare but legal behaviour.
    """
    return _chooser is not None and _chooser(name)


@contextmanager
def buggified(chooser: Callable[[str], bool]) -> Iterator[None]:
    """Let `chooser` answer `buggify` meanwhile. For the simulator alone."""
    global _chooser
    before, _chooser = _chooser, chooser
    try:
        yield
    finally:
        _chooser = before

"""One call from a host into the outside world, and the ways in which it can end badly.

The work of a call is done on no host: it goes on when its caller crashes, pauses, or no longer waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from sim.hosts import LIFE, Host, require_alive
from sim.loop import SimLoop
from sim.marks import declare, sometimes
from sim.twins.faults import SLOW, Ending, Faults

T = TypeVar("T")

PAUSES = (2.0, 10.0, 20.0, 60.0)  # seconds
CALLS = "calls of ports"
LONG_PAUSE = 16.0  # seconds: longer than a lease

ZOMBIE = declare("a host woke up from a long pause", "it believes in a lease that has lapsed")
ANSWER_LOST = declare("an answer was lost", "only a caller that treats the outcome as unknown survives it")
LATE = declare("a call landed after its caller was gone", "only fencing keeps it from doing harm")
TWICE = declare("a call was done twice", "only idempotence keeps it from doing harm")


async def trouble(faults: Faults, where: str) -> None:
    """A place where the calling host may crash, or stand still for longer than a lease, such as `before provider.ensure`."""
    life = LIFE.get()
    if life is None:
        return
    crash, pause = _troubles(where)
    if faults.strikes(crash):
        await life.host.crash_here()
    if faults.strikes(pause):
        SimLoop.current().outside(stand_still(life.host, faults.one_of(f"pause {where} length", PAUSES)), "pause")
        await asyncio.sleep(PAUSES[0] / 2)


@cache
def _troubles(where: str) -> tuple[str, str]:
    return f"crash {where}", f"pause {where}"


async def stand_still(host: Host, seconds: float) -> None:
    """Pause a host. A longer pause than a lease makes it a zombie."""
    life = host.life
    host.pause()
    await asyncio.sleep(seconds)
    sometimes(ZOMBIE, life is not None and host.life is life and seconds >= LONG_PAUSE)
    host.resume()


class Line:
    """The way from callers to one outside thing. `refusal` makes the error that a caller sees from what went wrong."""

    def __init__(self, faults: Faults, refusal: Callable[[str], Exception]) -> None:
        self.up = True
        self._faults = faults
        self._refusal = refusal

    async def call(self, port: str, work: Callable[[], T]) -> T:
        """Have `work` done, or not, or later, or twice; answer with what it returned or raised, or never."""
        require_alive()
        await trouble(self._faults, f"before {port}")
        answer: asyncio.Future[T] = SimLoop.current().create_future()
        self._set_out(port, work, answer)
        result = await answer
        await trouble(self._faults, f"after {port}")
        return result

    def _set_out(self, port: str, work: Callable[[], T], answer: asyncio.Future[T]) -> None:
        loop, ending = SimLoop.current(), self._faults.ending(port)
        loop.work[CALLS] += 1
        loop.later(self._faults.delay(port), self._arrive, port, ending, work, answer)

    def _arrive(self, port: str, ending: Ending, work: Callable[[], T], answer: asyncio.Future[T]) -> None:
        loop, faults = SimLoop.current(), self._faults
        if ending is not Ending.DONE:
            loop.tell(f"{port}: {ending.value}", "faults")
        match ending:
            case Ending.HANG:
                return
            case Ending.REFUSED:
                _fail(answer, self._refusal("no connection"))
            case Ending.LATE:
                self._lose(port, answer)
                loop.later(faults.one_of(f"{port} late", SLOW), self._land_late, work, answer)
            case Ending.ANSWER_LOST:
                self._do(work)
                self._lose(port, answer)
            case Ending.TWICE:
                _give(answer, self._do(work))
                loop.later(faults.delay(f"{port} again"), self._do_again, work)
            case Ending.DONE:
                loop.later(faults.delay(port), _give, answer, self._do(work))

    def _land_late(self, work: Callable[[], T], answer: asyncio.Future[T]) -> None:
        sometimes(LATE, answer.done())
        self._do(work)

    def _do_again(self, work: Callable[[], T]) -> None:
        sometimes(TWICE)
        self._do(work)

    def _do(self, work: Callable[[], T]) -> T | Exception:
        if not self.up:
            return self._refusal("it is away")
        try:
            return work()
        except Exception as error:
            return error

    def _lose(self, port: str, answer: asyncio.Future[T]) -> None:
        """The caller hears that the connection broke, or hears nothing at all."""
        sometimes(ANSWER_LOST)
        if self._faults.one_of(f"{port} lost", ("broken", "silence")) == "broken":
            _fail(answer, self._refusal("the connection broke, the outcome is unknown"))


def _give(answer: asyncio.Future[T], result: T | Exception) -> None:
    if isinstance(result, Exception):
        _fail(answer, result)
    elif not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[T], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)

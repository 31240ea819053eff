"""One call from a host into the outside world, and the ways in which it can end badly.

The work of a call is done on no host: it goes on when its caller crashes, pauses, or no longer waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sim.hosts import LIFE, Host, require_alive
from sim.loop import SimLoop
from sim.marks import declare, sometimes
from sim.twins.faults import SLOW, Ending, Faults

T = TypeVar("T")

PAUSES = (2.0, 10.0, 20.0, 60.0)  # seconds
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
    if faults.strikes(f"crash {where}"):
        await life.host.crash_here()
    if faults.strikes(f"pause {where}"):
        SimLoop.current().outside(stand_still(life.host, faults.one_of(f"pause {where} length", PAUSES)), "pause")
        await asyncio.sleep(PAUSES[0] / 2)


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
        loop = SimLoop.current()
        answer: asyncio.Future[T] = loop.create_future()
        loop.outside(self._serve(port, work, answer), port)
        result = await answer
        await trouble(self._faults, f"after {port}")
        return result

    async def _serve(self, port: str, work: Callable[[], T], answer: asyncio.Future[T]) -> None:
        faults = self._faults
        ending = faults.ending(port)
        await asyncio.sleep(faults.delay(port))
        if ending is not Ending.DONE:
            SimLoop.current().tell(f"{port}: {ending.value}", "faults")
        match ending:
            case Ending.HANG:
                return
            case Ending.REFUSED:
                _fail(answer, self._refusal("no connection"))
            case Ending.LATE:
                self._lose(port, answer)
                await asyncio.sleep(faults.one_of(f"{port} late", SLOW))
                sometimes(LATE, answer.done())
                self._do(work)
            case Ending.ANSWER_LOST:
                self._do(work)
                self._lose(port, answer)
            case Ending.TWICE:
                _give(answer, self._do(work))
                await asyncio.sleep(faults.delay(f"{port} again"))
                sometimes(TWICE)
                self._do(work)
            case Ending.DONE:
                await self._answer(port, answer, self._do(work))

    def _do(self, work: Callable[[], T]) -> T | Exception:
        if not self.up:
            return self._refusal("it is away")
        try:
            return work()
        except Exception as error:
            return error

    async def _answer(self, port: str, answer: asyncio.Future[T], result: T | Exception) -> None:
        await asyncio.sleep(self._faults.delay(port))
        _give(answer, result)

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

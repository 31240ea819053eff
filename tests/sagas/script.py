"""The scripted fault of one saga: which port call is struck, and how. Everything else in its world goes well.

A place is the name of a kind of moment, such as `before report` or `after provider.ensure`; the same place comes again and again
while an operation runs, and a fault strikes one of its turns.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from sim.choices import Choices
from sim.hosts import LIFE, Host
from sim.loop import SimLoop
from sim.twins.calls import trouble
from sim.twins.faults import Ending, Faults
from sim.twins.wire import Wire

T = TypeVar("T")

BLIND = 5  # observations of a slot that cannot tell what is there
LATE = 4.0  # seconds: long enough for all to be undone meanwhile
PAUSE = 40.0  # seconds: far longer than a lease
DOWN = 2.0  # seconds until a supervisor starts a crashed host again


class Kind(StrEnum):
    """What happens at the place. The later ones are how a call of a port ends."""

    CRASH = "its host crashes"
    BLIND = "its host crashes, and what follows cannot be seen for a while"
    ZOMBIE = "its host stands still until another holds the job"
    CANCEL = "the job is cancelled"
    RELEASE = "the job is handed back"
    REFUSED = Ending.REFUSED.value
    ANSWER_LOST = Ending.ANSWER_LOST.value
    LATE = Ending.LATE.value
    TWICE = Ending.TWICE.value


ENDINGS = {kind: Ending(kind.value) for kind in Kind if kind.value in {ending.value for ending in Ending}}


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault, at one turn of a place (counted from 0)."""

    kind: Kind
    place: str
    turn: int

    def __str__(self) -> str:
        return f"{self.place} #{self.turn}: {self.kind.value}"


class Script(Faults):
    """Faults that follow a script. `turns` counts how often each place was come by while it was armed."""

    def __init__(self, choices: Choices, strike: Strike | None) -> None:
        super().__init__(choices, others=0.0)
        self.turns: Counter[str] = Counter()
        self.struck = False
        self.armed = False
        self.act: Callable[[Kind], Coroutine[Any, Any, None]] | None = None  # what a cancel or a release does
        self._strike = strike
        self._blind = 0

    def buggify(self, name: str) -> bool:
        return False

    def strikes(self, fault: str) -> bool:
        if fault == "provider.observe undecidable":
            self._blind -= 1
            return self._blind >= 0
        word, _, place = fault.partition(" ")
        if not place.startswith(("before ", "after ")) or place.endswith(" http"):
            return False
        if word == "crash":
            turn = self._arrive(place)
            self._aside(place, turn)
            blinded = self._hit(Kind.BLIND, place, turn)
            self._blind = BLIND if blinded else self._blind
            if hit := blinded or self._hit(Kind.CRASH, place, turn):
                self._restart_later()
            return hit
        return word == "pause" and self._hit(Kind.ZOMBIE, place, self.turns[place] - 1)

    def ending(self, port: str) -> Ending:
        turn = self._arrive(port)
        return next((ending for kind, ending in ENDINGS.items() if self._hit(kind, port, turn)), Ending.DONE)

    def one_of(self, what: str, options: tuple[T, ...] | list[T]) -> T:
        if what.endswith(" length"):
            return PAUSE  # type: ignore[return-value]
        if what.endswith(" late"):
            return LATE  # type: ignore[return-value]
        return options[0]

    def delay(self, port: str) -> float:
        return 0.005

    def _arrive(self, place: str) -> int:
        """Which turn of the place this is."""
        turn = self.turns[place]
        if self.armed:
            self.turns[place] += 1
        return turn

    def _hit(self, kind: Kind, place: str, turn: int) -> bool:
        if not self.armed or self.struck or self._strike != Strike(kind, place, turn):
            return False
        self.struck = True
        return True

    def _aside(self, place: str, turn: int) -> None:
        """A cancel or a release goes its own way beside the call."""
        for kind in (Kind.CANCEL, Kind.RELEASE):
            if self._hit(kind, place, turn) and self.act is not None:
                SimLoop.current().outside(self.act(kind), str(kind))

    def _restart_later(self) -> None:
        if (life := LIFE.get()) is not None:
            SimLoop.current().outside(_restart(life.host), "supervisor")


async def _restart(host: Host) -> None:
    await asyncio.sleep(DOWN)
    if not host.up:
        host.start()


class NamedWire(Wire):
    """The wire, with a place before and after each kind of request."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self._script = script

    async def send(self, address: str, request: Any) -> Any:
        await trouble(self._script, f"before {request[0]}")
        answer = await super().send(address, request)
        await trouble(self._script, f"after {request[0]}")
        return answer

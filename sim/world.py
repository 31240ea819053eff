"""A world: what one seed builds, torments and judges. A scenario is the code that fills a world and runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from sim.choices import Choices
from sim.hosts import Host
from sim.loop import SimLoop
from sim.twins.faults import Faults


class Violation(Exception):
    """A promise was broken. `promise` is its number in DESIGN §4, or a word for what the simulator itself found."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(promise, what)
        self.promise = promise
        self.what = what

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}"


@dataclass(slots=True)
class World:
    """One seed's world. Whatever is in `watched` is judged by the invariants that speak of its type."""

    loop: SimLoop
    choices: Choices
    faults: Faults
    watched: list[object] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    verdict: Violation | None = None

    def host(self, name: str, boot: Callable[[Host], Coroutine[Any, Any, None]]) -> Host:
        """A host that is up from now on, and that the nemesis may crash."""
        host = self.loop.host(name, boot)
        self.hosts.append(host)
        host.start()
        return host

    def watch(self, *things: object) -> None:
        """Have these judged from now on."""
        self.watched.extend(things)

    def require(self, promise: str, truth: bool, what: str) -> None:
        """Ends the run unless it is true: for what a scenario checks itself.

        Raises Violation; code that swallows it does not save the run.
        """
        if not truth:
            self.verdict = self.verdict or Violation(promise, what)
            self.loop.changed()
            raise self.verdict

    async def patiently(self, condition: Callable[[], bool], what: str, within: float, every: float = 0.05) -> None:
        """Wait until the condition holds: for the liveness phase.

        Raises Violation(P1) after `within` virtual seconds.
        """
        end = self.loop.now + within
        while not condition():
            self.require("P1", self.loop.now < end, f"{what} did not come to be within {within:g} s")
            await asyncio.sleep(every)


class Scenario(Protocol):
    """What is simulated. It returns when everything has come to its end, and raises Violation if it does not."""

    def __call__(self, world: World, /) -> Coroutine[Any, Any, None]: ...

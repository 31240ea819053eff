"""What a step of an operation may ask for: its own slot, and a look at the rest. Steps know no provider and no database.

A step's `do` brings its slot to what it wants; its `undo` brings the slot back to what it was when the job was planned. Both may be
run again at any moment, by another worker, after a crash in the middle: they ask for a state, never for a change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from spectrum.core.errors import SpectrumError
from spectrum.core.jobs.model import Instance, Job, Step
from spectrum.core.jobs.table import Wants
from spectrum.core.observation import Observed

Output = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from an endpoint of the instance. `status` 0: nothing answered; `problem` says why."""

    status: int
    problem: str = ""


class Context(Protocol):
    """One attempt at one step. Every call may raise `Fault`; a call that is given up may still happen."""

    @property
    def job(self) -> Job: ...

    @property
    def instance(self) -> Instance: ...

    @property
    def step(self) -> Step: ...

    async def stock(self) -> None:
        """Make ready on the target what the release needs: shared, content-addressed, never undone."""

    async def ensure(self) -> Observed:
        """Make this step's slot hold what the release says, under the step's effect key."""

    async def remove(self) -> Observed:
        """Make this step's slot hold nothing."""

    async def restore(self) -> Observed:
        """Make this step's slot what it was when the job was planned. Always calls the provider (DESIGN §3.10)."""

    async def look(self, slot: str) -> Observed:
        """What is in a slot now."""

    async def survey(self) -> Mapping[str, Observed]:
        """What is in every slot of the instance now."""

    async def ask(self, endpoint: str) -> Answer:
        """Ask a public endpoint of the instance at its health path."""

    async def describe(self) -> Output:
        """Endpoints, outputs and services of the instance, for its record."""

    async def pause(self, seconds: float) -> None:
        """Wait. Raises `GivenUp` once the job is to be cancelled."""


Act = Callable[[Context], Awaitable[Output]]


@dataclass(frozen=True, slots=True)
class Action:
    """A row of an operation's step table: do and undo side by side.

    `adopt` completes a step whose effect was found in place with our key, where being there is not yet being done.
    """

    do: Act
    undo: Act | None = None
    adopt: Act | None = None
    wants: Wants = Wants.NOTHING


class GivenUp(SpectrumError):
    """Raised by `Context.pause`: the job is to be cancelled, waiting on makes no sense."""

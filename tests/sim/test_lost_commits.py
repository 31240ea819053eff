"""A control plane that has lost its last commits is told again what it was told, and nothing is done twice for it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from sim.run import run
from sim.system import TARGET
from sim.twins.provider import Act
from sim.twins.store import MemoryDatabase
from sim.twins.wire import Wire
from sim.world import World
from spectrum.core.breakers import Breaker, BreakerState
from spectrum.core.jobs.table import JobState
from spectrum.operations import CATALOG
from spectrum.providers.protocol import Strength
from spectrum.worker import run as running
from tests.sagas.script import Script
from tests.sagas.stage import FIFO, Stage

ROWS = ("instances", "jobs", "effects", "attempts", "events", "audit")


class Forgetful(Wire):
    """Once report `last` is answered, the database is as it was before report `first`: a standby that knew no better took over.

    Where it `breaks`, the target is left alone from that moment on, for half a minute.
    """

    def __init__(self, script: Script, database: MemoryDatabase, first: int, last: int, breaks: bool) -> None:
        super().__init__(script)
        self._database = database
        self._first, self._last, self._breaks = first, last, breaks
        self._before: dict[str, Any] | None = None
        self.gaps = 0

    async def send(self, address: str, request: Any) -> Any:
        number = request[3].number if request[0] == "report" else 0
        if number == self._first and self._before is None:
            self._before = {name: copy.deepcopy(getattr(self._database, name)) for name in ROWS}
        answer = await super().send(address, request)
        if number == self._last and self._before:
            vars(self._database).update(self._before, forgetful=True, era="of the standby")
            self._before = {}
            if self._breaks:
                now = self._database.now()
                opened = Breaker(BreakerState.OPEN, opened_at=now, retry_at=now + timedelta(seconds=30))
                self._database.breakers = dict.fromkeys([TARGET], opened)
        self.gaps += getattr(answer, "slug", "") == "report-gap"
        return answer


class Losing(Stage):
    """A stage whose database loses the reports from `first` to `last` of a job."""

    first, last, breaks = 0, 0, False

    def wire(self) -> Forgetful:
        self.forgetful = Forgetful(self.script, self.system.database, self.first, self.last, self.breaks)
        return self.forgetful


@dataclass(frozen=True)
class Ended:
    """How a create ended: with what state, after how many gaps, under how many fences, and what it had made."""

    state: JobState
    gaps: int
    fences: int
    made: list[str]


def create(first: int, last: int, breaks: bool = False) -> Ended:
    """A create of which the reports from `first` to `last` are forgotten."""
    found: list[Ended] = []

    async def scenario(world: World) -> None:
        world.faults = script = Script(world.choices, None)
        Losing.first, Losing.last, Losing.breaks = first, last, breaks
        stage = Losing(world, script, CATALOG, Strength.ATOMIC)
        job = await stage.ended((await stage.submit("create")).id)
        ledger = stage.system.target.ledger
        made = [entry.call.slot for entry in ledger if entry.act is Act.MADE]
        fences = {entry.call.fence for entry in ledger}
        found.append(Ended(job.state, stage.forgetful.gaps, len(fences), made))

    outcome = run(scenario, FIFO)
    assert outcome.violation is None, outcome.violation
    return found[0]


@pytest.mark.parametrize(("first", "last"), [(2, 2), (3, 5), (1, 4)])
def test_the_holder_tells_again_what_was_forgotten_and_keeps_its_job(first: int, last: int) -> None:
    ended = create(first, last)

    assert (ended.state, ended.gaps, ended.fences) == (JobState.SUCCEEDED, 1, 1)
    assert len(ended.made) == len(set(ended.made))


def test_a_holder_that_has_not_kept_what_was_forgotten_lets_go_and_the_job_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "KEPT_REPORTS", 2)

    ended = create(2, 5)

    assert (ended.state, ended.gaps, ended.fences) == (JobState.SUCCEEDED, 1, 2)


def test_a_holder_whose_forgotten_intent_is_refused_this_time_lets_go_of_what_may_be_under_way() -> None:
    ended = create(1, 4, breaks=True)

    assert (ended.state, ended.gaps, ended.fences) == (JobState.SUCCEEDED, 1, 2)

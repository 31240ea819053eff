"""A holder that wants to know what became of an attempt, and is not answered, looks again soon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sim.choices import Choices
from sim.run import run
from sim.twins.faults import Ending
from sim.twins.store import MemoryDatabase
from sim.world import World
from spectrum.core.jobs.commands import Report
from spectrum.core.jobs.table import JobState, Lifecycle
from spectrum.operations import CATALOG
from spectrum.providers.protocol import Strength
from spectrum.worker.run import SURVEY_SECONDS
from tests.sagas.script import Kind, Script, Strike
from tests.sagas.stage import FIFO, Stage, scene_in


class Unanswered(Script):
    """The worker crashes once its target has removed something, and the first look of the next one is never answered."""

    def __init__(self, choices: Choices) -> None:
        super().__init__(choices, Strike(Kind.CRASH, "after provider.remove", 0))
        self.hung = False

    def ending(self, port: str) -> Ending:
        ending = super().ending(port)
        if self.struck and port == "provider.observe" and not self.hung:
            self.hung = True
            return Ending.HANG
        return ending


@dataclass(frozen=True)
class Ended:
    """With what state a purge ended, after how long, and the time of its longest step; whether a look went unanswered, and what was
    told of that.
    """

    state: JobState
    seconds: float
    longest_step: float
    hung: bool
    told: frozenset[str]


def _failures(database: MemoryDatabase) -> Iterator[str]:
    for told in database.told:
        if isinstance(told.command, Report):
            yield from (outcome.failure.message for outcome in told.command.outcomes if outcome.failure)


def purge(strength: Strength) -> Ended:
    found: list[Ended] = []
    scene = scene_in(Lifecycle.DELETED, strength)

    async def scenario(world: World) -> None:
        world.faults = script = Unanswered(world.choices)
        stage = Stage(world, script, CATALOG, strength, scene)
        script.armed = True
        begun = world.loop.now
        job = await stage.ended((await stage.submit("purge")).id)
        longest = max(step.step_seconds for step in job.steps)
        told = frozenset(_failures(stage.system.database))
        found.append(Ended(job.state, world.loop.now - begun, longest, script.hung, told))

    outcome = run(scenario, FIFO)
    assert outcome.violation is None, outcome.violation
    return found[0]


@pytest.mark.parametrize("strength", Strength)
def test_one_look_without_an_answer_does_not_take_all_the_time_of_its_step(strength: Strength) -> None:
    ended = purge(strength)

    assert ended.hung
    assert ended.state is JobState.SUCCEEDED
    assert ended.seconds < 4 * SURVEY_SECONDS < ended.longest_step


@pytest.mark.parametrize("strength", Strength)
def test_what_is_told_of_a_look_without_an_answer_names_the_time_that_it_had(strength: Strength) -> None:
    assert purge(strength).told == {f"No look was answered within {SURVEY_SECONDS:g} s."}

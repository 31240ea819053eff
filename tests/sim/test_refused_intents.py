"""A holder whose next step is refused for a while asks again now and then, and does nothing between."""

from __future__ import annotations

import asyncio

from sim.run import run
from sim.world import World
from spectrum.core.jobs.commands import Report
from spectrum.core.jobs.table import JobState, Lifecycle, StepState
from spectrum.operations import CATALOG
from spectrum.providers.protocol import Strength
from tests.sagas.script import Kind, Script, Strike
from tests.sagas.stage import FIFO, Stage, scene_in

BRAKED = 60.0  # seconds


def braked_before_a_retry() -> tuple[int, int]:
    """Steps of the whole world, and reports, while a brake stands in the way of a removal that is to be tried again."""
    found: list[tuple[int, int]] = []
    scene = scene_in(Lifecycle.RUNNING, Strength.ATOMIC)

    async def scenario(world: World) -> None:
        world.faults = script = Script(world.choices, Strike(Kind.REFUSED, "provider.remove", 0))
        stage = Stage(world, script, CATALOG, Strength.ATOMIC, scene)
        script.armed = True
        job = await stage.submit("delete")

        def retrying() -> bool:
            return any(step.state is StepState.RETRYING for step in stage.job(job.id).steps)

        await world.patiently(retrying, "a step that is to be tried again", 60.0, 0.1)
        database = stage.system.database
        database.braked = "everything"
        steps, told = world.loop.steps, len(database.told)
        await asyncio.sleep(BRAKED)
        reports = sum(isinstance(each.command, Report) for each in database.told[told:])
        found.append((world.loop.steps - steps, reports))
        database.braked = ""
        assert (await stage.ended(job.id)).state is JobState.SUCCEEDED

    outcome = run(scenario, FIFO)
    assert outcome.violation is None, outcome.violation
    return found[0]


def test_a_holder_whose_retry_is_due_but_refused_does_not_spin() -> None:
    steps, reports = braked_before_a_retry()

    assert BRAKED / 3 < reports <= BRAKED + 1
    assert steps < 100 * BRAKED

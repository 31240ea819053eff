"""More jobs than the workers have room for: as soon as one has ended, the next is claimed."""

from __future__ import annotations

from sim.run import run
from sim.system import ORGANIZATION, POOL, TARGET
from sim.world import World
from spectrum.core import ids
from spectrum.core.ids import InstanceId, JobId, PlacementId
from spectrum.core.jobs.commands import Submit, Submitted
from spectrum.core.jobs.model import Instance
from spectrum.core.jobs.table import JobState
from spectrum.operations import CATALOG
from spectrum.providers.protocol import Strength
from tests.sagas import stage
from tests.sagas.script import Script

ROOM = 8  # of both workers together
ROUNDS = 6


def seconds_for(jobs: int) -> float:
    """Virtual seconds until so many creates that were asked for at once have ended."""
    found: list[float] = []

    async def scenario(world: World) -> None:
        world.faults = script = Script(world.choices, None)
        here = stage.Stage(world, script, CATALOG, Strength.ATOMIC)
        now = here.system.database.now()
        for number in range(jobs):
            entropy = number.to_bytes(10, "big")
            instance_id, job_id = InstanceId(ids.make("ins", now, entropy)), JobId(ids.make("job", now, entropy))
            place = PlacementId(ids.make("plc", now, entropy))
            new = Instance(instance_id, ORGANIZATION, f"i{number}", TARGET, POOL, place, requested=stage.SPEC)
            submit = Submit(
                id=job_id,
                instance_id=instance_id,
                organization_id=ORGANIZATION,
                actor="vendor:x",
                job_id=job_id,
                operation="create",
                operation_version=1,
                spec=stage.SPEC,
                new=new,
            )
            assert isinstance(await here._ask(submit), Submitted)
        began = world.loop.now
        for job in list(here.system.database.jobs.values()):
            assert (await here.ended(job.id)).state is JobState.SUCCEEDED
        found.append(world.loop.now - began)

    outcome = run(scenario, stage.FIFO)
    assert outcome.violation is None, outcome.violation
    return found[0]


def test_a_backlog_is_worked_off_without_pauses() -> None:
    once = seconds_for(ROOM)
    assert seconds_for(ROUNDS * ROOM) < 2 * ROUNDS * once

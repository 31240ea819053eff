"""A target that can't serve an instance is nothing to the others on it (P19), and while it is away no job fails for it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from sim.run import run
from sim.system import ORGANIZATION, POOL, TARGET
from sim.twins.provider import MemoryProvider, MemoryTarget
from sim.world import World
from spectrum.core import ids
from spectrum.core.breakers import BreakerState
from spectrum.core.errors import ErrorClass, Fault
from spectrum.core.ids import InstanceId, JobId, PlacementId
from spectrum.core.jobs.commands import Submit
from spectrum.core.jobs.model import Instance
from spectrum.core.jobs.table import JobState, Lifecycle
from spectrum.operations import CATALOG
from spectrum.providers.protocol import Observed, Strength
from tests.sagas.script import Script
from tests.sagas.stage import FIFO, INSTANCE, MEMORY, SPEC, Scene, Stage, scene_in

NEIGHBOUR = InstanceId("ins_019b76da-a800-7000-8000-000000000002")
SOON = 600.0  # seconds: many times what a probe may be put off
AWAY = 3600.0  # seconds


class Target(MemoryTarget):
    """A target of which one instance can't be seen, for a reason; `trouble` is given before each try."""

    trouble: ClassVar[Exception | None] = None

    def connect(self) -> MemoryProvider:
        return _Connection(self)


class _Connection(MemoryProvider):
    async def survey(self, instance: InstanceId, fence: int) -> tuple[Observed, ...]:
        if instance == INSTANCE and Target.trouble is not None:
            raise Target.trouble
        return await super().survey(instance, fence)


@pytest.fixture(autouse=True)
def _no_trouble() -> Iterator[None]:
    yield
    Target.trouble = None


def stage_on(world: World, scene: Scene) -> Stage:
    world.faults = script = Script(world.choices, None)
    return Stage(world, script, CATALOG, Strength.ATOMIC, scene, replace(MEMORY, place=Target))


def create_of_a_neighbour(stage: Stage) -> Submit:
    job_id = JobId(ids.make("job", stage.system.database.now(), bytes(10)))
    place = PlacementId("plc_019b76da-a800-7000-8000-000000000002")
    new = Instance(NEIGHBOUR, ORGANIZATION, "neighbour", TARGET, POOL, place, requested=SPEC)
    return Submit(
        id="create/neighbour",
        instance_id=NEIGHBOUR,
        organization_id=ORGANIZATION,
        actor="vendor:saga",
        job_id=job_id,
        operation="create",
        operation_version=1,
        spec=SPEC,
        new=new,
    )


def test_a_job_that_its_target_never_answers_is_not_every_probe_of_its_breaker() -> None:
    scene = scene_in(Lifecycle.RUNNING, Strength.ATOMIC)

    async def scenario(world: World) -> None:
        Target.trouble = Fault(ErrorClass.DEPENDENCY, "no-supervisor", "its record is damaged")
        stage = stage_on(world, scene)
        database = stage.system.database
        await stage.submit("restart")

        def opened() -> bool:
            return TARGET in database.breakers and database.breakers[TARGET].state is BreakerState.OPEN

        await world.patiently(opened, "an open breaker", SOON)
        submit = create_of_a_neighbour(stage)
        await stage._ask(submit)
        await world.patiently(lambda: database.jobs[submit.job_id].state.terminal, "the neighbour's end", SOON)
        assert database.jobs[submit.job_id].state is JobState.SUCCEEDED

    outcome = run(scenario, FIFO)
    assert outcome.violation is None, outcome.violation


def test_no_job_fails_because_the_system_of_its_target_gives_errors_for_a_while() -> None:
    scene = scene_in(Lifecycle.RUNNING, Strength.ATOMIC)

    async def scenario(world: World) -> None:
        Target.trouble = OSError(errno.EIO, "Input/output error")
        stage = stage_on(world, scene)
        job = await stage.submit("restart")
        await asyncio.sleep(AWAY)
        assert (stage.job(job.id).state, stage.job(job.id).rescues) == (JobState.READY, 0)

        Target.trouble = None
        assert (await stage.ended(job.id)).state is JobState.SUCCEEDED

    outcome = run(scenario, FIFO)
    assert outcome.violation is None, outcome.violation

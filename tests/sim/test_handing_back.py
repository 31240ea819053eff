"""A worker that can't reach the target of a job hands it back, and not to hold it is no loss."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from sim.hosts import Host
from sim.run import run
from sim.system import ORGANIZATION, POOL, MemorySpool, SimLink, SimRenderer
from sim.world import World
from spectrum.control.dispatch import Caller
from spectrum.core.ids import WorkerId
from spectrum.core.jobs.table import JobState, Lifecycle
from spectrum.operations import CATALOG
from spectrum.ports import Tasks
from spectrum.providers.protocol import Strength
from spectrum.transports.protocol import Handback, Incarnation, LinkDown
from spectrum.worker.loop import Worker
from tests.sagas.script import Script
from tests.sagas.stage import FIFO, Stage, scene_in

RUNS = {name: frozenset({version}) for name, version in CATALOG}


class Deaf(SimLink):
    """A link over which a job is handed back at the third try."""

    tries = 0

    async def release(self, incarnation: Incarnation, handback: Handback) -> None:
        self.tries += 1
        if self.tries <= 2:
            raise LinkDown("nobody heard it")
        await super().release(incarnation, handback)


def test_a_job_on_a_target_that_its_worker_was_not_given_is_handed_back_until_that_is_heard() -> None:
    scene = scene_in(Lifecycle.RUNNING, Strength.ATOMIC)

    async def scenario(world: World) -> None:
        world.faults = script = Script(world.choices, None)
        stage = Stage(world, script, CATALOG, Strength.ATOMIC, scene)
        for host in world.hosts:
            if host.name.startswith("worker"):
                host.crash()

        def boot(host: Host) -> Coroutine[Any, Any, None]:
            caller = Caller(WorkerId("wrk_00000000-0000-7000-8000-00000000000a"), ORGANIZATION, POOL, RUNS)
            link = Deaf(world, stage.system.wire, caller, stage.system.addresses)
            renderer, spool = SimRenderer(), MemorySpool()
            return Worker(link, {}, CATALOG, renderer, host.clock, host.entropy, Tasks(), spool).run()

        world.host("elsewhere", boot)
        job = await stage.submit("delete")
        await world.patiently(lambda: stage.job(job.id).owner is not None, "its holder", 60.0, 0.001)
        await world.patiently(lambda: stage.job(job.id).owner is None, "its return", 60.0, 0.001)

        left = stage.job(job.id)
        assert (left.state, left.rescues) == (JobState.READY, 0)
        assert left.not_before is not None

    outcome = run(scenario, FIFO)
    assert outcome.violation is None, outcome.violation

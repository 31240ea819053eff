"""A worker that is to end claims nothing new, and lets what is under way come to its end before it hands its jobs back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from sim.hosts import Host
from sim.run import run
from sim.system import ORGANIZATION, POOL, MemorySpool, SimRenderer
from sim.twins.provider import MemoryProvider
from sim.world import World
from spectrum.control.dispatch import Caller
from spectrum.core.ids import WorkerId
from spectrum.core.jobs.model import Job
from spectrum.core.jobs.table import JobState, Lifecycle, StepState
from spectrum.operations import CATALOG
from spectrum.ports import Tasks
from spectrum.providers.protocol import Call, Observed, Strength
from spectrum.worker.loop import POLL_SECONDS, Worker
from tests.sagas.script import Script
from tests.sagas.stage import FIFO, Stage, scene_in

LONG = 2 * POLL_SECONDS  # seconds of a removal
RUNS = {name: frozenset({version}) for name, version in CATALOG}


class Slow(MemoryProvider):
    """A connection over which removals take long."""

    async def remove(self, call: Call) -> Observed:
        await asyncio.sleep(LONG)
        return await super().remove(call)


@dataclass
class Drained:
    """A worker beside those of the stage, that is told to end."""

    stage: Stage
    told: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def boot(self, host: Host) -> Coroutine[Any, Any, None]:
        caller = Caller(WorkerId("wrk_00000000-0000-7000-8000-00000000000a"), ORGANIZATION, POOL, RUNS)
        providers = {"memory://": Slow(self.stage.system.target)}
        link = self.stage.system._link(caller, host)
        tasks = Tasks()
        worker = Worker(
            link, providers, CATALOG, SimRenderer(), host.clock, host.entropy, tasks, MemorySpool(), capacity=4
        )
        return self._work(worker, tasks)

    async def _work(self, worker: Worker, tasks: Tasks) -> None:
        tasks.spawn(worker.run(), "worker")
        await self.told.wait()
        await worker.drain()
        self.ended.set()
        await tasks.close()


def drained_once(moment: Callable[[Job], bool]) -> tuple[Job, list[str]]:
    """A job whose only worker was told to end at a moment, as the worker left it; and what was written down of it."""
    found: list[tuple[Job, list[str]]] = []
    scene = scene_in(Lifecycle.RUNNING, Strength.ATOMIC)

    async def scenario(world: World) -> None:
        world.faults = script = Script(world.choices, None)
        stage = Stage(world, script, CATALOG, Strength.ATOMIC, scene)
        for host in world.hosts:
            if host.name.startswith("worker"):
                host.crash()
        drained = Drained(stage)
        world.host("drained", drained.boot)
        job = await stage.submit("delete")
        await world.patiently(lambda: moment(stage.job(job.id)), "the moment", 60.0, 0.001)
        drained.told.set()
        await drained.ended.wait()
        found.append((stage.job(job.id), [entry.action for entry in stage.system.database.audit]))

    outcome = run(scenario, FIFO)
    assert outcome.violation is None, outcome.violation
    return found[0]


def begun(job: Job) -> int:
    """How many attempts of the job were begun."""
    return sum(step.attempt for step in job.steps)


def test_a_worker_that_is_to_end_waits_for_its_call_and_hands_its_job_back() -> None:
    job, audited = drained_once(lambda job: any(step.outstanding for step in job.steps))

    assert (job.state, job.owner, begun(job)) == (JobState.READY, None, 1)
    assert [step.state for step in job.steps if step.attempt] == [StepState.DONE]
    assert "job.rescued" not in audited


def test_a_worker_that_is_to_end_hands_back_what_it_is_just_being_given() -> None:
    job, audited = drained_once(lambda job: job.owner is not None)

    assert (job.state, job.owner, begun(job)) == (JobState.READY, None, 0)
    assert "job.rescued" not in audited

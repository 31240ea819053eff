"""Reports that an earlier start of a worker left behind are told when it starts again, each for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from sim.hosts import Host
from sim.run import run
from sim.system import ORGANIZATION, POOL, MemorySpool, SimLink, SimRenderer
from sim.world import World
from spectrum.control.dispatch import Caller
from spectrum.core.ids import WorkerId
from spectrum.core.jobs.commands import Holding
from spectrum.core.jobs.table import Lifecycle
from spectrum.operations import CATALOG
from spectrum.ports import Tasks
from spectrum.providers.protocol import Strength
from spectrum.transports.protocol import Incarnation, LinkDown, News
from spectrum.worker.loop import Worker
from tests.sagas.script import Script
from tests.sagas.stage import FIFO, INSTANCE, Stage, scene_in


class Choking(SimLink):
    """A link whose control plane breaks on every first report of a job."""

    async def report(self, incarnation: Incarnation, news: News) -> Holding:
        if news.number == 1:
            raise LinkDown("reports: something broke on our side")
        return await super().report(incarnation, news)


def test_a_spooled_report_that_is_never_answered_keeps_no_other_in_the_spool() -> None:
    scene = scene_in(Lifecycle.RUNNING, Strength.ATOMIC)

    async def scenario(world: World) -> None:
        world.faults = script = Script(world.choices, None)
        stage = Stage(world, script, CATALOG, Strength.ATOMIC, scene)
        spool = MemorySpool()
        for number in (1, 2):
            spool.put(News(ORGANIZATION, INSTANCE, next(iter(stage.system.database.jobs)), 1, number))

        def boot(host: Host) -> Coroutine[Any, Any, None]:
            runs = {name: frozenset({version}) for name, version in CATALOG}
            caller = Caller(WorkerId("wrk_00000000-0000-7000-8000-00000000000a"), ORGANIZATION, POOL, runs)
            link = Choking(world, stage.system.wire, caller, stage.system.addresses)
            return Worker(link, {}, CATALOG, SimRenderer(), host.clock, host.entropy, Tasks(), spool).run()

        world.host("again", boot)
        await asyncio.sleep(60.0)
        assert [news.number for news in spool.all()] == [1]

    outcome = run(scenario, FIFO)
    assert outcome.violation is None, outcome.violation

"""A command whose instance another copy holds gives up after a time, however few flushes that is."""

from __future__ import annotations

import pytest

from sim.hosts import Host
from sim.system import ORGANIZATION
from sim.twins.store import MemoryDatabase, MemoryStore
from sim.world import World
from spectrum.control.engine import HELD_SECONDS, HELD_SECONDS_TOGETHER, Engine, Held
from spectrum.core.jobs.commands import Tick
from spectrum.operations import CATALOG
from spectrum.ports import Tasks
from tests.sim.simulated import INSTANCE, simulate

SLOWEST = 5.0  # seconds of one flush


async def _idle(host: Host) -> None:
    """It is only somebody's clock."""


@pytest.mark.parametrize(("together", "seconds"), [(1, HELD_SECONDS), (3, HELD_SECONDS_TOGETHER)])
def test_a_command_whose_instance_is_held_waits_for_a_time_and_not_for_a_count_of_flushes(
    together: int, seconds: float
) -> None:
    async def body(world: World) -> None:
        database = MemoryDatabase()
        database.held.add(INSTANCE)
        store = MemoryStore(database, world.faults)
        host = world.host("plane", _idle)
        engine = Engine(store, CATALOG, host.clock, Tasks())
        ticks = [
            Tick(id=f"t{n}", instance_id=INSTANCE, organization_id=ORGANIZATION, actor="x") for n in range(together)
        ]
        began = world.loop.now
        answers = await engine.execute_all(ticks)
        assert {type(answer) for answer in answers} == {Held}
        # Besides, the flush after which it begins to count, and the one that it is in when it is over.
        assert seconds <= world.loop.now - began < seconds + 3 * SLOWEST

    outcome = simulate(body, rates={"store.transact slow": 1.0})
    assert outcome.violation is None, outcome.violation

"""What ring 2 is there to find, planted: a lock not taken, a guard gone, locks in the wrong order, a lost commit believed."""

from __future__ import annotations

from typing import Any

import pytest

from sim.interleave.catalogue import CATALOGUE, Transaction
from sim.interleave.copies import Copy
from sim.interleave.ring import Pair, Ring
from sim.interleave.scenes import Scene
from spectrum.control import changes, targets, workers
from spectrum.core.jobs.store import Settlement
from spectrum.db import store
from spectrum.db.pools import SET_SCOPE, Role
from spectrum.db.sql import query

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quiet")]

SEEDS = range(60)


async def found(ring: Ring, pair: Pair, scene: str) -> list[str]:
    """The first anomaly that a seed meets; none where all seeds are blind."""
    for seed in SEEDS:
        outcome = await ring.interleave(seed, pair, scene)
        if outcome.anomalies:
            return outcome.anomalies
    return []


PLANTED = [
    (workers, "_JOIN_TOKEN_HOLD", "FOR UPDATE OF j", ("enrol", "enrol"), "empty"),
    (targets, "_TARGET_HOLD", "FOR UPDATE OF t", ("remove target", "remove target"), "idle"),
    (store, "_INSTANCES_LOCK", "FOR NO KEY UPDATE SKIP LOCKED", ("restart", "stop"), "idle"),
    (store, "_INSTANCES_LOCK", "FOR NO KEY UPDATE SKIP LOCKED", ("claim", "claim by another"), "ready"),
    (changes, "_BEGIN", "pg_advisory_xact_lock(hashtextextended($1, 0))", ("create token under one key",) * 2, "empty"),
]


@pytest.mark.parametrize(("module", "name", "lock", "pair", "scene"), PLANTED)
async def test_a_lock_that_is_not_taken_is_missed(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, lock: str, pair: Pair, scene: str
) -> None:
    without = getattr(module, name).replace(lock, "$1::text" if lock.startswith("pg_") else "")
    assert without != getattr(module, name)
    monkeypatch.setattr(module, name, without)
    assert await found(ring, pair, scene)


async def test_a_lost_commit_that_is_believed_to_be_done_is_found_out(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trusting(self: object, transaction: str) -> Settlement:
        return Settlement.COMMITTED

    monkeypatch.setattr(store.PostgresStore, "settle", trusting)
    assert await found(ring, ("create", "publish"), "idle")


async def test_a_read_that_is_written_back_unguarded_is_no_serial_order(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def count(copy: Copy, scene: Scene) -> Any:
        async with copy.transaction(Role.ENGINE) as connection:
            await connection.execute(SET_SCOPE, [scene.organization])
            streak = await connection.fetchval("SELECT health_streak FROM instances WHERE id = $1", scene.instance)
            await connection.execute(
                "UPDATE instances SET health_streak = $2 WHERE id = $1", scene.instance, streak + 1
            )

    monkeypatch.setitem(CATALOGUE, "count", Transaction("count", ("idle",), count))
    assert any("serial order" in each for each in await found(ring, ("count", "count"), "idle"))


async def _revoke_backwards(copy: Copy, scene: Scene) -> Any:
    """As a worker is revoked, but its leases first."""
    assert scene.caller
    worker_id = scene.caller.worker_id
    async with copy.transaction(Role.ENGINE) as connection:
        await connection.execute(SET_SCOPE, [scene.organization])
        await connection.execute(query("worker_revoke_leases"), worker_id)
        await connection.fetchval(query("worker_revoke"), worker_id, copy.clock.now(), scene.organization)


async def test_locks_in_the_opposite_order_are_a_cycle_though_nobody_met(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "backwards", Transaction("backwards", ("held",), _revoke_backwards, whole=False))
    await ring.alone("start", "held")
    assert not ring.locks.cycles()
    await ring.alone("backwards", "held")
    assert any("rows of leases" in cycle and "rows of workers" in cycle for cycle in ring.locks.cycles())


async def test_a_deadlock_has_a_victim_and_both_are_answered_in_the_end(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "backwards", Transaction("backwards", ("held",), _revoke_backwards, whole=False))
    deadlocks = 0
    for seed in SEEDS:
        outcome = await ring.interleave(seed, ("backwards", "start"), "held")
        deadlocks += outcome.tally.deadlocks
        assert not any(" ended with " in each and "(right)" in each for each in outcome.anomalies)
    assert deadlocks

"""Two copies of the control plane on one PostgreSQL: what one commits the other hears of, and goes on with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from spectrum.control.commands import Mutation
from spectrum.control.secrets import load_or_create
from spectrum.core.access import Principal
from spectrum.core.errors import Problem
from spectrum.core.ids import JobId, PoolId
from spectrum.core.jobs.commands import Cancel, Submit, Submitted
from spectrum.db.pools import Role, open_pool
from spectrum.ports import SystemEntropy
from spectrum.server import ControlPlane
from spectrum.settings import ServerSettings
from tests.db.ground import Ground, ground
from tests.db.rows import insert_row, rows_of
from tests.postgres import Database
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio

LONG = 3600.0  # seconds: no test waits for the end of it
NOTHING = frozenset[str]()


@dataclass
class Here:
    """An organization with a target and a worker, and two copies that listen to each other."""

    ground: Ground
    a: ControlPlane
    b: ControlPlane


@pytest.fixture
async def here(database: Database, tmp_path: Path) -> AsyncIterator[Here]:
    keys = load_or_create(tmp_path / "master.key", SystemEntropy())
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(ground(database))
        planes = []
        for name in ("a", "b"):
            pools = {}
            for role in (Role.API, Role.ENGINE, Role.SYSTEM):
                pools[role] = await open_pool(database.urls[role], role, f"test copy {name}", size=4)
                stack.push_async_callback(pools[role].close)
            plane = ControlPlane(ServerSettings(public_url="http://127.0.0.1:8420"), keys, pools)
            stack.push_async_callback(plane.close)
            plane.begin(NOTHING)
            planes.append(plane)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(plane.notices.listening.wait() for plane in planes))
        yield Here(made, *planes)


def cancelling(asked: Submit) -> Cancel:
    """Ends the job, which nobody has touched."""
    return Cancel(
        id=f"cancel/{asked.job_id}",
        instance_id=asked.instance_id,
        organization_id=asked.organization_id,
        actor=asked.actor,
        job_id=asked.job_id,
    )


def waiting(plane: ControlPlane, topic: str) -> asyncio.Task[bool]:
    return plane.tasks.spawn(plane.wakeups.wait(topic, LONG), "waiting")


async def test_a_wait_on_one_copy_is_woken_by_a_commit_on_another(here: Here) -> None:
    asked = here.ground.create()
    for_work = waiting(here.b, here.ground.caller.pool_id)
    for_its_end = waiting(here.b, asked.job_id)
    for_others = waiting(here.b, JobId("job_of_somebody_else"))
    await asyncio.sleep(0)

    await here.a.engine.execute(asked)
    await here.a.engine.execute(cancelling(asked))

    async with asyncio.timeout(PATIENCE):
        assert await for_work
        assert await for_its_end
    assert not for_others.done()


async def test_many_ends_at_once_wake_everybody_who_waits_for_one_of_them(here: Here) -> None:
    """More topics than fit into one notice."""
    asked = [here.ground.create(f"i{n}") for n in range(250)]
    waits = [waiting(here.b, one.job_id) for one in asked]
    await asyncio.gather(*(here.a.engine.execute(one) for one in asked))

    await asyncio.gather(*(here.a.engine.execute(cancelling(one)) for one in asked))

    async with asyncio.timeout(PATIENCE):
        assert all(await asyncio.gather(*waits))


async def test_a_copy_that_lost_its_ear_has_everybody_look_once_it_hears_again(here: Here) -> None:
    wait = waiting(here.b, PoolId("pol_told_while_nobody_listened"))
    await asyncio.sleep(0)
    ended = await here.ground.admin.fetchval(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'test copy b' AND usename = $1",
        Role.SYSTEM,
    )
    assert ended

    async with asyncio.timeout(PATIENCE):
        assert await wait

    after = waiting(here.b, here.ground.caller.pool_id)
    await asyncio.sleep(0)
    await here.a.engine.execute(here.ground.create())
    async with asyncio.timeout(PATIENCE):
        assert await after


async def test_a_copy_does_not_listen_to_itself(here: Here) -> None:
    heard: list[str] = []
    here.a.notices.heard = heard.append
    at_b = waiting(here.b, here.ground.caller.pool_id)
    await asyncio.sleep(0)

    await here.a.engine.execute(here.ground.create())
    async with asyncio.timeout(PATIENCE):
        await at_b
    here.b.notices.tell(["pol_from_b"])  # what comes after it has been heard, it has been heard itself
    await until(lambda: _soon(bool(heard)))

    assert heard == ["pol_from_b"]


async def _soon(truth: bool) -> bool:
    await asyncio.sleep(0)
    return truth


async def test_a_commit_of_one_copy_gets_its_position_from_the_other(here: Here) -> None:
    here.b.begin(frozenset({"sequencer"}))

    await here.a.engine.execute(here.ground.create())

    admin = here.ground.admin
    await until(lambda: admin.fetchval("SELECT count(*) > 0 AND count(*) = count(position) FROM events"))


# ---- revoking a worker


def revoke(here: Here, key: str = "k1") -> Mutation:
    principal = Principal("person:vendor", here.ground.organization, frozenset({"admin"}))
    return Mutation(principal, "POST", "/v1/workers/w:revoke", key, "digest", "req_1")


async def test_the_jobs_of_a_revoked_worker_go_on_elsewhere(here: Here) -> None:
    it, caller = here.ground, here.ground.caller
    submitted = await it.engine.execute(it.create())
    assert isinstance(submitted, Submitted)
    lease = await here.a.dispatch.start(caller, "boot-1")
    held = await here.a.dispatch.claim(caller, lease.id, 1, 1, 1, holds_others=False)
    assert [one.job.id for one in held] == [submitted.job.id]

    await here.a.workers.revoke_worker(revoke(here), caller.worker_id)
    await here.b.sweeper.sweep()

    row = await it.admin.fetchrow("SELECT state, lease_id, fence, rescues FROM jobs")
    assert (row["state"], row["lease_id"], row["rescues"]) == ("ready", None, 1)
    assert row["fence"] > held[0].job.fence
    assert await it.admin.fetchval("SELECT end_reason FROM leases") == "revoked"
    found = await here.b.store.claimable(caller.pool_id, caller.operations, 10, True)
    assert [one.job_id for one in found] == [submitted.job.id]


async def test_a_revoked_worker_neither_keeps_its_lease_nor_gets_another(here: Here) -> None:
    caller = here.ground.caller
    lease = await here.a.dispatch.start(caller, "boot-1")
    await here.a.workers.revoke_worker(revoke(here), caller.worker_id)

    with pytest.raises(Problem, match="has ended"):
        await here.b.dispatch.beat(caller, lease.id, 1, 1, 0, [])
    with pytest.raises(Problem, match="forbidden"):
        await here.b.dispatch.start(caller, "boot-2")
    assert await here.ground.admin.fetchval("SELECT count(*) FROM leases WHERE ended_at IS NULL") == 0


async def test_a_worker_that_is_revoked_after_its_job_was_asked_to_cancel_holds_nothing_up(here: Here) -> None:
    it, caller = here.ground, here.ground.caller
    submitted = await it.engine.execute(it.create())
    assert isinstance(submitted, Submitted)
    lease = await here.a.dispatch.start(caller, "boot-1")
    await here.a.dispatch.claim(caller, lease.id, 1, 1, 1, holds_others=False)
    job = submitted.job
    cancel = Cancel(
        id="c1", instance_id=job.instance_id, organization_id=it.organization, actor="tester", job_id=job.id
    )
    await here.a.engine.execute(cancel)

    await here.a.workers.revoke_worker(revoke(here), caller.worker_id)
    await here.b.sweeper.sweep()

    assert await it.admin.fetchval("SELECT state FROM jobs") == "cancelled"


# ---- upkeep


async def test_upkeep_removes_what_has_had_its_time_and_nothing_else(here: Here) -> None:
    admin, organization = here.ground.admin, here.ground.organization
    now = await admin.fetchval("SELECT clock_timestamp()")
    past, future = now - timedelta(hours=1), now + timedelta(hours=1)
    row = rows_of("other")["idempotency_keys"] | {"organization_id": organization, "created_at": past}
    sealed = {"body": None, "ciphertext": b"sealed", "key_id": "k1"}
    await insert_row(admin, "idempotency_keys", row | {"key": "over", "expires_at": past})
    await insert_row(admin, "idempotency_keys", row | {"key": "kept", "expires_at": future})
    shown = {"expires_at": future, "ciphertext_expires_at": past}
    await insert_row(admin, "idempotency_keys", row | sealed | shown | {"key": "shown"})
    fresh = {"expires_at": future, "ciphertext_expires_at": future}
    await insert_row(admin, "idempotency_keys", row | sealed | fresh | {"key": "fresh"})

    await here.a.upkeep.once()
    await here.b.upkeep.once()

    left = await admin.fetch("SELECT key, ciphertext, ciphertext_expires_at FROM idempotency_keys ORDER BY key")
    assert [tuple(one) for one in left] == [
        ("fresh", b"sealed", future),
        ("kept", None, None),
        ("shown", None, past),
    ]


async def test_upkeep_makes_the_partitions_of_the_coming_weeks(here: Here) -> None:
    admin = here.ground.admin
    count = "SELECT count(*) FROM pg_class WHERE relispartition AND relkind = 'r' AND relname LIKE 'events_2%'"
    before = await admin.fetchval(count)

    await here.a.upkeep.once()

    assert await admin.fetchval(count) >= before + 3


async def test_more_keys_than_fit_into_one_page_are_removed_too(here: Here) -> None:
    admin, organization = here.ground.admin, here.ground.organization
    await admin.execute(
        "INSERT INTO idempotency_keys (organization_id, method, path, key, request_digest, status, created_at, expires_at) "
        "SELECT $1, 'POST', '/', n::text, 'd', 202, now(), now() - n * interval '1 second' FROM generate_series(1, 2500) n",
        organization,
    )

    await here.a.upkeep.once()

    assert await admin.fetchval("SELECT count(*) FROM idempotency_keys") == 0

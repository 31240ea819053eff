"""What a copy keeps of an aggregate is what PostgreSQL has of it, and is forgotten where it might not be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from spectrum.core.ids import InstanceId, ReleaseId
from spectrum.core.jobs.commands import Holding, Report
from spectrum.core.jobs.model import Lease
from spectrum.db import reading
from spectrum.db.pools import scoped
from spectrum.db.sql import query
from tests.db.ground import Ground, ground, run_to_the_end
from tests.postgres import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Ground]:
    async with ground(database) as made:
        yield made


async def assert_kept_as_it_is(here: Ground, instance_id: InstanceId) -> None:
    async with scoped(here.store.engine, [here.organization]) as connection:
        stored = (await reading.aggregates(connection, [instance_id]))[instance_id]
    kept = here.store.kept.known(here.store.kept.era, instance_id, stored.instance.version)
    assert kept is not None
    assert replace(kept, outlines={}) == stored


async def claim(here: Ground, lease: Lease, number: int) -> Holding:
    (held,) = await here.dispatch.claim(here.caller, lease.id, lease.incarnation, number, 1, holds_others=False)
    return held


async def test_after_every_commit_of_an_instances_life_it_is_kept_as_it_is_stored(here: Ground) -> None:
    create = here.create()
    lease = await here.dispatch.start(here.caller, "boot-1")

    async def tell(report: Report) -> Holding:
        held = await here.dispatch.report(report)
        await assert_kept_as_it_is(here, create.instance_id)
        return held

    submits = [create, *(here.submit(create.instance_id, each) for each in ("stop", "start", "delete"))]
    for number, submit in enumerate(submits, 1):
        await here.engine.execute(submit)
        await assert_kept_as_it_is(here, create.instance_id)
        held = await claim(here, lease, number)
        await assert_kept_as_it_is(here, create.instance_id)
        await run_to_the_end(here, held, lease, tell)


async def test_nothing_is_known_once_the_epoch_is_raised(here: Ground) -> None:
    """A database that was put back gives versions out again; that is what its epoch is raised for."""
    submit = here.create()
    await here.engine.execute(submit)
    await here.admin.execute("UPDATE jobs SET alone = true")
    await here.admin.execute("UPDATE cell SET epoch = epoch + 1")
    lease = await here.dispatch.start(here.caller, "boot-1")

    held = await claim(here, lease, 1)

    assert held.job.alone


async def test_outlines_do_not_grow_without_end(here: Ground) -> None:
    here.store.outlines.put((ReleaseId("rel_1"), "memory"), None, here.store.outlines.limit)
    await here.engine.execute(here.create())
    assert list(here.store.outlines) == [(here.release, "memory")]


async def test_the_version_that_goes_with_a_lock_is_the_locked_rows_and_not_the_snapshots(here: Ground) -> None:
    """A row that another copy changes and lets go of while the statement is under way is seen as it is then."""
    submit = here.create()
    await here.engine.execute(submit)
    late = query("instances_lock").replace("SELECT id FROM", "SELECT id, pg_advisory_xact_lock(1) FROM")
    before = await here.admin.fetchval("SELECT version FROM instances")

    async with scoped(here.store.engine, [here.organization]) as connection:
        await here.admin.execute("SELECT pg_advisory_lock(1)")
        locking = asyncio.ensure_future(connection.fetch(late, [submit.instance_id]))
        while not await here.admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass
        await here.admin.execute("UPDATE instances SET version = version + 1")
        await here.admin.execute("SELECT pg_advisory_unlock(1)")
        (locked,) = await locking

    assert locked["version"] == before + 1

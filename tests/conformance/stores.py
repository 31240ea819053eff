"""What the store suite needs from each store: the store, ground under it, and hands that do what other copies and time would do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum

import asyncpg

from sim.choices import Choices
from sim.system import ORGANIZATION, POOL, RELEASE, TARGET, outline
from sim.twins.faults import Ending, Faults
from sim.twins.store import MemoryDatabase, MemoryStore
from spectrum.core.ids import InstanceId, OrganizationId, PoolId, ReleaseId, TargetId, WorkerId
from spectrum.core.jobs.store import Keyed, Store
from spectrum.db.pools import Role
from spectrum.db.store import PostgresStore, lock_number
from tests.db.ground import Ground, ground
from tests.db.proxy import Link, proxied
from tests.db.rows import insert_row, make_id, rows_of
from tests.postgres import Database

SEED = 1
WORKER = WorkerId("wrk_00000000-0000-7000-8000-000000000001")
OTHER_ORGANIZATION = OrganizationId("org_00000000-0000-7000-8000-000000000002")
OTHER_TARGET = TargetId("tgt_00000000-0000-7000-8000-000000000002")
OTHER_RELEASE = ReleaseId("rel_00000000-0000-7000-8000-000000000002")


class Loss(StrEnum):
    """What becomes of a commit whose acknowledgement is lost."""

    ANSWER = "it was done"
    REQUEST = "it was not done"
    LATE = "it is done later, or never"


@dataclass(frozen=True)
class Tenant:
    """An organization with a place and a release for its instances."""

    organization: OrganizationId
    target: TargetId
    release: ReleaseId


@dataclass(frozen=True)
class StoreHarness:
    """One store under test, with two tenants in one pool and a worker of the first's. `copy` is that of another control plane.

    `pass_time` lets seconds go by in which the copies tick, `stand_still` such in which nobody does. `holding` has another copy
    hold an aggregate or a key meanwhile. `losing` loses the acknowledgement of the next commit.
    """

    store: Store
    copy: Store
    pool: PoolId
    worker: WorkerId
    tenant: Tenant
    other: Tenant
    pass_time: Callable[[float], Awaitable[None]]
    stand_still: Callable[[float], Awaitable[None]]
    holding: Callable[[InstanceId | Keyed], AbstractAsyncContextManager[None]]
    brake: Callable[[], Awaitable[None]]
    losing: Callable[[Loss], AbstractContextManager[None]]


# ---- PostgreSQL

_AGE = """
WITH c AS (UPDATE cell SET alive_at = $2, resumed_at = resumed_at - $1::interval),
     l AS (UPDATE leases SET renewed_at = renewed_at - $1::interval),
     j AS (UPDATE jobs SET deadline = deadline - $1::interval, unwind_deadline = unwind_deadline - $1::interval,
                           not_before = not_before - $1::interval, created_at = created_at - $1::interval),
     s AS (UPDATE steps SET attempt_deadline = attempt_deadline - $1::interval)
UPDATE instances SET purge_at = purge_at - $1::interval, version = version + 1
"""


@asynccontextmanager
async def postgres_harness(database: Database) -> AsyncIterator[StoreHarness]:
    async with proxied(database.urls[Role.ENGINE]) as (proxy, url), ground(database, url) as made:
        # The clock can't be moved: what is stored is older then.
        async def pass_time(seconds: float) -> None:
            await made.admin.execute(_AGE.replace("$1", f"'{seconds} seconds'").replace("$2", "clock_timestamp()"))

        async def stand_still(seconds: float) -> None:
            interval = f"'{seconds} seconds'"
            await made.admin.execute(_AGE.replace("$1", interval).replace("$2", f"alive_at - interval {interval}"))

        @contextmanager
        def losing(loss: Loss) -> Iterator[None]:
            async def treat(link: Link, said: bytes) -> None:
                match loss:
                    case Loss.ANSWER:
                        await link.deliver_and_swallow_the_answer(said)
                    case Loss.REQUEST:
                        link.cut()
                    case Loss.LATE:
                        link.cut_client()
                        await asyncio.sleep(0)
                        await link.deliver(said)

            proxy.at_commit(treat)
            yield

        await made.store.tick()  # the template's last tick is long ago
        yield StoreHarness(
            made.store,
            PostgresStore(made.store.engine, made.store.system, made.store.clock),
            made.caller.pool_id,
            made.caller.worker_id,
            Tenant(made.organization, made.target, made.release),
            await _second_tenant(made),
            pass_time,
            stand_still,
            lambda thing: _held_by_another_session(made, thing),
            lambda: _brake(made),
            losing,
        )


async def _second_tenant(made: Ground) -> Tenant:
    """Its target is served by the first one's pool."""
    rows = rows_of("other-corp")
    rows["targets"]["pool_id"] = made.caller.pool_id
    rows["releases"]["outline"] = await made.admin.fetchval("SELECT outline FROM releases")
    for table in ("organizations", "products", "releases", "targets"):
        await insert_row(made.admin, table, rows[table])
    return Tenant(
        OrganizationId(rows.organization_id), TargetId(rows["targets"]["id"]), ReleaseId(rows["releases"]["id"])
    )


@asynccontextmanager
async def _held_by_another_session(made: Ground, thing: InstanceId | Keyed) -> AsyncIterator[None]:
    session = await asyncpg.connect(made.database.admin_url)
    try:
        async with session.transaction():
            if isinstance(thing, Keyed):
                number = lock_number("key", thing.organization_id, thing.method, thing.path, thing.key)
                await session.execute("SELECT pg_advisory_xact_lock($1)", number)
            else:
                await session.execute("SELECT FROM instances WHERE id = $1 FOR NO KEY UPDATE", thing)
            yield
    finally:
        await session.close()


async def _brake(made: Ground) -> None:
    now = await made.admin.fetchval("SELECT clock_timestamp()")
    what = {"reach": "organization", "reason": "test", "actor": "tester", "pulled_at": now}
    await insert_row(made.admin, "brakes", {"id": make_id("brk"), "organization_id": made.organization, **what})


# ---- the twin


class _Script(Faults):
    """Nothing fails but the next transaction, if it is told to."""

    next: Ending | None = None

    def __init__(self) -> None:
        super().__init__(Choices(SEED, {}), others=0.0)

    def ending(self, port: str) -> Ending:
        if port == "store.transact" and self.next is not None:
            ending, self.next = self.next, None
            return ending
        return super().ending(port)


@asynccontextmanager
async def memory_harness() -> AsyncIterator[StoreHarness]:
    faults = _Script()
    database = MemoryDatabase(outlines={RELEASE: outline(), OTHER_RELEASE: outline()})
    database.now()

    @asynccontextmanager
    async def holding(thing: InstanceId | Keyed) -> AsyncIterator[None]:
        name = (thing.organization_id, thing.method, thing.path, thing.key) if isinstance(thing, Keyed) else thing
        database.held.add(name)
        yield
        database.held.remove(name)

    async def pass_time(seconds: float) -> None:
        await asyncio.sleep(seconds)
        database.alive_at = database.now()

    async def brake() -> None:
        database.braked = "brk_test"

    @contextmanager
    def losing(loss: Loss) -> Iterator[None]:
        faults.next = {Loss.ANSWER: Ending.ANSWER_LOST, Loss.REQUEST: Ending.REFUSED, Loss.LATE: Ending.LATE}[loss]
        yield

    yield StoreHarness(
        MemoryStore(database, faults),
        MemoryStore(database, Faults(Choices(SEED, {}), others=0.0)),
        POOL,
        WORKER,
        Tenant(ORGANIZATION, TARGET, RELEASE),
        Tenant(OTHER_ORGANIZATION, OTHER_TARGET, OTHER_RELEASE),
        pass_time,
        asyncio.sleep,
        holding,
        brake,
        losing,
    )

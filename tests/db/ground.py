"""What a job needs around it in a real database: an organization, a target, a worker with a lease, a release."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from sim.system import outline
from spectrum.control.dispatch import Caller, Dispatch
from spectrum.control.engine import Engine
from spectrum.control.sweeper import Sweeper
from spectrum.core.ids import InstanceId, JobId, OrganizationId, PlacementId, PoolId, ReleaseId, TargetId, WorkerId
from spectrum.core.jobs.commands import Submit
from spectrum.core.jobs.model import Instance, Spec
from spectrum.db.pools import Role, open_pool
from spectrum.db.store import PostgresStore
from spectrum.operations import CATALOG
from spectrum.ports import SystemClock, SystemEntropy, Tasks
from tests.db.rows import insert_row, make_id, rows_of
from tests.postgres import Database

TABLES = ("organizations", "products", "releases", "pools", "targets", "workers")


@dataclass
class Ground:
    """A control plane on a database of its own, with one worker that may claim."""

    database: Database
    admin: Any
    store: PostgresStore
    engine: Engine
    dispatch: Dispatch
    sweeper: Sweeper
    caller: Caller
    organization: OrganizationId
    target: TargetId
    release: ReleaseId

    def spec(self) -> Spec:
        return Spec("hello", "1", self.release, "small")

    def create(self, name: str = "acme") -> Submit:
        instance_id = InstanceId(make_id("ins"))
        spec = self.spec()
        new = Instance(
            id=instance_id,
            organization_id=self.organization,
            name=name,
            target_id=self.target,
            pool_id=self.caller.pool_id,
            placement_id=PlacementId(make_id("plc")),
            requested=spec,
        )
        return self.submit(instance_id, "create", spec=spec, new=new)

    def submit(self, instance_id: InstanceId, operation: str, **rest: Any) -> Submit:
        job_id = JobId(make_id("job"))
        return Submit(
            id=job_id,
            instance_id=instance_id,
            organization_id=self.organization,
            actor="tester",
            job_id=job_id,
            operation=operation,
            operation_version=1,
            **rest,
        )


@asynccontextmanager
async def ground(
    database: Database, engine_url: str | None = None, system_url: str | None = None
) -> AsyncIterator[Ground]:
    """`engine_url` and `system_url` are other ways to the same database."""
    rows = rows_of("acme-corp")
    rows["releases"]["outline"] = json.dumps({"memory": outline().as_json()})
    admin = await asyncpg.connect(database.admin_url)
    clock, entropy, tasks = SystemClock(), SystemEntropy(), Tasks()
    engine_pool = await open_pool(engine_url or database.urls[Role.ENGINE], Role.ENGINE, "test engine")
    system_pool = await open_pool(system_url or database.urls[Role.SYSTEM], Role.SYSTEM, "test system")
    try:
        for table in TABLES:
            await insert_row(admin, table, rows[table])
        store = PostgresStore(engine_pool, system_pool, clock)
        engine = Engine(store, CATALOG, clock, tasks)
        dispatch = Dispatch(store, engine, clock, entropy)
        sweeper = Sweeper(store, engine, dispatch, clock, entropy, lease_seconds=15.0)
        operations: dict[str, frozenset[int]] = {name: frozenset({1}) for name, _ in CATALOG}
        organization = OrganizationId(rows.organization_id)
        caller = Caller(WorkerId(rows["workers"]["id"]), organization, PoolId(rows["pools"]["id"]), operations)
        target, release = TargetId(rows["targets"]["id"]), ReleaseId(rows["releases"]["id"])
        yield Ground(database, admin, store, engine, dispatch, sweeper, caller, organization, target, release)
    finally:
        await tasks.close()
        await engine_pool.close()
        await system_pool.close()
        await admin.close()

"""What a job needs around it in a real database: an organization, a target, a worker with a lease, a release."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from sim.system import outline
from spectrum.control.dispatch import Caller, Dispatch
from spectrum.control.engine import Engine
from spectrum.control.sweeper import Sweeper
from spectrum.core.ids import InstanceId, JobId, OrganizationId, PlacementId, PoolId, ReleaseId, TargetId, WorkerId
from spectrum.core.jobs.commands import Holding, Intent, Outcome, Release, Report, Result, Submit
from spectrum.core.jobs.model import Instance, Lease, Spec
from spectrum.core.jobs.table import Phase
from spectrum.core.plan import ready
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


# ---- what a worker says of the job that it holds


def _says(here: Ground, held: Holding, lease: Lease) -> dict[str, Any]:
    return {
        "instance_id": held.instance.id,
        "organization_id": here.organization,
        "actor": here.caller.actor,
        "job_id": held.job.id,
        "lease_id": lease.id,
        "pool_id": here.caller.pool_id,
        "fence": held.job.fence,
    }


def report(here: Ground, held: Holding, lease: Lease, number: int, **what: Any) -> Report:
    return Report(id=f"{held.job.id}/{number}", **_says(here, held, lease), number=number, **what)


def handback(here: Ground, held: Holding, lease: Lease, **what: Any) -> Release:
    return Release(id=f"{held.job.id}/release", **_says(here, held, lease), **what)


async def run_to_the_end(
    here: Ground, held: Holding, lease: Lease, tell: Callable[[Report], Awaitable[Holding]] | None = None
) -> Holding:
    """Say of every step that it is done, the next intent in the same report. `tell` is how reports get there."""
    tell = tell or here.dispatch.report
    number = 1
    outcomes: tuple[Outcome, ...] = ()
    while not held.gone:
        done = {outcome.step for outcome in outcomes}
        intents = tuple(Intent(step.name, Phase.DO) for step in ready(held.job.steps, done))
        held = await tell(report(here, held, lease, number, outcomes=outcomes, intents=intents))
        running = [step for step in held.job.steps if step.outstanding]
        outcomes = tuple(Outcome(step.name, Phase.DO, step.token, Result.DONE) for step in running)
        number += 1
    return held

"""The lease lane of the store: incarnations, heartbeats, the end of leases, and the cell's liveness row."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from spectrum.core import ids
from spectrum.core.errors import Problem
from spectrum.core.events.catalogue import type_of
from spectrum.core.ids import LeaseId, OrganizationId
from spectrum.core.jobs.model import Lease
from spectrum.core.jobs.store import TOLERANCE_SECONDS, Beat, Ended, Lapsed, Owned, Unavailable
from spectrum.core.jobs.table import JobState
from spectrum.db import rows
from spectrum.db.losses import answerable
from spectrum.db.pools import Connection, Pool, scoped
from spectrum.db.sql import query
from spectrum.ports import Clock

_FOR_UPDATE = query("lease_for_update")
_BY_BOOT = query("lease_by_boot")
_WORKER_LOCK = query("worker_lock")
_SUPERSEDE = query("leases_supersede")
_OPEN = query("lease_open")
_RENEW = query("lease_renew")
_END = query("lease_end")
_LOST = query("worker_lost")
_STATE = query("lease_state")
_LAPSED = query("leases_lapsed")
_OWNED = query("jobs_owned")
_OWNED_BY_ENDED = query("jobs_owned_by_ended")
_TICK = query("cell_tick")


@dataclass
class LeaseLane:
    """What a store is over: the engine's pool, scoped to organizations, and the system's, for look-ups over all of them."""

    engine: Pool
    system: Pool
    clock: Clock

    async def open_lease(self, lease: Lease, boot: str) -> tuple[Lease, tuple[Owned, ...]]:
        async with self._scoped(lease.organization_id) as connection:
            worker = await connection.fetchrow(_WORKER_LOCK, lease.worker_id)
            if worker is None or worker["revoked"]:
                raise Problem("forbidden", f"Worker {lease.worker_id} was revoked: it gets no lease.")
            if known := await connection.fetchrow(_BY_BOOT, lease.worker_id, boot):
                return rows.lease_of(known), ()
            await connection.execute(_SUPERSEDE, lease.worker_id)
            row = await connection.fetchrow(
                _OPEN, lease.id, lease.organization_id, lease.worker_id, lease.pool_id, boot
            )
            if row is None:
                raise Unavailable("the lease was not opened")
        # What older incarnations owned is found by the sweeper too: ended leases that still own jobs count as lapsed.
        return rows.lease_of(row), tuple(map(_owned, await self._read(_OWNED_BY_ENDED, lease.worker_id)))

    async def beat(
        self, lease_id: LeaseId, organization_id: OrganizationId, incarnation: int, number: int
    ) -> Beat | None:
        async with self._scoped(organization_id) as connection:
            row = await connection.fetchrow(_FOR_UPDATE, lease_id)
            if row is None or row["ended_at"] is not None or row["incarnation"] != incarnation:
                return None
            fresh = number > row["heartbeat_number"]
            if fresh:
                row = await connection.fetchrow(_RENEW, lease_id, number)
            if row is None:
                return None
        return Beat(rows.lease_of(row), tuple(await self.owned(lease_id)), fresh)

    async def lapsed(self, lease_seconds: float, limit: int) -> Sequence[Lapsed]:
        found = await self._read(_LAPSED, lease_seconds, limit, TOLERANCE_SECONDS)
        return [Lapsed(r["id"], r["worker_id"], r["organization_id"]) for r in found]

    async def end_lease(self, lapsed: Lapsed, why: str, if_not_renewed_for: float | None) -> Ended:
        async with self._scoped(lapsed.organization_id) as connection:
            await connection.fetchrow(_WORKER_LOCK, lapsed.worker_id)
            await connection.fetchrow(_FOR_UPDATE, lapsed.lease_id)
            ended = await connection.fetchval(_END, lapsed.lease_id, why, if_not_renewed_for, TOLERANCE_SECONDS)
            if ended is not None:
                await _tell_of_the_loss(connection, lapsed, ended)
            state = await connection.fetchrow(_STATE, lapsed.lease_id)
        if state is None or state["live"]:
            return Ended()
        return Ended(tuple(await self.owned(lapsed.lease_id)), now=ended is not None)

    async def owned(self, lease_id: LeaseId) -> Sequence[Owned]:
        return [_owned(row) for row in await self._read(_OWNED, lease_id)]

    async def tick(self) -> datetime:
        moment: datetime = (await self._read(_TICK, TOLERANCE_SECONDS))[0]["alive_at"]
        return moment

    async def _read(self, text: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows that `spectrum_system` sees."""
        with answerable():
            return await self.system.fetch(text, *arguments)

    @asynccontextmanager
    async def _scoped(self, organization_id: OrganizationId) -> AsyncIterator[Connection]:
        with answerable():
            async with scoped(self.engine, [organization_id]) as connection:
                yield connection


async def _tell_of_the_loss(connection: Connection, lapsed: Lapsed, ended: datetime) -> None:
    # One lease is ended once: told again, it is the same event.
    event_id = ids.make("evt", ended, hashlib.sha256(lapsed.lease_id.encode()).digest())
    data = {"worker_id": lapsed.worker_id}
    await connection.execute(_LOST, event_id, lapsed.worker_id, type_of("worker.lost"), data, ended)


def _owned(row: asyncpg.Record) -> Owned:
    return Owned(
        row["id"],
        row["organization_id"],
        row["instance_id"],
        row["fence"],
        row["claim_number"],
        row["state"] == JobState.CANCELLING,
    )

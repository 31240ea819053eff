"""Workers: how they come to be trusted (join tokens, enrolment), whom their key belongs to, and how trust ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from spectrum.control.changes import Changes, Transaction, own
from spectrum.control.commands import Listing, Mutation, Page, Reply
from spectrum.control.targets import find_pool, find_target
from spectrum.core.access import TOKEN_ENTROPY, Principal, TokenText, make_join_token, read_token
from spectrum.core.errors import Problem
from spectrum.core.ids import PLATFORM, LeaseId, OrganizationId, PoolId, WorkerId
from spectrum.core.moments import stamp
from spectrum.core.signing import public_key
from spectrum.db.pools import Connection, Pool
from spectrum.db.sql import query
from spectrum.db.visits import Row, look_up, look_up_row, visiting
from spectrum.transports.protocol import JobRef

JOIN_TOKEN_LIFE = timedelta(minutes=15)

_JOIN_TOKEN_CREATE = query("join_token_create")
_JOIN_TOKEN_ORGANIZATION = query("join_token_organization")
_JOIN_TOKEN_HOLD = query("join_token_hold")
_JOIN_TOKEN_USE = query("join_token_use")
_WORKER_CREATE = query("worker_create")
_WORKER_BY_KEY = query("worker_by_key")
_WORKER_LIST = query("worker_list")
_WORKER_DRAIN = query("worker_drain")
_WORKER_REVOKE = query("worker_revoke")
_LEASE_HOLDS = query("lease_holds")
_WORKER_REVOKE_LEASES = query("worker_revoke_leases")


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as people see it."""

    id: WorkerId
    organization_id: str
    name: str
    pool: str
    state: str
    targets: tuple[str, ...]
    seen_at: datetime | None
    created_at: datetime

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "pool": self.pool,
            "shared": self.organization_id == PLATFORM,
            "state": self.state,
            "targets": list(self.targets),
            "seen_at": stamp(self.seen_at),
            "created_at": stamp(self.created_at),
        }


@dataclass(frozen=True, slots=True)
class Applicant:
    """A worker that wants to join: its two raw public keys, and what it can do."""

    name: str
    signing_key: bytes
    sealing_key: bytes
    protocol_version: int
    operations: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a worker learns by joining. The same for the same token and key, however often it asks."""

    worker_id: WorkerId
    organization_id: OrganizationId
    pool_id: PoolId
    pool: str


@dataclass(frozen=True, slots=True)
class KnownWorker:
    """Whose key signed a call: what the worker protocol needs to know before it looks at the call."""

    id: WorkerId
    organization_id: OrganizationId
    pool_id: PoolId
    sealing_key: bytes
    protocol_version: int
    draining: bool


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers in PostgreSQL. `cell_key` is the id of the key with which the cell signs its answers."""

    changes: Changes
    system: Pool
    cell_key: str

    async def workers(self, principal: Principal, page: Page) -> Listing[Worker]:
        async with visiting(self.changes.pool, own(principal)) as connection:
            rows = await connection.fetch(_WORKER_LIST, page.after, page.limit + 1, None)
        return Listing.of([_worker(row) for row in rows], page, [row["id"] for row in rows])

    async def worker(self, principal: Principal, worker_id: str) -> Worker:
        """Raises Problem `not-found`."""
        async with visiting(self.changes.pool, own(principal)) as connection:
            return await _find(connection, worker_id)

    async def create_join_token(self, mutation: Mutation, target: str | None, pool: str | None) -> Reply:
        """A token that lets one key into the pool, for 15 minutes. Only its hash is kept. Raises Problem `not-found`."""
        owner = mutation.principal.organization

        async def work(change: Transaction) -> Reply:
            pool_id, name = await _own_pool(change.connection, owner, target, pool)
            text = make_join_token(change.entropy.token(TOKEN_ENTROPY), self.cell_key)
            ends = change.now + JOIN_TOKEN_LIFE
            await change.connection.execute(
                _JOIN_TOKEN_CREATE, text.hash, owner, pool_id, change.actor, change.now, ends
            )
            await change.audit(owner, "join_token.create", pool_id, {"prefix": text.prefix})
            return Reply(201, {"pool": name, "expires_at": stamp(ends), "token": text.text}, secret=True)

        return await self.changes.run(mutation, work)

    async def drain_worker(self, mutation: Mutation, worker_id: str) -> Reply:
        """Raises Problem `not-found`."""
        owner = mutation.principal.organization

        async def work(change: Transaction) -> Reply:
            await _find_own(change.connection, worker_id, owner)
            # None for one that is revoked, perhaps since it was found.
            if await change.connection.fetchval(_WORKER_DRAIN, worker_id, change.now, owner) is not None:
                await change.audit(owner, "worker.drain", worker_id)
            return Reply(200, (await _find(change.connection, worker_id)).as_json())

        return await self.changes.run(mutation, work, as_engine=True)

    async def revoke_worker(self, mutation: Mutation, worker_id: str) -> Reply:
        """Refuse every further call of the worker's key and end its lease, so that its jobs go on elsewhere.

        Raises Problem `not-found`. Again, it changes nothing.
        """
        owner = mutation.principal.organization

        async def work(change: Transaction) -> Reply:
            await _find_own(change.connection, worker_id, owner)
            sequence = await change.connection.fetchval(_WORKER_REVOKE, worker_id, change.now, owner)
            if sequence is not None:
                await change.connection.execute(_WORKER_REVOKE_LEASES, worker_id)
                await change.event(owner, "worker.revoked", worker_id, sequence, {"worker_id": worker_id})
                await change.audit(owner, "worker.revoke", worker_id)
            return Reply(200, (await _find(change.connection, worker_id)).as_json())

        return await self.changes.run(mutation, work, as_engine=True)

    async def enrol(self, token: str, applicant: Applicant, request_id: str | None = None) -> Enrolled:
        """Let a worker in. The caller has checked that the call was signed with the applicant's own signing key.

        The first key uses the token up; the same key gets the same answer again. Raises Problem `join-token-invalid`.
        """
        text = read_token(token)
        if text is None or text.cell_key != self.cell_key:
            raise _no_entry("This is not a join token of this cell, or it was copied with a mistake.")
        row = await look_up_row(self.system, _JOIN_TOKEN_ORGANIZATION, text.hash)
        if row is None:
            raise _no_entry("Nobody knows this join token.")
        actor, owner = f"join-token:{text.prefix}", OrganizationId(row["organization_id"])
        async with self.changes.unkeyed(actor, owner, as_engine=True, request_id=request_id) as change:
            return await _enrol(change, owner, text, applicant)

    async def by_key(self, key_id: str) -> KnownWorker:
        """Whose key this is. Raises Problem `signature-invalid` where nobody's, or where the worker was revoked."""
        try:
            raw = public_key(key_id).public_bytes_raw()
        except ValueError as error:
            raise Problem("signature-invalid", f"The key id of the signature is no good: {error}.") from None
        row = await look_up_row(self.system, _WORKER_BY_KEY, raw)
        if row is None:
            raise Problem("signature-invalid", "No worker has this key. Join with a new join token.")
        if row["revoked_at"] is not None:
            raise Problem("signature-invalid", "This worker was revoked. It can't come back under the same key.")
        return KnownWorker(
            WorkerId(row["id"]),
            OrganizationId(row["organization_id"]),
            PoolId(row["pool_id"]),
            row["sealing_public_key"],
            row["protocol_version"],
            row["draining_at"] is not None,
        )

    async def holds(self, worker_id: WorkerId, lease_id: LeaseId, ref: JobRef) -> bool:
        """Whether the worker may still be told what the job needs: it holds it, its lease lives, and it was not revoked."""
        named = (ref.job_id, ref.instance_id, ref.organization_id, ref.fence)
        [[held]] = await look_up(self.system, _LEASE_HOLDS, *named, lease_id, worker_id)
        return bool(held)


async def _enrol(change: Transaction, owner: OrganizationId, text: TokenText, applicant: Applicant) -> Enrolled:
    row = await change.connection.fetchrow(_JOIN_TOKEN_HOLD, text.hash)
    if row is None:
        raise _no_entry("Nobody knows this join token.")
    if row["used_by_key"] is not None:
        if row["used_by_key"] != applicant.signing_key:
            raise _no_entry("This join token was used by another worker.")
        return Enrolled(WorkerId(row["worker_id"]), owner, PoolId(row["pool_id"]), row["pool"])
    if row["expires_at"] <= change.now:
        raise _no_entry(f"This join token expired at {stamp(row['expires_at'])}.")
    worker_id = await _admit(change, owner, row["pool_id"], applicant)
    await change.connection.execute(_JOIN_TOKEN_USE, text.hash, change.now, applicant.signing_key, worker_id)
    return Enrolled(WorkerId(worker_id), owner, PoolId(row["pool_id"]), row["pool"])


async def _admit(change: Transaction, owner: str, pool_id: str, applicant: Applicant) -> str:
    worker_id: str | None = await change.connection.fetchval(
        _WORKER_CREATE,
        change.new_id("wrk"),
        owner,
        pool_id,
        applicant.name,
        applicant.signing_key,
        applicant.sealing_key,
        applicant.protocol_version,
        dict(applicant.operations),
        change.now,
    )
    if worker_id is None:
        raise _no_entry("This worker's key joined before, with another token. Remove its key file to join anew.")
    await change.event(owner, "worker.enrolled", worker_id, 1, {"worker_id": worker_id, "pool_id": pool_id})
    await change.audit(owner, "worker.enrol", worker_id, {"name": applicant.name, "pool_id": pool_id})
    return worker_id


async def _own_pool(connection: Connection, owner: str, target: str | None, pool: str | None) -> tuple[str, str]:
    """Id and name of a pool of the organization's own: nobody else's workers may be let into a shared one."""
    if target is not None:
        found = await find_target(connection, owner, target)
        pool = found["pool"]
    row = await find_pool(connection, owner, str(pool))
    if row is None or row["organization_id"] != owner:
        raise Problem("not-found", f"There is no pool {pool!r} in your organization. Add a target first.")
    return row["id"], row["name"]


async def _find(connection: Connection, worker_id: str) -> Worker:
    row = await connection.fetchrow(_WORKER_LIST, "", 1, worker_id)
    if row is None:
        raise Problem("not-found", f"There is no worker {worker_id!r}. See `spectrum worker list`.")
    return _worker(row)


async def _find_own(connection: Connection, worker_id: str, owner: str) -> Worker:
    found = await _find(connection, worker_id)
    if found.organization_id != owner:
        raise Problem("forbidden", f"The worker {worker_id} is shared by the platform, which alone may change it.")
    return found


def _worker(row: Row) -> Worker:
    if row["revoked_at"] is not None:
        state = "revoked"
    elif row["draining_at"] is not None:
        state = "draining"
    else:
        state = "live" if row["live"] else "lost"
    return Worker(
        WorkerId(row["id"]),
        row["organization_id"],
        row["name"],
        row["pool"],
        state,
        tuple(row["targets"]),
        row["renewed_at"],
        row["enrolled_at"],
    )


def _no_entry(reason: str) -> Problem:
    return Problem("join-token-invalid", f"{reason} Make a new one: spectrum worker join-token.")

"""The engine's store on PostgreSQL: one transaction that locks, loads, folds and writes (implements `core.jobs.store.Store`).

Reads and writes are arrays: one statement a table, however many commands share the flush. Locks are taken in the order of
DESIGN §2; what another transaction holds is passed over, never waited for. The lease lane is `db.leases`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from spectrum.core.evolve import evolve
from spectrum.core.ids import InstanceId, PoolId, ReleaseId
from spectrum.core.jobs.commands import Repeated
from spectrum.core.jobs.kept import Kept
from spectrum.core.jobs.model import Aggregate, Instance, Lease, Surroundings
from spectrum.core.jobs.store import (
    TOLERANCE_SECONDS,
    Batch,
    Candidate,
    Loaded,
    Remembered,
    Response,
    Settlement,
    Unavailable,
    Uncertain,
)
from spectrum.core.product.outline import Outline
from spectrum.core.weighed import Weighed, weight_of
from spectrum.db import reading, rows, writing
from spectrum.db.leases import LeaseLane
from spectrum.db.losses import BUSY, answerable, broke_off, is_loss
from spectrum.db.pools import Connection, Pooled, drop, give_back
from spectrum.db.sql import query

_BEGIN = query("transaction_begin")
_STATUS = query("transaction_status")
_KEYS_LOCK = query("keys_lock")
_KEYS_REMEMBERED = query("keys_remembered")
_NAMES_TAKEN = query("names_taken")
_LEASE = query("lease_for_update")
_INSTANCES_LOCK = query("instances_lock")
_INSTANCES_EXIST = query("instances_exist")
_CLOCK = query("clock")
_CLAIMABLE = query("jobs_claimable")
_DUE = query("instances_due")
_PURGEABLE = query("instances_purgeable")

ACQUIRE_SECONDS = 5.0
IN_PROGRESS_PAUSE = 0.05
# Bytes, about: a vendor that publishes with every commit has more than a copy can keep.
OUTLINES_LIMIT = 32 * 1024 * 1024
_SINCE = " since "

Outlines = Weighed[tuple[ReleaseId, str], Outline | None]


@dataclass
class PostgresStore(LeaseLane):
    """The store: the aggregates' lane over the same pools as the leases'."""

    kept: Kept = field(default_factory=Kept, kw_only=True)
    # By release and kind of target; a release never changes.
    outlines: Outlines = field(default_factory=lambda: Weighed(OUTLINES_LIMIT), kw_only=True)

    async def transact(self, batch: Batch) -> Sequence[Response]:
        while True:
            try:
                return await self._transact_once(batch)
            except BUSY:
                continue

    async def _transact_once(self, batch: Batch) -> Sequence[Response]:
        with answerable():
            connection = await self.engine.acquire(timeout=ACQUIRE_SECONDS)
        try:
            return await self._in_transaction(connection, batch)
        finally:
            await give_back(self.engine, connection)

    async def _in_transaction(self, connection: Pooled, batch: Batch) -> Sequence[Response]:
        transaction = connection.transaction()
        try:
            await transaction.start()
            name = await self._begin(connection, batch)
            era = self.kept.era
            loaded = await _Loading(connection, batch, self.kept, era, self.outlines).load()
            folded = batch.fold(loaded)
            await writing.write(connection, batch, loaded, folded)
        except BaseException as error:
            if is_loss(error):
                # Nothing was committed: PostgreSQL rolls back what it has not been told to commit.
                drop(connection)
                raise broke_off(error) from error
            await _roll_back(transaction)
            raise
        try:
            await transaction.commit()
        except Exception as error:
            if not is_loss(error):
                raise
            drop(connection)
            raise Uncertain(name, folded.results) from error
        unchanged = (each for instance_id, each in loaded.aggregates.items() if instance_id not in folded.written)
        self.kept.keep(era, (*unchanged, *(written.after for written in folded.written.values())))
        return folded.results

    async def _begin(self, connection: Connection, batch: Batch) -> str:
        """Returns the name by which the transaction can be settled."""
        organizations = {asked.command.organization_id for asked in batch.asked}
        if batch.claim is not None:
            organizations.add(batch.claim.organization_id)
        row = await connection.fetchrow(_BEGIN, sorted(organizations))
        if row is None:
            raise Unavailable("the database did not say which transaction this is")
        self.kept.enter(f"{row['run']}, epoch {row['epoch']}")
        return f"{row['xid']}{_SINCE}{row['run']}"

    async def settle(self, transaction: str) -> Settlement:
        """Where PostgreSQL can't tell any more (too long ago, or it recovered from a crash since: a transaction id that was not
        written down is given out again) the verdict is `ABORTED`: every command may be applied again, a repeat changes nothing.
        """
        xid, _, run = transaction.partition(_SINCE)
        while True:
            status = (await self._read(_STATUS, xid, run))[0]["status"]
            if status != "in progress":
                return Settlement.COMMITTED if status == "committed" else Settlement.ABORTED
            await self.clock.sleep(IN_PROGRESS_PAUSE)

    async def claimable(
        self, pool_id: PoolId, operations: Mapping[str, frozenset[int]], limit: int, alone: bool
    ) -> Sequence[Candidate]:
        pairs = [(name, version) for name, versions in sorted(operations.items()) for version in sorted(versions)]
        found = await self._read(
            _CLAIMABLE, pool_id, [name for name, _ in pairs], [version for _, version in pairs], limit, alone
        )
        return [Candidate(r["organization_id"], r["instance_id"], r["id"], r["fence"]) for r in found]

    async def due(self, limit: int) -> Sequence[Candidate]:
        return _candidates(await self._read(_DUE, limit, TOLERANCE_SECONDS))

    async def purgeable(self, limit: int) -> Sequence[Candidate]:
        return _candidates(await self._read(_PURGEABLE, limit))


def _candidates(found: Iterable[asyncpg.Record]) -> list[Candidate]:
    return [Candidate(row["organization_id"], row["instance_id"]) for row in found]


async def _roll_back(transaction: Any) -> None:
    try:
        await transaction.rollback()
    except Exception as error:
        if not is_loss(error):  # else the connection is gone, and with it the transaction
            raise


def lock_number(*parts: str) -> int:
    """The advisory lock of a key or a name: 63 bits, the same in every copy."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@dataclass
class _Loading:
    """Everything that a fold sees, in the order of the locks."""

    connection: Connection
    batch: Batch
    kept: Kept
    era: str  # of the database that the transaction is in
    outlines: Outlines

    async def load(self) -> Loaded:
        busy_keys = await self._lock_keys()
        remembered = await self._remembered()
        lease = await self._lease()
        locked = await self._lock_instances()
        wanted = {asked.command.instance_id for asked in self.batch.asked}
        existing = await self._exist(wanted - set(locked))
        aggregates = await self._aggregates(locked) if locked else {}
        new = [n for asked in self.batch.asked if (n := getattr(asked.command, "new", None)) is not None]
        instances = [*new, *(aggregate.instance for aggregate in aggregates.values())]
        around = await reading.surroundings(self.connection, instances)
        outlines = await self._outlines(instances, around)
        now = next(iter(around.values())).now if around else await self.connection.fetchval(_CLOCK)
        return Loaded(
            now=now,
            aggregates={i: evolve(a, outlines=outlines) for i, a in aggregates.items()},
            around=around,
            outlines=outlines,
            busy=frozenset(existing),
            busy_keys=busy_keys,
            remembered=remembered,
            taken=await self._taken(),
            lease=lease,
        )

    # ---- keys and names

    def _locks(self) -> dict[int, list[int]]:
        """Positions of the batch by the advisory locks that they need."""
        needed: dict[int, list[int]] = {}
        for position, asked in enumerate(self.batch.asked):
            organization = asked.command.organization_id
            if asked.keyed is not None:
                k = asked.keyed
                needed.setdefault(lock_number("key", organization, k.method, k.path, k.key), []).append(position)
            if asked.name is not None:
                needed.setdefault(lock_number("name", organization, asked.name), []).append(position)
        return needed

    async def _lock_keys(self) -> frozenset[int]:
        """Positions whose key or name another transaction holds. Two of one batch under one key: the later one waits too."""
        needed = self._locks()
        if not needed:
            return frozenset()
        taken = {r["hash"]: r["taken"] for r in await self.connection.fetch(_KEYS_LOCK, sorted(needed))}
        busy = {p for number, positions in needed.items() if not taken[number] for p in positions}
        doubled = {p for positions in needed.values() for p in positions[1:]}
        return frozenset(busy | doubled)

    async def _remembered(self) -> dict[int, Remembered]:
        keyed = {
            asked.keyed.place: position
            for position, asked in reversed(list(enumerate(self.batch.asked)))
            if asked.keyed is not None
        }
        if not keyed:
            return {}
        places = list(keyed)
        found = await self.connection.fetch(_KEYS_REMEMBERED, *[[place[n] for place in places] for n in range(4)])
        return {
            keyed[r["organization_id"], r["method"], r["path"], r["key"]]: Remembered(
                r["request_digest"], Repeated(r["status"], r["location"] or "", r["body"] or {})
            )
            for r in found
        }

    async def _taken(self) -> frozenset[int]:
        named = [(p, a.command.organization_id, a.name) for p, a in enumerate(self.batch.asked) if a.name is not None]
        if not named:
            return frozenset()
        found = await self.connection.fetch(_NAMES_TAKEN, [n[1] for n in named], [n[2] for n in named])
        taken = {(r["organization_id"], r["name"]) for r in found}
        return frozenset(position for position, organization, name in named if (organization, name) in taken)

    async def _lease(self) -> Lease | None:
        if self.batch.claim is None:
            return None
        row = await self.connection.fetchrow(_LEASE, self.batch.claim.lease_id)
        return rows.lease_of(row) if row else None

    # ---- aggregates

    async def _lock_instances(self) -> dict[InstanceId, int]:
        """The versions of those that are there and nobody else's."""
        wanted = sorted({asked.command.instance_id for asked in self.batch.asked})
        if not wanted:
            return {}
        return {r["id"]: r["version"] for r in await self.connection.fetch(_INSTANCES_LOCK, wanted)}

    async def _exist(self, missing: set[InstanceId]) -> set[InstanceId]:
        """Of those that could not be locked, the ones that are there: somebody else holds them."""
        if not missing:
            return set()
        return {r["id"] for r in await self.connection.fetch(_INSTANCES_EXIST, sorted(missing))}

    async def _aggregates(self, locked: Mapping[InstanceId, int]) -> dict[InstanceId, Aggregate]:
        """What is kept of them as it is now, and the rest as it is read; with the ended jobs that the batch names."""
        kept = {i: a for i, version in locked.items() if (a := self.kept.known(self.era, i, version)) is not None}
        read = await reading.aggregates(self.connection, [i for i in locked if i not in kept])
        found = {i: kept.get(i) or read[i] for i in locked}
        missing = [
            named
            for asked in self.batch.asked
            if (aggregate := found.get(asked.command.instance_id)) is not None
            and (named := getattr(asked.command, "job_id", None)) is not None
            and named not in aggregate.jobs
        ]
        return reading.with_jobs(found, await reading.ended(self.connection, list(found), missing))

    async def _outlines(
        self, instances: Sequence[Instance], around: Mapping[InstanceId, Surroundings]
    ) -> dict[ReleaseId, Outline]:
        """Outlines of the releases in the batch, for the kind of target that they run on."""
        wanted: dict[ReleaseId, str] = {}
        for instance in instances:
            specs = (instance.requested, instance.accepted)
            wanted |= {spec.release_id: around[instance.id].target_kind for spec in specs if spec is not None}
        known = {key: self.outlines[key] for key in wanted.items() if key in self.outlines}
        if missing := dict(wanted.items() - known.keys()):
            read = await reading.outlines(self.connection, missing)
            for key in missing.items():
                known[key] = outline = read.get(key[0])
                self.outlines.put(key, outline, weight_of(outline and outline.as_json()))
        return {release: outline for (release, _), outline in known.items() if outline is not None}

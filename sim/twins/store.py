"""The twin of the store: dictionaries with versions and unique sets, behind a line that fails in every way a database can.

A transaction happens at one instant or not at all; its acknowledgement may be lost, and then the server still knows what became of
it. Several copies of the control plane share one `MemoryDatabase`, each through a `MemoryStore` of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sim.hosts import EPOCH
from sim.loop import SimLoop
from sim.marks import declare, sometimes
from sim.twins.calls import Line
from sim.twins.faults import Faults
from spectrum.core.breakers import Breaker, BreakerState
from spectrum.core.evolve import evolve
from spectrum.core.ids import InstanceId, JobId, LeaseId, OrganizationId, PoolId, ReleaseId, TargetId, WorkerId
from spectrum.core.jobs.commands import Command, Entry, Fact
from spectrum.core.jobs.kept import Kept
from spectrum.core.jobs.model import Aggregate, Attempt, Effect, Instance, Job, Lease, Surroundings
from spectrum.core.jobs.store import (
    TOLERANCE_SECONDS,
    Asked,
    Batch,
    Beat,
    Candidate,
    Ended,
    Folded,
    Lapsed,
    Loaded,
    Owned,
    Remembered,
    Response,
    Settlement,
    Unavailable,
    Uncertain,
    Written,
)
from spectrum.core.jobs.table import Hold, JobState, Lifecycle
from spectrum.core.signing import CallWindow

T = TypeVar("T")

CALL_TIMEOUT = 5.0  # seconds, as a driver's
BUSY = "store busy"
ROLLBACK = "store rollback"
ROLLED_BACK = declare("a transaction was rolled back after its fold", "nobody may have been answered by then")
RACED = declare("two flushes raced for one instance", "locks and versions are there for this")
AWAY = "PostgreSQL is away"


@dataclass(frozen=True, slots=True)
class Logged:
    """An event row: the fact, and of which organization."""

    organization_id: OrganizationId
    fact: Fact


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of an instance's row, and the command that made it where it was the only one of its flush for this instance."""

    before: Instance | None
    after: Instance
    command: Command | None


@dataclass(frozen=True, slots=True)
class Told:
    """What a command was answered with; `again`: because its key was known."""

    command: Command
    response: Response
    again: bool


@dataclass
class MemoryDatabase:
    """What is stored. `history` has every version of every job, for the invariants, with the command that made it where it was
    the only one of its flush for this instance.
    """

    epoch: int = 1
    era: str = "1"  # this run of it; another one begins where a standby takes over
    tolerance: float = TOLERANCE_SECONDS
    instances: dict[InstanceId, Instance] = field(default_factory=dict)
    jobs: dict[JobId, Job] = field(default_factory=dict)
    effects: dict[InstanceId, dict[tuple[str, str], Effect]] = field(default_factory=dict)
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    events: list[Logged] = field(default_factory=list)
    audit: list[Entry] = field(default_factory=list)
    leases: dict[LeaseId, Lease] = field(default_factory=dict)
    boots: dict[tuple[WorkerId, str], LeaseId] = field(default_factory=dict)
    keys: dict[tuple[str, str, str, str], Remembered] = field(default_factory=dict)
    outlines: dict[ReleaseId, Any] = field(default_factory=dict)
    windows: dict[str, CallWindow] = field(default_factory=dict)  # by lease: which calls were heard
    committed: set[str] = field(default_factory=set)
    aborted: set[str] = field(default_factory=set)
    history: list[tuple[Job | None, Job, Command | None]] = field(default_factory=list)
    changes: list[Changed] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    up: bool = True
    forgetful: bool = False  # it loses commits, as no database should: what rests on them is not judged
    ahead: timedelta = timedelta(0)  # by how much the machine's clock is wrong
    flushing: dict[str, tuple[float, frozenset[InstanceId]]] = field(default_factory=dict)  # since when, of what
    look_at: dict[InstanceId, datetime] = field(default_factory=dict)
    braked: str = ""
    held: set[object] = field(default_factory=set)  # instance ids and places of keys that another copy holds
    alive_at: datetime | None = None
    resumed_at: datetime | None = None
    lost: timedelta = timedelta(0)
    breakers: dict[TargetId, Breaker] = field(default_factory=dict)
    down_total: dict[TargetId, timedelta] = field(default_factory=dict)
    clock: datetime = EPOCH
    transactions: int = 0

    def now(self) -> datetime:
        """PostgreSQL's clock: it never goes backwards."""
        self.clock = max(self.clock, EPOCH + timedelta(seconds=SimLoop.current().now) + self.ahead)
        return self.clock

    def begin(self, transaction: str, instances: frozenset[InstanceId]) -> None:
        """A flush is on its way. One whose copy has crashed is over when its call would be."""
        now = SimLoop.current().now
        under_way = [held for since, held in self.flushing.values() if now - since < CALL_TIMEOUT]
        sometimes(RACED, any(held & instances for held in under_way))
        self.flushing[transaction] = (now, instances)

    # ---- loading

    def load(self, asked: Sequence[Asked], lease: Lease | None, busy: frozenset[InstanceId], kept: Kept) -> Loaded:
        now = self.now()
        wanted = dict.fromkeys(each.command.instance_id for each in asked)
        aggregates = {i: self._aggregate(i, asked, kept) for i in wanted if i in self.instances and i not in busy}
        return Loaded(
            now=now,
            aggregates=aggregates,
            around={i: self._around(now, self._target_of(i, asked)) for i in wanted},
            outlines=self.outlines,
            busy=busy,
            busy_keys=self._busy_keys(asked),
            remembered=self._remembered(asked),
            taken=frozenset(p for p, each in enumerate(asked) if each.name and self._taken(each)),
            lease=lease,
        )

    def _aggregate(self, instance_id: InstanceId, asked: Sequence[Asked], kept: Kept) -> Aggregate:
        """As a copy of the control plane sees it: what it kept, where that is of the present version, with the ended jobs named."""
        named = {getattr(each.command, "job_id", None) for each in asked}
        of_it = [job for job in self.jobs.values() if job.instance_id == instance_id]
        ended = {job.id: job for job in of_it if job.state.terminal and job.id in named}
        found = kept.known(self.era, instance_id, self.instances[instance_id].version)
        if found is None:
            jobs = {job.id: job for job in of_it if not job.state.terminal}
            found = Aggregate(self.instances[instance_id], jobs, dict(self.effects.get(instance_id, {})))
        return evolve(found, jobs={**found.jobs, **ended}, outlines=self.outlines)

    def _remembered(self, asked: Sequence[Asked]) -> dict[int, Remembered]:
        found = {}
        for position, each in enumerate(asked):
            if each.keyed and (known := self.keys.get(_key(each))):
                found[position] = known
        return found

    def _busy_keys(self, asked: Sequence[Asked]) -> frozenset[int]:
        """Positions whose key or name somebody else has: another copy, or an earlier one of the same batch."""
        locked: set[object] = set(self.held)
        busy: set[int] = set()
        for position, each in enumerate(asked):
            needed: set[object] = {_key(each)} if each.keyed else set()
            if each.name:
                needed.add((each.command.organization_id, each.name))
            if needed & locked:
                busy.add(position)
            locked |= needed
        return frozenset(busy)

    def _taken(self, asked: Asked) -> bool:
        organization = asked.command.organization_id
        return any(
            i.name == asked.name and i.organization_id == organization and i.lifecycle is not Lifecycle.PURGED
            for i in self.instances.values()
        )

    def answers(self, instance_id: InstanceId, now: datetime) -> bool:
        """Whether the instance's target is not left alone just now."""
        return self.breakers.get(self.instances[instance_id].target_id, Breaker()).lets_through(now)

    # ---- writing

    def write(self, batch: Batch, folded: Folded) -> None:
        """All of it, at one instant."""
        for written in folded.written.values():
            self._write(written, batch)
        for position, answer in folded.remember.items():
            each = batch.asked[position]
            if each.keyed:
                self.keys[_key(each)] = Remembered(each.keyed.request_digest, answer)
        for rejection in folded.evidence:
            self.audit.extend(rejection.entries)
        if folded.lease is not None:
            self.leases[folded.lease.id] = folded.lease
        for target_id, breaker in folded.breakers.items():
            before = self.breakers.get(target_id, Breaker())
            if breaker.state is BreakerState.CLOSED and before.opened_at is not None:
                self.down_total[target_id] = self._down_for(target_id, self.now())
            self.breakers[target_id] = breaker

    def _target_of(self, instance_id: InstanceId, asked: Sequence[Asked]) -> TargetId:
        if (known := self.instances.get(instance_id)) is not None:
            return known.target_id
        new = next(
            (getattr(each.command, "new", None) for each in asked if each.command.instance_id == instance_id), None
        )
        return new.target_id if new is not None else TargetId("")

    def _around(self, now: datetime, target_id: TargetId) -> Surroundings:
        lost, breaker = self.lost_for(target_id, now), self.breakers.get(target_id, Breaker())
        return Surroundings(now, self.epoch, lost, self.braked, breaker=breaker)

    def lost_for(self, target_id: TargetId, now: datetime) -> timedelta:
        """Time in which deadlines of jobs on the target did not count: the cell's, and that in which its breaker was open."""
        return self.lost + self.gap(now) + self._down_for(target_id, now)

    def _down_for(self, target_id: TargetId, now: datetime) -> timedelta:
        opened_at = self.breakers.get(target_id, Breaker()).opened_at
        open_for = now - opened_at if opened_at is not None else timedelta(0)
        return self.down_total.get(target_id, timedelta(0)) + open_for

    def gap(self, now: datetime) -> timedelta:
        """The time since the last tick where that is too long ago for anything to have counted since."""
        since = now - (self.alive_at or now)
        return since if since > timedelta(seconds=self.tolerance) else timedelta(0)

    def _write(self, written: Written, batch: Batch) -> None:
        after = written.after
        instance = after.instance
        self.instances[instance.id] = instance
        self.effects[instance.id] = dict(after.effects)
        commands = [each.command for each in batch.asked if each.command.instance_id == instance.id]
        command = commands[0] if len(commands) == 1 else None
        self.changes.append(Changed(written.before.instance if written.before else None, instance, command))
        for job in after.jobs.values():
            before = self.jobs.get(job.id)
            if before is None:
                SimLoop.current().work["jobs"] += 1
            if before is not job:
                self.history.append((before, job, command))
                self.jobs[job.id] = job
        for consequences in written.consequences:
            self.events.extend(Logged(instance.organization_id, fact) for fact in consequences.facts)
            self.audit.extend(consequences.entries)
            for attempt in consequences.opened:
                self.attempts[attempt.step_id, attempt.number] = attempt
            for closing in consequences.closed:
                place = (closing.step_id, closing.number)
                opened = self.attempts[place]
                if opened.outcome is None:
                    self.attempts[place] = replace(
                        opened, outcome=closing.outcome, outcome_at=closing.at, failure=closing.failure
                    )

    def owned(self, lease_id: LeaseId) -> tuple[Owned, ...]:
        return tuple(
            Owned(
                job.id,
                job.organization_id,
                job.instance_id,
                job.fence,
                job.owner.claim,
                job.state is JobState.CANCELLING,
            )
            for job in self.jobs.values()
            if job.owner is not None and job.owner.lease_id == lease_id
        )


def _key(asked: Asked) -> tuple[str, str, str, str]:
    if asked.keyed is None:
        raise ValueError("it has no key")
    return asked.keyed.place


class MemoryStore:
    """One copy's connection to the database (implements `core.jobs.store.Store`)."""

    def __init__(self, database: MemoryDatabase, faults: Faults) -> None:
        self.database = database
        self.kept = Kept()
        self.line = Line(faults, Unavailable)
        self._faults = faults

    async def transact(self, batch: Batch) -> Sequence[Response]:
        database = self.database
        database.transactions += 1
        transaction = f"tx{database.transactions}"
        era = database.era
        results: list[Response] = []
        after: list[Aggregate] = []

        def work() -> Sequence[Response]:
            if transaction not in database.committed:
                if transaction in database.aborted:
                    raise Unavailable("the server has rolled it back")
                results[:], after[:] = self._commit(batch)
                database.committed.add(transaction)
            return list(results)

        database.begin(transaction, frozenset(each.command.instance_id for each in batch.asked))
        try:
            answered = await self._call("store.transact", work)
        except Unavailable as error:
            raise Uncertain(transaction, results) from error
        finally:
            database.flushing.pop(transaction, None)
        self.kept.keep(era, after)
        return answered

    def _commit(self, batch: Batch) -> tuple[Sequence[Response], list[Aggregate]]:
        database = self.database
        self.kept.enter(database.era)
        lease = database.leases.get(batch.claim.lease_id) if batch.claim else None
        loaded = database.load(batch.asked, lease, self._busy(batch.asked), self.kept)
        folded = batch.fold(loaded)
        if sometimes(ROLLED_BACK, self._faults.strikes(ROLLBACK)):
            raise Unavailable("the server ended the transaction")
        database.write(batch, folded)
        for position, (each, result) in enumerate(zip(batch.asked, folded.results, strict=True)):
            database.told.append(Told(each.command, result, again=position in loaded.remembered))
        SimLoop.current().changed(database)
        unchanged = [each for instance_id, each in loaded.aggregates.items() if instance_id not in folded.written]
        return folded.results, [*unchanged, *(written.after for written in folded.written.values())]

    def _busy(self, asked: Iterable[Asked]) -> frozenset[InstanceId]:
        """Aggregates that another copy holds at this moment."""
        held = {each.command.instance_id for each in asked} & self.database.held
        return frozenset(each.command.instance_id for each in asked if self._faults.strikes(BUSY)) | frozenset(held)

    async def settle(self, transaction: str) -> Settlement:
        def work() -> Settlement:
            if transaction in self.database.committed:
                return Settlement.COMMITTED
            self.database.aborted.add(transaction)
            return Settlement.ABORTED

        return await self._call("store.settle", work)

    async def claimable(
        self, pool_id: PoolId, operations: Mapping[str, frozenset[int]], limit: int, alone: bool
    ) -> Sequence[Candidate]:
        def work() -> Sequence[Candidate]:
            now = self.database.now()
            found = [
                job
                for job in self.database.jobs.values()
                if job.pool_id == pool_id
                and job.owner is None
                and (job.state is JobState.UNWINDING or (job.state is JobState.READY and not self.database.braked))
                and job.operation_version in operations.get(job.operation, frozenset())
                and (job.not_before is None or job.not_before <= now)
                and (alone or not job.alone)
                and self.database.answers(job.instance_id, now)
            ]
            return _in_turns(found)[:limit]

        return await self._call("store.read", work)

    async def due(self, limit: int) -> Sequence[Candidate]:
        def work() -> Sequence[Candidate]:
            now = self.database.now()
            return [
                Candidate(instance.organization_id, instance.id)
                for instance in self.database.instances.values()
                if self._is_due(instance, now)
            ][:limit]

        return await self._call("store.read", work)

    def _is_due(self, instance: Instance, now: datetime) -> bool:
        jobs = [j for j in self.database.jobs.values() if j.instance_id == instance.id and not j.state.terminal]
        stranded = instance.active_job_id is None and any(job.state is JobState.WAITING for job in jobs)
        lost = self.database.lost_for(instance.target_id, now)
        return stranded or any(
            due is not None and due + lost - job.lost_before <= now for job in jobs for due in _deadlines(job)
        )

    async def purgeable(self, limit: int) -> Sequence[Candidate]:
        def work() -> Sequence[Candidate]:
            now = self.database.now()
            return [
                Candidate(instance.organization_id, instance.id)
                for instance in self.database.instances.values()
                if instance.lifecycle is Lifecycle.DELETED
                and instance.hold is Hold.NONE
                and instance.active_job_id is None
                and instance.purge_at is not None
                and instance.purge_at <= now
            ][:limit]

        return await self._call("store.read", work)

    async def owned(self, lease_id: LeaseId) -> Sequence[Owned]:
        return await self._call("store.read", lambda: self.database.owned(lease_id))

    async def ask(self, work: Callable[[], T]) -> T:
        """What a query outside of the port would do, at one instant."""
        return await self._call("store.read", work)

    # ---- the lease lane

    async def open_lease(self, lease: Lease, boot: str) -> tuple[Lease, tuple[Owned, ...]]:
        return await self._call("store.lease", lambda: self._open_lease(lease, boot))

    def _open_lease(self, lease: Lease, boot: str) -> tuple[Lease, tuple[Owned, ...]]:
        database = self.database
        if (known := database.boots.get((lease.worker_id, boot))) is not None:
            return database.leases[known], ()
        now = database.now()
        earlier = [each for each in database.leases.values() if each.worker_id == lease.worker_id]
        orphaned = tuple(owned for each in earlier for owned in database.owned(each.id))
        for each in earlier:
            if each.live:
                database.leases[each.id] = replace(each, ended_at=now, ended_for="superseded")
        number = 1 + max((each.incarnation for each in earlier), default=0)
        opened = replace(lease, incarnation=number, started_at=now, renewed_at=now)
        database.leases[opened.id] = opened
        database.boots[lease.worker_id, boot] = opened.id
        return opened, orphaned

    async def beat(
        self, lease_id: LeaseId, organization_id: OrganizationId, incarnation: int, number: int
    ) -> Beat | None:
        def work() -> Beat | None:
            lease = self.database.leases.get(lease_id)
            if lease is None or not lease.live or lease.incarnation != incarnation:
                return None
            fresh = number > lease.heartbeat
            if fresh:
                lease = replace(lease, heartbeat=number, renewed_at=self.database.now())
                self.database.leases[lease_id] = lease
            return Beat(lease, self.database.owned(lease_id), fresh)

        return await self._call("store.lease", work)

    async def lapsed(self, lease_seconds: float, limit: int) -> Sequence[Lapsed]:
        def work() -> Sequence[Lapsed]:
            return [
                Lapsed(lease.id, lease.worker_id, lease.organization_id)
                for lease in self.database.leases.values()
                if (self._not_renewed(lease, lease_seconds) if lease.live else self.database.owned(lease.id))
            ][:limit]

        return await self._call("store.read", work)

    def _not_renewed(self, lease: Lease, seconds: float) -> bool:
        now = self.database.now()
        since = max(lease.renewed_at, self.database.resumed_at or lease.renewed_at)
        return now - since > timedelta(seconds=seconds) and not self.database.gap(now)

    async def end_lease(self, lapsed: Lapsed, why: str, if_not_renewed_for: float | None) -> Ended:
        def work() -> Ended:
            lease_id = lapsed.lease_id
            lease = self.database.leases.get(lease_id)
            if lease is None:
                return Ended()
            if lease.live and if_not_renewed_for is not None and not self._not_renewed(lease, if_not_renewed_for):
                return Ended()
            if lease.live:
                self.database.leases[lease_id] = replace(lease, ended_at=self.database.now(), ended_for=why)
            return Ended(self.database.owned(lease_id), now=lease.live)

        return await self._call("store.lease", work)

    async def tick(self) -> datetime:
        def work() -> datetime:
            database = self.database
            now = database.now()
            if gap := database.gap(now):
                database.lost += gap
                database.resumed_at = now
            database.alive_at = now
            return now

        return await self._call("store.lease", work)

    async def _call(self, port: str, work: Callable[[], T]) -> T:
        def work_if_up() -> T:
            if not self.database.up:
                raise Unavailable(AWAY)
            return work()

        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                return await self.line.call(port, work_if_up)
        except TimeoutError as error:
            raise Unavailable(f"{port} gave no answer in time") from error


def _in_turns(found: Iterable[Job]) -> list[Candidate]:
    """Of each organization the one that has been due for longest first, then each one's second."""
    turns: dict[OrganizationId, int] = {}
    numbered = []
    for job in sorted(found, key=lambda job: (job.not_before or job.created_at, job.id)):
        turn = turns[job.organization_id] = turns.get(job.organization_id, 0) + 1
        numbered.append((turn, job.id, _candidate(job)))
    return [candidate for *_, candidate in sorted(numbered, key=lambda one: one[:2])]


def _candidate(job: Job) -> Candidate:
    return Candidate(job.organization_id, job.instance_id, job.id, job.fence)


def _deadlines(job: Job) -> Iterable[datetime | None]:
    yield job.unwind_deadline if job.state is JobState.UNWINDING else job.deadline
    for step in job.steps:
        yield step.attempt_deadline if step.outstanding and job.owned else None

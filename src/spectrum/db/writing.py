"""What a fold decided, written: one statement a table, whatever the number of commands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from spectrum.core import ids
from spectrum.core.breakers import Breaker
from spectrum.core.errors import Problem
from spectrum.core.events.catalogue import type_of
from spectrum.core.ids import TargetId
from spectrum.core.jobs.commands import Closing, Entry, Repeated
from spectrum.core.jobs.model import Attempt, Effect, Instance, Job, Step
from spectrum.core.jobs.store import Batch, Folded, Keyed, Loaded, Written
from spectrum.core.jobs.table import Lifecycle
from spectrum.db import rows
from spectrum.db.pools import SET_SCOPE, Connection
from spectrum.db.rows import arrays
from spectrum.db.sql import query

_LEASE_CLAIMED = query("lease_claimed")
_INSTANCES_INSERT = query("instances_insert")
_TARGETS_REMOVED = query("targets_removed")
_INSTANCES_UPDATE = query("instances_update")
_PLACEMENTS_INSERT = query("placements_insert")
_JOBS_INSERT = query("jobs_insert")
_JOBS_UPDATE = query("jobs_update")
_STEPS_INSERT = query("steps_insert")
_STEPS_UPDATE = query("steps_update")
_EFFECTS_DELETE = query("effects_delete")
_EFFECTS_UPSERT = query("effects_upsert")
_ATTEMPTS_OPEN = query("attempts_open")
_ATTEMPTS_CLOSE = query("attempts_close")
_SECRETS_INSERT = query("secrets_insert")
_SECRETS_DELETE = query("secrets_delete")
_KEYS_REMEMBER = query("keys_remember")
_BREAKERS_KEEP = query("breakers_keep")
_EVENTS_APPEND = query("events_append")
_AUDIT_APPEND = query("audit_append")


async def write(connection: Connection, batch: Batch, loaded: Loaded, folded: Folded) -> None:
    """Write everything, in the order of the locks: lease, instances, jobs, keys, events."""
    if folded.lease is not None:
        answer = [list(pair) for pair in folded.lease.claim_answer]
        await connection.execute(_LEASE_CLAIMED, folded.lease.id, folded.lease.claim, answer)
    if folded.written:
        await _Writing(connection, batch, loaded, list(folded.written.values())).all()
    if folded.remember:
        await _remember(connection, batch, loaded.now, folded.remember)
    if folded.breakers:
        await _breakers(connection, loaded, folded)
    if folded.evidence:
        await _evidence(connection, batch, loaded.now, folded)


@dataclass
class _Writing:
    connection: Connection
    batch: Batch
    loaded: Loaded
    written: Sequence[Written]

    @property
    def now(self) -> datetime:
        return self.loaded.now

    async def all(self) -> None:
        await self._instances()
        await self._jobs()
        await self._steps()
        await self._effects()
        await self._attempts()
        await self._secrets()
        await self._log()

    async def _many(self, text: str, items: Sequence[Any], columns: Iterable[Any], *rest: Any) -> None:
        if items:
            await self.connection.execute(text, *arrays(items, columns), *rest)

    # ---- rows of the aggregates

    async def _instances(self) -> None:
        new = [replace(w.after.instance, created_at=self.now) for w in self.written if w.before is None]
        changed = [w.after.instance for w in self.written if _instance_changed(w)]
        # An instance refers to its active job, and a job to its instance: the first is looked at when the transaction ends.
        await self._many(_INSTANCES_INSERT, new, rows.INSTANCES_INSERT)
        if new:
            await self._refuse_removed_targets(new)
        await self._many(_INSTANCES_UPDATE, changed, rows.INSTANCES_UPDATE)
        place = (lambda i: i.placement_id, lambda i: i.organization_id, lambda i: i.id, lambda i: i.target_id)
        await self._many(_PLACEMENTS_INSERT, new, place, self.now)

    async def _refuse_removed_targets(self, new: Sequence[Instance]) -> None:
        """A target can be removed between its choice and this moment; the insert has waited for that."""
        targets = sorted({instance.target_id for instance in new})
        removed = await self.connection.fetchrow(_TARGETS_REMOVED, targets)
        if removed is not None:
            raise Problem("not-allowed-now", f"The target {removed['name']} was removed meanwhile. Choose another one.")

    def _changed_jobs(self) -> Iterator[tuple[Job | None, Job, Written]]:
        for written in self.written:
            before = written.before.jobs if written.before else {}
            for job in written.after.jobs.values():
                if before.get(job.id) is not job:
                    yield before.get(job.id), job, written

    async def _jobs(self) -> None:
        commands = {getattr(asked.command, "job_id", ""): asked.command.id for asked in self.batch.asked}
        changed = list(self._changed_jobs())
        new = [(job, w.after.instance, commands.get(job.id, job.id)) for before, job, w in changed if before is None]
        await self._many(_JOBS_INSERT, new, rows.JOBS_INSERT)
        await self._many(_JOBS_UPDATE, [job for _, job, _ in changed], rows.JOBS_UPDATE)

    async def _steps(self) -> None:
        planned: list[tuple[Step, Job]] = []
        moved: list[Step] = []
        for before, job, _ in self._changed_jobs():
            known = {step.id: step for step in before.steps} if before else {}
            planned += [(step, job) for step in job.steps if step.id not in known]
            moved += [step for step in job.steps if step.id in known and known[step.id] is not step]
        await self._many(_STEPS_INSERT, planned, rows.STEPS_INSERT)
        await self._many(_STEPS_UPDATE, moved, rows.STEPS_UPDATE)

    async def _effects(self) -> None:
        gone: list[Effect] = []
        changed: list[tuple[Effect, Instance]] = []
        for written in self.written:
            before = written.before.effects if written.before else {}
            after = written.after.effects
            gone += [effect for place, effect in before.items() if place not in after]
            changed += [
                (effect, written.after.instance) for place, effect in after.items() if before.get(place) is not effect
            ]
        await self._many(_EFFECTS_DELETE, gone, (lambda e: e.placement_id, lambda e: e.slot, lambda e: e.key))
        await self._many(_EFFECTS_UPSERT, changed, rows.EFFECTS_UPSERT, self.now)

    # ---- what follows

    async def _attempts(self) -> None:
        opened = [(a, w.after.instance) for w in self.written for c in w.consequences for a in c.opened]
        await self._many(_ATTEMPTS_OPEN, opened, _ATTEMPT_COLUMNS)
        closed = list(self._closings())
        await self._many(_ATTEMPTS_CLOSE, closed, _CLOSING_COLUMNS)

    def _closings(self) -> Iterator[tuple[Closing, str]]:
        for written in self.written:
            jobs = {step.id: job.id for job in written.after.jobs.values() for step in job.steps}
            for consequences in written.consequences:
                yield from ((closing, jobs[closing.step_id]) for closing in consequences.closed)  # type: ignore[index]

    async def _secrets(self) -> None:
        new = [(secret, w.after.instance) for w in self.written for c in w.consequences for secret in c.secrets]
        columns = (
            lambda r: r[1].id,
            lambda r: r[0].name,
            lambda r: r[0].version,
            lambda r: r[1].organization_id,
            lambda r: r[0].ciphertext,
            lambda r: r[0].key_id,
        )
        await self._many(_SECRETS_INSERT, new, columns, self.now)
        purged = [w.after.instance.id for w in self.written if w.after.instance.lifecycle is Lifecycle.PURGED]
        if purged:
            await self.connection.execute(_SECRETS_DELETE, purged)

    async def _log(self) -> None:
        facts = [
            (fact, w.after.instance, self.loaded.around[w.after.instance.id].epoch)
            for w in self.written
            for c in w.consequences
            for fact in c.facts
        ]
        columns = (
            lambda r: _event_id(self.now, r[0].subject, r[0].sequence),
            lambda r: r[1].organization_id,
            lambda r: r[2],
            lambda r: r[0].subject,
            lambda r: r[0].sequence,
            lambda r: type_of(r[0].type),
            lambda r: dict(r[0].data),
        )
        await self._many(_EVENTS_APPEND, facts, columns, self.now)
        entries = [
            (entry, w.after.instance.organization_id, f"{w.after.instance.id}/{w.after.instance.version}")
            for w in self.written
            for c in w.consequences
            for entry in c.entries
        ]
        await _append_audit(self.connection, self.now, entries)


def _instance_changed(written: Written) -> bool:
    return written.before is not None and written.before.instance is not written.after.instance


_ATTEMPT_COLUMNS: tuple[rows.Column[tuple[Attempt, Instance]], ...] = (
    lambda r: r[0].job_id,
    lambda r: r[0].step_id,
    lambda r: r[0].number,
    lambda r: r[1].organization_id,
    lambda r: r[0].phase,
    lambda r: r[0].cause,
    lambda r: r[0].fence,
    lambda r: r[0].token,
    lambda r: r[0].worker_id,
    lambda r: r[0].outcome,
    lambda r: rows.failure_json(r[0].failure),
    lambda r: r[0].intent_at,
    lambda r: r[0].outcome_at,
)

_CLOSING_COLUMNS: tuple[rows.Column[tuple[Closing, str]], ...] = (
    lambda r: r[1],
    lambda r: r[0].step_id,
    lambda r: r[0].number,
    lambda r: r[0].outcome,
    lambda r: r[0].at,
    lambda r: rows.failure_json(r[0].failure),
)


def _event_id(now: datetime, subject: str, sequence: int) -> str:
    """Derived from what the event is about, so that a batch that is run again writes the same ids."""
    return ids.make("evt", now, hashlib.sha256(f"{subject}/{sequence}".encode()).digest())


def _audit_id(now: datetime, seed: str, number: int) -> str:
    return ids.make("aud", now, hashlib.sha256(f"{seed}/{number}/{now.isoformat()}".encode()).digest())


async def _append_audit(connection: Connection, now: datetime, entries: Sequence[tuple[Entry, str, str]]) -> None:
    if not entries:
        return
    columns = (
        lambda r: _audit_id(now, f"{r[1][2]}/{r[1][0].action}/{r[1][0].subject}", r[0]),
        lambda r: r[1][1],
        lambda r: r[1][0].actor,
        lambda r: r[1][0].action,
        lambda r: r[1][0].subject,
        lambda r: dict(r[1][0].detail),
    )
    await connection.execute(_AUDIT_APPEND, *arrays(list(enumerate(entries)), columns), now)


async def _breakers(connection: Connection, loaded: Loaded, folded: Folded) -> None:
    """A shared target's breaker is the platform's: the scope is widened by whose the targets are."""
    owners = {
        w.after.instance.target_id: loaded.around[w.after.instance.id].target_organization
        for w in folded.written.values()
    }
    organizations = {w.after.instance.organization_id for w in folded.written.values()} | set(owners.values())
    await connection.execute(SET_SCOPE, sorted(organizations))
    columns: tuple[rows.Column[tuple[TargetId, Breaker]], ...] = (
        lambda r: r[0],
        lambda r: owners[r[0]],
        lambda r: r[1].state,
        lambda r: r[1].failures,
        lambda r: r[1].openings,
        lambda r: r[1].opened_at,
        lambda r: r[1].retry_at,
    )
    await connection.execute(_BREAKERS_KEEP, *arrays(list(folded.breakers.items()), columns), loaded.now)


async def _evidence(connection: Connection, batch: Batch, now: datetime, folded: Folded) -> None:
    """What was refused leaves its trace too."""
    refused = set(map(id, folded.evidence))
    entries = [
        (entry, asked.command.organization_id, asked.command.id)
        for asked, result in zip(batch.asked, folded.results, strict=True)
        if id(result) in refused
        for entry in getattr(result, "entries", ())
    ]
    await _append_audit(connection, now, entries)


async def _remember(connection: Connection, batch: Batch, now: datetime, answers: Mapping[int, Repeated]) -> None:
    known: list[tuple[Keyed, Repeated, str]] = []
    for position, answer in answers.items():
        asked = batch.asked[position]
        if asked.keyed is not None:
            known.append((asked.keyed, answer, asked.command.id))
    columns = (
        lambda r: r[0].organization_id,
        lambda r: r[0].method,
        lambda r: r[0].path,
        lambda r: r[0].key,
        lambda r: r[0].request_digest,
        lambda r: r[2],
        lambda r: r[1].status,
        lambda r: r[1].location,
        lambda r: dict(r[1].body),
    )
    await connection.execute(_KEYS_REMEMBER, *arrays(known, columns), now)

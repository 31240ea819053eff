"""What a fold decided, written: as few statements as can be, whatever the number of commands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from spectrum.core import ids
from spectrum.core.breakers import Breaker
from spectrum.core.events.catalogue import type_of
from spectrum.core.ids import TargetId
from spectrum.core.jobs.commands import Closing, Entry, Repeated
from spectrum.core.jobs.model import Attempt, Effect, Instance, Job, Step
from spectrum.core.jobs.store import Batch, Folded, Keyed, Loaded, TargetRemoved, Written
from spectrum.core.jobs.table import Lifecycle
from spectrum.db import rows
from spectrum.db.losses import Overtaken
from spectrum.db.pools import SET_SCOPE, Connection
from spectrum.db.rows import arrays
from spectrum.db.sql import query, together

_LEASE_CLAIMED = query("lease_claimed")
_INSTANCES_INSERT = query("instances_insert")
_TARGETS_REMOVED = query("targets_removed")
_INSTANCES_UPDATE = query("instances_update")
_INSTANCES_MOVE = query("instances_move")
_PLACEMENTS_INSERT = query("placements_insert")
_JOBS_INSERT = query("jobs_insert")
_JOBS_UPDATE = query("jobs_update")
_JOBS_MOVE = query("jobs_move")
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


_AuditRow = tuple[Entry, str, str]  # with whose it is, and what its id is derived from


async def write(connection: Connection, batch: Batch, loaded: Loaded, folded: Folded) -> None:
    """Write everything: what is new and what others refer to first, then the rest in one statement."""
    writing = _Writing(batch, loaded, list(folded.written.values()))
    for text, arguments in writing.new_rows():
        await connection.execute(text, *arguments)
    if new := writing.new_instances():
        await _refuse_removed_targets(connection, new)
    moves = _Statements()
    if folded.lease is not None:
        answer = [list(pair) for pair in folded.lease.claim_answer]
        moves.add(_LEASE_CLAIMED, folded.lease.id, folded.lease.claim, answer)
    writing.move(moves)
    _remember(moves, batch, loaded.now, folded.remember)
    moves.many(_AUDIT_APPEND, [*writing.entries(), *_evidence(batch, folded)], _audit_columns(loaded.now), loaded.now)
    await moves.execute(connection)
    if folded.breakers:
        await _breakers(connection, loaded, folded)
    if purged := writing.purged():
        await connection.execute(_SECRETS_DELETE, purged)


@dataclass
class _Statements:
    """Statements that are carried out as one: none of them sees what another does, so no two may touch the same row."""

    texts: list[str] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)

    def add(self, text: str, *arguments: Any) -> None:
        self.texts.append(text)
        self.arguments.extend(arguments)

    def many(self, text: str, items: Iterable[Any], columns: Iterable[Any], *rest: Any) -> None:
        """One that writes a row for each of the items; none where there are none."""
        if found := list(items):
            self.add(text, *arrays(found, columns), *rest)

    async def execute(self, connection: Connection) -> None:
        if self.texts:
            await connection.execute(together(tuple(self.texts)), *self.arguments)


@dataclass
class _Writing:
    batch: Batch
    loaded: Loaded
    written: Sequence[Written]

    @property
    def now(self) -> datetime:
        return self.loaded.now

    def new_instances(self) -> list[Instance]:
        return [w.after.instance for w in self.written if w.before is None]

    def new_rows(self) -> Iterator[tuple[str, list[Any]]]:
        """Statements one after the other, since each refers to the rows of the one before it."""
        if new := self.new_instances():
            # An instance refers to its active job, and a job to its instance: the first is looked at when the transaction ends.
            yield _INSTANCES_INSERT, arrays(new, rows.INSTANCES_INSERT)
            place = (lambda i: i.placement_id, lambda i: i.organization_id, lambda i: i.id, lambda i: i.target_id)
            yield _PLACEMENTS_INSERT, [*arrays(new, place), self.now]
        commands = {getattr(asked.command, "job_id", ""): asked.command.id for asked in self.batch.asked}
        changed = self._changed_jobs()
        jobs = [(job, w.after.instance, commands.get(job.id, job.id)) for before, job, w in changed if before is None]
        if jobs:
            yield _JOBS_INSERT, arrays(jobs, rows.JOBS_INSERT)

    def move(self, moves: _Statements) -> None:
        """What becomes of rows that are there, and what is added to them."""
        self._instances(moves)
        self._jobs(moves)
        self._steps(moves)
        self._effects(moves)
        self._attempts(moves)
        self._secrets(moves)
        self._facts(moves)

    def purged(self) -> list[str]:
        return [w.after.instance.id for w in self.written if w.after.instance.lifecycle is Lifecycle.PURGED]

    # ---- rows of the aggregates

    def _instances(self, moves: _Statements) -> None:
        known = [(w.before.instance, w.after.instance) for w in self.written if w.before is not None]
        moved: dict[bool, list[Instance]] = {False: [], True: []}
        for before, after in known:
            if before is not after:
                moved[rows.instance_only_moved(before, after)].append(after)
        moves.many(_INSTANCES_UPDATE, moved[False], rows.INSTANCES_UPDATE)
        moves.many(_INSTANCES_MOVE, moved[True], rows.INSTANCES_MOVE)

    def _jobs(self, moves: _Statements) -> None:
        moved: dict[bool, list[Job]] = {False: [], True: []}
        for before, after, _ in self._changed_jobs():
            moved[rows.job_only_moved(before, after)].append(after)
        moves.many(_JOBS_UPDATE, moved[False], rows.JOBS_UPDATE)
        moves.many(_JOBS_MOVE, moved[True], rows.JOBS_MOVE)

    def _changed_jobs(self) -> Iterator[tuple[Job | None, Job, Written]]:
        for written in self.written:
            before = written.before.jobs if written.before else {}
            for job in written.after.jobs.values():
                if before.get(job.id) is not job:
                    yield before.get(job.id), job, written

    def _steps(self, moves: _Statements) -> None:
        planned: list[tuple[Step, Job]] = []
        moved: list[Step] = []
        for before, job, _ in self._changed_jobs():
            known = {step.id: step for step in before.steps} if before else {}
            planned += [(step, job) for step in job.steps if step.id not in known]
            moved += [step for step in job.steps if step.id in known and known[step.id] is not step]
        moves.many(_STEPS_INSERT, planned, rows.STEPS_INSERT)
        moves.many(_STEPS_UPDATE, moved, rows.STEPS_UPDATE)

    def _effects(self, moves: _Statements) -> None:
        gone: list[Effect] = []
        changed: list[tuple[Effect, Instance]] = []
        for written in self.written:
            before = written.before.effects if written.before else {}
            after = written.after.effects
            gone += [effect for place, effect in before.items() if place not in after]
            changed += [
                (effect, written.after.instance) for place, effect in after.items() if before.get(place) is not effect
            ]
        moves.many(_EFFECTS_DELETE, gone, (lambda e: e.placement_id, lambda e: e.slot, lambda e: e.key))
        moves.many(_EFFECTS_UPSERT, changed, rows.EFFECTS_UPSERT, self.now)

    # ---- what follows

    def _attempts(self, moves: _Statements) -> None:
        """An attempt that was opened and closed in one flush is one row."""
        opened = {
            (a.step_id, a.number): (a, w.after.instance) for w in self.written for c in w.consequences for a in c.opened
        }
        before: list[tuple[Closing, str]] = []
        for closing, job_id in self._closings():
            place = (closing.step_id, closing.number)
            if place not in opened:
                before.append((closing, job_id))
            elif (attempt := opened[place][0]).outcome is None:
                ended = replace(attempt, outcome=closing.outcome, outcome_at=closing.at, failure=closing.failure)
                opened[place] = (ended, opened[place][1])
        moves.many(_ATTEMPTS_OPEN, opened.values(), _ATTEMPT_COLUMNS)
        moves.many(_ATTEMPTS_CLOSE, before, _CLOSING_COLUMNS)

    def _closings(self) -> Iterator[tuple[Closing, str]]:
        for written in self.written:
            if closed := [closing for consequences in written.consequences for closing in consequences.closed]:
                jobs = {step.id: job.id for job in written.after.jobs.values() for step in job.steps}
                yield from ((closing, jobs[closing.step_id]) for closing in closed)  # type: ignore[index]

    def _secrets(self, moves: _Statements) -> None:
        new = [(secret, w.after.instance) for w in self.written for c in w.consequences for secret in c.secrets]
        columns = (
            lambda r: r[1].id,
            lambda r: r[0].name,
            lambda r: r[0].version,
            lambda r: r[1].organization_id,
            lambda r: r[0].ciphertext,
            lambda r: r[0].key_id,
        )
        moves.many(_SECRETS_INSERT, new, columns, self.now)

    def _facts(self, moves: _Statements) -> None:
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
            lambda r: r[0].traceparent,
        )
        moves.many(_EVENTS_APPEND, facts, columns, self.now)

    def entries(self) -> Iterator[_AuditRow]:
        for w in self.written:
            seed = f"{w.after.instance.id}/{w.after.instance.version}"
            for number, entry in enumerate(entry for c in w.consequences for entry in c.entries):
                yield entry, w.after.instance.organization_id, f"{seed}/{number}"


async def _refuse_removed_targets(connection: Connection, new: Sequence[Instance]) -> None:
    """A target can be removed between its choice and this moment; the insert has waited for that."""
    targets = sorted({instance.target_id for instance in new})
    removed = await connection.fetchrow(_TARGETS_REMOVED, targets)
    if removed is not None:
        raise TargetRemoved(
            "not-allowed-now", f"The target {removed['name']} was removed meanwhile. Choose another one."
        )


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


def _audit_id(now: datetime, seed: str) -> str:
    return ids.make("aud", now, hashlib.sha256(f"{seed}/{now.isoformat()}".encode()).digest())


def _audit_columns(now: datetime) -> tuple[rows.Column[_AuditRow], ...]:
    return (
        lambda r: _audit_id(now, f"{r[2]}/{r[0].action}/{r[0].subject}"),
        lambda r: r[1],
        lambda r: r[0].actor,
        lambda r: r[0].action,
        lambda r: r[0].subject,
        lambda r: dict(r[0].detail),
    )


async def _breakers(connection: Connection, loaded: Loaded, folded: Folded) -> None:
    """A shared target's breaker is the platform's: the scope is widened by whose the targets are.

    Raises `Overtaken` where another transaction has changed one since it was read: what was decided by it may not hold.
    """
    places = [w.after.instance for w in folded.written.values()]
    around = {instance.target_id: loaded.around[instance.id] for instance in places}
    organizations = {i.organization_id for i in places} | {each.target_organization for each in around.values()}
    await connection.execute(SET_SCOPE, sorted(organizations))
    columns: tuple[rows.Column[tuple[TargetId, Breaker]], ...] = (
        lambda r: r[0],
        lambda r: around[r[0]].target_organization,
        lambda r: r[1].state,
        lambda r: r[1].failures,
        lambda r: r[1].openings,
        lambda r: r[1].opened_at,
        lambda r: r[1].retry_at,
        lambda r: r[1].probe,
        lambda r: around[r[0]].breaker.version,
    )
    changed = list(folded.breakers.items())
    if await connection.fetchval(_BREAKERS_KEEP, *arrays(changed, columns), loaded.now) < len(changed):
        raise Overtaken


def _evidence(batch: Batch, folded: Folded) -> Iterator[_AuditRow]:
    """What was refused leaves its trace too."""
    refused = set(map(id, folded.evidence))
    for place, (asked, result) in enumerate(zip(batch.asked, folded.results, strict=True)):
        if id(result) in refused:
            for number, entry in enumerate(getattr(result, "entries", ())):
                yield entry, asked.command.organization_id, f"{asked.command.id}/{place}/{number}"


def _remember(moves: _Statements, batch: Batch, now: datetime, answers: Mapping[int, Repeated]) -> None:
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
    moves.many(_KEYS_REMEMBER, known, columns, now)

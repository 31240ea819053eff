"""How instances, jobs, steps and leases become rows, and rows become them again, with what surrounds them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, TypeVar

import asyncpg

from spectrum.core.breakers import Breaker, BreakerState
from spectrum.core.errors import Failure
from spectrum.core.ids import PlacementId
from spectrum.core.jobs.model import Effect, Instance, Job, Lease, Numbered, Owner, Spec, Step, Surroundings, Waiting
from spectrum.core.jobs.table import (
    SATISFIED,
    Health,
    Hold,
    JobState,
    Lifecycle,
    Phase,
    Reason,
    StepState,
    WaitsFor,
    Wants,
)

T = TypeVar("T")
Row = asyncpg.Record
Column = Callable[[T], Any]


def arrays(items: Sequence[T], columns: Iterable[Column[T]]) -> list[list[Any]]:
    """The columns of some rows, each as one array: what `unnest` takes."""
    return [[column(item) for item in items] for column in columns]


# ---- reading


def instance_of(row: Row, placement_id: str) -> Instance:
    return Instance(
        id=row["id"],
        organization_id=row["organization_id"],
        name=row["name"],
        target_id=row["target_id"],
        pool_id=row["pool_id"],
        placement_id=PlacementId(placement_id),
        requested=Spec.from_json(row["requested"]),
        labels=row["labels"],
        accepted=Spec.from_json(row["accepted"]) if row["accepted"] else None,
        generation=row["generation"],
        accepted_generation=row["accepted_generation"],
        rejected_generation=row["rejected_generation"],
        lifecycle=Lifecycle(row["lifecycle"]),
        hold=Hold(row["hold"]),
        health=Health(row["health"]),
        health_since=row["health_since"],
        health_seen=Health(row["health_seen"]) if row["health_seen"] else None,
        health_streak=row["health_streak"],
        counter=row["counter"],
        job_counter=row["job_counter"],
        event_sequence=row["event_sequence"],
        active_job_id=row["active_job_id"],
        version=row["version"],
        slot_numbers=row["slot_numbers"],
        facts=row["facts"],
        outputs=row["outputs"],
        services=tuple(row["services"]),
        conditions=tuple(row["conditions"]),
        observed_at=row["observed_at"],
        deleted_at=row["deleted_at"],
        purge_at=row["purge_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def job_of(row: Row, steps: tuple[Step, ...]) -> Job:
    return Job(
        id=row["id"],
        organization_id=row["organization_id"],
        instance_id=row["instance_id"],
        operation=row["operation"],
        operation_version=row["operation_version"],
        number=row["number"],
        generation=row["generation"],
        pool_id=row["pool_id"],
        deadline=row["deadline"],
        created_at=row["created_at"],
        parameters=row["parameters"],
        spec=Spec.from_json(row["spec"]) if row["spec"] else None,
        actor=row["actor"],
        traceparent=row["traceparent"],
        parent_id=row["parent_id"],
        front=row["front"],
        state=JobState(row["state"]),
        version=row["version"],
        fence=row["fence"],
        owner=_owner_of(row),
        not_before=row["not_before"],
        rescues=row["rescues"],
        alone=row["alone"],
        last_report=Numbered(row["report_fence"], row["report_number"]),
        reason=Reason(row["reason"]) if row["reason"] else None,
        failure=failure_of(row["failure"]),
        residue=tuple(row["residue"]),
        baseline=row["baseline"],
        plan_hash=row["plan_hash"],
        unwind_seconds=row["unwind_seconds"],
        unwind_deadline=row["unwind_deadline"],
        lost_before=row["lost_before"],
        waiting=_waiting_of(row),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        steps=steps,
    )


def _owner_of(row: Row) -> Owner | None:
    if row["lease_id"] is None:
        return None
    return Owner(row["lease_id"], row["worker_id"], row["incarnation"], row["claim_number"])


def _waiting_of(row: Row) -> Waiting | None:
    if row["waiting_for"] is None:
        return None
    return Waiting(
        WaitsFor(row["waiting_for"]),
        row["waiting_since"],
        row["waiting_until"],
        row["waiting_holder"],
        row["waiting_unblock"],
    )


def failure_of(data: Mapping[str, Any] | None) -> Failure | None:
    return Failure.from_json(data) if data else None


def step_of(row: Row) -> Step:
    return Step(
        id=row["id"],
        name=row["name"],
        position=row["position"],
        action=row["action"],
        needs=tuple(row["needs"]),
        arguments=row["arguments"],
        slot=row["slot"],
        wants=Wants(row["wants"]),
        irreversible=row["irreversible"],
        destructive=row["destructive"],
        tries_allowed=row["tries_allowed"],
        attempt_seconds=row["attempt_seconds"],
        step_seconds=row["step_seconds"],
        retry_cap=row["retry_cap"],
        state=StepState(row["state"]),
        phase=Phase(row["phase"]),
        effect_key=row["effect_key"],
        attempt=row["attempt"],
        token=row["token"],
        tries=row["tries"],
        undo_tries=row["undo_tries"],
        touched=row["touched"],
        outstanding=row["outstanding"],
        retry_at=row["retry_at"],
        attempt_deadline=row["attempt_deadline"],
        deadline=row["deadline"],
        failure=failure_of(row["failure"]),
        output=row["output"],
    )


def effect_of(row: Row) -> Effect:
    return Effect(
        row["placement_id"],
        row["slot"],
        row["effect_key"],
        row["wanted"] == "present",
        row["proven"],
        row["fence"],
        row["token"],
        row["replaced"],
    )


def lease_of(row: Row) -> Lease:
    return Lease(
        id=row["id"],
        worker_id=row["worker_id"],
        organization_id=row["organization_id"],
        pool_id=row["pool_id"],
        incarnation=row["incarnation"],
        started_at=row["started_at"],
        renewed_at=row["renewed_at"],
        heartbeat=row["heartbeat_number"],
        claim=row["claim_number"],
        claim_answer=tuple((job_id, fence) for job_id, fence in row["claim_answer"]),
        ended_at=row["ended_at"],
        ended_for=row["end_reason"] or "",
    )


def surroundings_of(row: Row, now: datetime) -> Surroundings:
    return Surroundings(
        now=now,
        epoch=row["epoch"],
        lost=row["lost"] or timedelta(0),
        braked=row["brake"] or "",
        target_url=row["url"],
        target_organization=row["target_organization"],
        breaker=_breaker_of(row),
    )


def _breaker_of(row: Row) -> Breaker:
    if row["breaker_state"] is None:
        return Breaker()
    state = BreakerState(row["breaker_state"])
    known = (row["failures"], row["openings"], row["opened_at"], row["retry_at"], row["probe_holder"])
    return Breaker(state, *known, version=row["breaker_version"])


# ---- writing: columns in the order in which the named query takes them. A list goes as text: arrays of arrays are flattened.


def failure_json(failure: Failure | None) -> Mapping[str, Any] | None:
    return failure.as_json() if failure else None


def _purged_at(instance: Instance) -> datetime | None:
    return instance.updated_at if instance.lifecycle is Lifecycle.PURGED else None


# What the insert and the update of an instance write alike, in stretches that lie together in both.
_INSTANCE_STATE: tuple[Column[Instance], ...] = (
    lambda i: i.requested.desired_state,
    lambda i: i.lifecycle,
    lambda i: i.hold,
    lambda i: i.health,
    lambda i: i.generation,
    lambda i: i.accepted_generation,
    lambda i: i.rejected_generation,
    lambda i: i.requested.as_json(),
    lambda i: i.accepted.as_json() if i.accepted else None,
    lambda i: i.counter,
    lambda i: i.job_counter,
    lambda i: i.event_sequence,
    lambda i: i.active_job_id,
    lambda i: i.version,
    lambda i: dict(i.slot_numbers),
    lambda i: dict(i.facts),
    lambda i: dict(i.outputs),
    lambda i: json.dumps(list(i.services)),
    lambda i: json.dumps(list(i.conditions)),
    lambda i: i.observed_at,
)
_INSTANCE_MOMENTS: tuple[Column[Instance], ...] = (
    lambda i: i.updated_at,
    lambda i: i.deleted_at,
    lambda i: i.purge_at,
    _purged_at,
)

INSTANCES_INSERT: tuple[Column[Instance], ...] = (
    lambda i: i.id,
    lambda i: i.organization_id,
    lambda i: i.name,
    lambda i: i.requested.product,
    lambda i: i.requested.release_id,
    lambda i: i.requested.plan,
    lambda i: i.target_id,
    lambda i: i.pool_id,
    lambda i: dict(i.labels),
    *_INSTANCE_STATE,
    lambda i: i.created_at,
    *_INSTANCE_MOMENTS,
)

INSTANCES_UPDATE: tuple[Column[Instance], ...] = (
    lambda i: i.id,
    lambda i: i.requested.release_id,
    lambda i: i.requested.plan,
    *_INSTANCE_STATE,
    *_INSTANCE_MOMENTS,
    lambda i: i.health_since,
    lambda i: i.health_seen,
    lambda i: i.health_streak,
)

_MOVING = ("counter", "job_counter", "event_sequence", "active_job_id", "version", "updated_at")

INSTANCES_MOVE: tuple[Column[Instance], ...] = tuple(map(attrgetter, ("id", *_MOVING)))


def instance_only_moved(before: Instance, after: Instance) -> bool:
    """Whether `after`, which came of `before`, differs in nothing but what `instances_move` writes."""
    return _differ_only_in(_MOVING, before, after)


def _differ_only_in(names: Sequence[str], before: object, after: object) -> bool:
    was = vars(before)
    return all(value is was[name] or name in names for name, value in vars(after).items())


# A job is inserted as it was asked for; what planning made of it follows as an update. The target and the command come beside it.
JobRow = tuple[Job, Instance, str]

JOBS_INSERT: tuple[Column[JobRow], ...] = (
    lambda r: r[0].id,
    lambda r: r[0].organization_id,
    lambda r: r[0].instance_id,
    lambda r: r[1].target_id,
    lambda r: r[0].parent_id,
    lambda r: r[0].number,
    lambda r: r[0].front,
    lambda r: r[0].operation,
    lambda r: r[0].operation_version,
    lambda r: r[0].pool_id,
    lambda r: dict(r[0].parameters),
    lambda r: r[0].spec.as_json() if r[0].spec else None,
    lambda r: r[0].generation,
    lambda r: r[0].actor,
    lambda r: r[2],
    lambda r: r[0].traceparent,
    lambda r: r[0].deadline,
    lambda r: r[0].created_at,
)


def _steps_done(job: Job) -> int:
    return sum(step.state in SATISFIED for step in job.steps)


JOBS_UPDATE: tuple[Column[Job], ...] = (
    lambda j: j.id,
    lambda j: j.state,
    lambda j: j.version,
    lambda j: j.fence,
    lambda j: j.owner.lease_id if j.owner else None,
    lambda j: j.owner.worker_id if j.owner else None,
    lambda j: j.owner.incarnation if j.owner else None,
    lambda j: j.owner.claim if j.owner else None,
    lambda j: j.not_before,
    lambda j: j.rescues,
    lambda j: j.alone,
    lambda j: j.last_report.fence,
    lambda j: j.last_report.number,
    lambda j: j.reason,
    lambda j: failure_json(j.failure),
    lambda j: json.dumps(list(j.residue)),
    lambda j: dict(j.baseline),
    lambda j: j.plan_hash,
    _steps_done,
    lambda j: len(j.steps),
    lambda j: j.deadline,
    lambda j: j.unwind_seconds,
    lambda j: j.unwind_deadline,
    lambda j: j.lost_before,
    lambda j: j.waiting.what if j.waiting else None,
    lambda j: j.waiting.holder if j.waiting else None,
    lambda j: j.waiting.since if j.waiting else None,
    lambda j: j.waiting.until if j.waiting else None,
    lambda j: j.waiting.unblock if j.waiting else None,
    lambda j: j.started_at,
    lambda j: j.finished_at,
)

JOBS_MOVE: tuple[Column[Job], ...] = (
    lambda j: j.id,
    lambda j: j.version,
    lambda j: j.last_report.fence,
    lambda j: j.last_report.number,
    _steps_done,
)


def job_only_moved(before: Job | None, after: Job) -> bool:
    """Whether `after`, which came of `before`, differs in nothing but what `jobs_move` writes, and in its steps."""
    if before is None or len(before.steps) != len(after.steps):
        return False
    return _differ_only_in(("version", "last_report", "steps"), before, after)


StepRow = tuple[Step, Job]

STEPS_INSERT: tuple[Column[StepRow], ...] = (
    lambda r: r[0].id,
    lambda r: r[1].organization_id,
    lambda r: r[1].id,
    lambda r: r[0].position,
    lambda r: r[0].name,
    lambda r: r[0].action,
    lambda r: json.dumps(list(r[0].needs)),
    lambda r: dict(r[0].arguments),
    lambda r: r[0].slot,
    lambda r: r[0].wants,
    lambda r: r[0].irreversible,
    lambda r: r[0].destructive,
    lambda r: r[0].tries_allowed,
    lambda r: r[0].attempt_seconds,
    lambda r: r[0].step_seconds,
    lambda r: r[0].retry_cap,
    lambda r: r[0].state,
    lambda r: r[0].phase,
    lambda r: r[0].effect_key,
)

STEPS_UPDATE: tuple[Column[Step], ...] = (
    lambda s: s.id,
    lambda s: s.state,
    lambda s: s.phase,
    lambda s: s.effect_key,
    lambda s: s.attempt,
    lambda s: s.token,
    lambda s: s.tries,
    lambda s: s.undo_tries,
    lambda s: s.touched,
    lambda s: s.outstanding,
    lambda s: s.retry_at,
    lambda s: s.attempt_deadline,
    lambda s: s.deadline,
    lambda s: failure_json(s.failure),
    lambda s: dict(s.output),
)

EffectRow = tuple[Effect, Instance]

EFFECTS_UPSERT: tuple[Column[EffectRow], ...] = (
    lambda r: r[0].placement_id,
    lambda r: r[0].slot,
    lambda r: r[0].key,
    lambda r: r[1].organization_id,
    lambda r: r[1].id,
    lambda r: "present" if r[0].present else "absent",
    lambda r: r[0].proven,
    lambda r: r[0].replaced,
    lambda r: r[0].fence,
    lambda r: r[0].token,
)

"""A job as it is shown: its steps with every attempt, what it waits for, and in words why it is where it is (INTERFACES §2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never

from spectrum.core.errors import Failure
from spectrum.core.ids import StepId
from spectrum.core.jobs.model import Job, Step, Waiting
from spectrum.core.jobs.table import SATISFIED, JobState, Reason, StepState, WaitsFor
from spectrum.core.moments import stamp
from spectrum.core.plan import ready
from spectrum.db import rows
from spectrum.db.visits import Row

OPEN = (
    StepState.RUNNING,
    StepState.RETRYING,
    StepState.UNKNOWN,
    StepState.REPLACING,
    StepState.UNDOING,
    StepState.FAILED,
    StepState.UNDO_FAILED,
)
"""Steps in which something is to be told of a job that has not ended."""

Attempts = Mapping[StepId, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class JobView:
    """One execution of an operation. `lost` is the time so far in which deadlines on its target did not count."""

    job: Job
    subject: str  # the instance's name
    attempts: Attempts = field(default_factory=dict)
    lost: timedelta | None = None
    place: int | None = None  # in the queue, from 1

    def as_json(self) -> dict[str, Any]:
        job = self.job
        settled = [step for step in job.steps if step.state in SATISFIED]
        return {
            "id": job.id,
            "operation": job.operation,
            "operation_version": job.operation_version,
            "subject": {"type": "instance", "id": job.instance_id, "name": self.subject},
            "parent_id": job.parent_id,
            "generation": job.generation,
            "version": job.version,
            "state": job.state.value,
            "done": job.state.terminal,
            "fence": job.fence,
            "worker_id": job.owner.worker_id if job.owner else None,
            "waiting": waiting_json(job.waiting, self.place),
            "error": failure_json(job.failure),
            "residue": list(job.residue),
            "plan_hash": job.plan_hash or None,
            "progress": {"done": len(settled), "total": len(job.steps)},
            "deadline": stamp(self.deadline),
            "created_at": stamp(job.created_at),
            "started_at": stamp(job.started_at),
            "finished_at": stamp(job.finished_at),
            "steps": [self._step(step) for step in job.steps],
        }

    @property
    def deadline(self) -> datetime | None:
        """When the job really ends at the latest: time in which it could not go on does not count. None once it has ended."""
        job = self.job
        if job.state.terminal:
            return None
        return self.effective(job.unwind_deadline if job.state is JobState.UNWINDING else job.deadline)

    def effective(self, stored: datetime | None) -> datetime | None:
        if stored is None or self.lost is None:
            return stored
        return stored + (self.lost - self.job.lost_before)

    def _step(self, step: Step) -> dict[str, Any]:
        return {
            "id": step.id,
            "name": step.name,
            "needs": list(step.needs),
            "slot": step.slot,
            "state": step.state.value,
            "effect_key": step.effect_key,
            "deadline": stamp(self.effective(step.deadline)),
            "retry_at": stamp(step.retry_at),
            "attempts": list(self.attempts.get(step.id, ())),
        }


def job_views(found: Iterable[Row], steps: Iterable[Row], attempts: Iterable[Row]) -> list[JobView]:
    """From rows of `job_list`, with the steps and attempts of these jobs."""
    of_job: dict[str, list[Step]] = {}
    for row in steps:
        of_job.setdefault(row["job_id"], []).append(rows.step_of(row))
    of_step: dict[StepId, list[Mapping[str, Any]]] = {}
    for row in attempts:
        of_step.setdefault(row["step_id"], []).append(attempt_json(row))
    return [_view(row, of_job.get(row["id"], []), of_step) for row in found]


def _view(row: Row, steps: Sequence[Step], attempts: Attempts) -> JobView:
    job = rows.job_of(row, tuple(steps))
    place = row["place"] if job.state is JobState.WAITING else None
    return JobView(job, row["instance_name"], {s.id: attempts.get(s.id, ()) for s in steps}, row["lost"], place)


def attempt_json(row: Row) -> dict[str, Any]:
    return {
        "number": row["number"],
        "phase": row["phase"],
        "cause": row["cause"],
        "fence": row["fence"],
        "token": row["token"],
        "worker_id": row["worker_id"],
        "outcome": row["outcome"],
        "intent_at": stamp(row["intent_at"]),
        "outcome_at": stamp(row["outcome_at"]),
        "error": failure_json(rows.failure_of(row["failure"])),
    }


def failure_json(failure: Failure | None) -> dict[str, Any] | None:
    """What callers see of a failure; `detail` stays inside."""
    if failure is None:
        return None
    shown = ("class", "code", "actor", "message", "evidence", "next")
    return {key: value for key, value in failure.as_json().items() if key in shown}


def waiting_json(waiting: Waiting | None, place: int | None) -> dict[str, Any] | None:
    if waiting is None:
        return None
    return {
        "for": waiting.what.value,
        "holder": waiting.holder or None,
        "position": place,
        "since": stamp(waiting.since),
        "until": stamp(waiting.until),
        "unblock": waiting.unblock,
    }


# ---- why


@dataclass(frozen=True, slots=True)
class Brake:
    """What keeps every job in its reach from being claimed."""

    id: str
    reason: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Why:
    """Why a job is where it is: what it waits for, who could unblock it, and the open steps with their last errors (P20)."""

    view: JobView
    brake: Brake | None

    def as_json(self) -> dict[str, Any]:
        job = self.view.job
        return {
            "job_id": job.id,
            "operation": job.operation,
            "state": job.state.value,
            "done": job.state.terminal,
            "summary": self.summary(),
            "waiting": waiting_json(self._waiting(), self.view.place),
            "deadline": stamp(self.view.deadline),
            "error": failure_json(job.failure),
            "residue": list(job.residue),
            "steps": [self._open(step) for step in self._open_steps()],
        }

    def summary(self) -> str:
        """One or two sentences for people."""
        job = self.view.job
        match job.state:
            case JobState.WAITING:
                holder = f" behind {job.waiting.holder}" if job.waiting and job.waiting.holder else ""
                return f"It is number {self.view.place} in the queue of {self.view.subject}{holder}."
            case JobState.READY:
                return self._why_unclaimed()
            case JobState.RUNNING:
                return f"{self._holder()} works on it. {self._progress()}"
            case JobState.CANCELLING:
                return f"It is to be cancelled; {self._holder()} lets go of it at the next safe point."
            case JobState.UNWINDING:
                return f"It undoes what it did, because {self._reason()}. {self._progress()}"
            case JobState.SUCCEEDED:
                return "It has succeeded."
            case JobState.FAILED:
                left = f" It left behind: {', '.join(job.residue)}." if job.residue else ""
                return f"It has failed, because {self._reason()}.{left}"
            case JobState.CANCELLED:
                return f"It was cancelled, because {self._reason()}."
            case _:
                assert_never(job.state)

    def _waiting(self) -> Waiting | None:
        """What stands in the way now, where the row can't know it: a brake, or that every step that could run is tried later."""
        job = self.view.job
        if job.state is JobState.READY and self.brake is not None:
            until = self.brake.until or self.view.deadline or job.deadline
            unblock = "operator: release the brake"
            return Waiting(WaitsFor.BRAKE, self.brake.since, until, self.brake.id, unblock)
        if job.state is JobState.RUNNING and (retries := self._all_retrying()):
            last = [attempt["outcome_at"] for step in retries for attempt in self.view.attempts.get(step.id, ())]
            since = max((datetime.fromisoformat(moment) for moment in last if moment), default=job.created_at)
            until = min(step.retry_at for step in retries if step.retry_at)
            return Waiting(WaitsFor.RETRY, since, until, "", "nobody: it goes on by itself")
        return job.waiting

    def _all_retrying(self) -> list[Step]:
        """The steps that are tried again later, if nothing else is under way."""
        steps = self.view.job.steps
        later = [step for step in ready(steps) if step.retry_at is not None]
        busy = any(step.outstanding for step in steps) or len(later) < len(ready(steps))
        return [] if busy else later

    def _why_unclaimed(self) -> str:
        waiting = self.view.job.waiting
        if self.brake is not None:
            return f"The brake {self.brake.id} is on: {self.brake.reason}."
        if waiting is None or waiting.what is WaitsFor.WORKER:
            return "It is ready, and waits for a worker of its pool."
        return f"It waits for {waiting.what.value} until {waiting.until:%FT%TZ}."

    def _holder(self) -> str:
        owner = self.view.job.owner
        return f"Worker {owner.worker_id}" if owner else "Its worker"

    def _progress(self) -> str:
        if not (steps := self._open_steps()):
            return "No step is open."
        return " ".join(_told(step) for step in steps)

    def _reason(self) -> str:
        job = self.view.job
        if job.failure is not None:
            return job.failure.message.rstrip(".")
        if job.reason is Reason.CANCELLED:
            return "somebody asked for it"
        return str(job.reason or "of a reason that was not kept")

    def _open_steps(self) -> list[Step]:
        steps = self.view.job.steps
        if self.view.job.state.terminal:
            return [step for step in steps if step.failure is not None and step.state is not StepState.DONE]
        return [step for step in steps if step.state in OPEN]

    def _open(self, step: Step) -> dict[str, Any]:
        return {
            "name": step.name,
            "state": step.state.value,
            "attempts": step.attempt,
            "retry_at": stamp(step.retry_at),
            "deadline": stamp(self.view.effective(step.deadline)),
            "error": failure_json(step.failure),
        }


def _told(step: Step) -> str:
    again = f", tried again at {step.retry_at:%FT%TZ}" if step.retry_at else ""
    last = f"; last: {step.failure.message.rstrip('.')}" if step.failure else ""
    return f"Step {step.name} is {step.state.value} (attempt {step.attempt}){again}{last}."

"""One decision under way: a working copy of the aggregate, and what follows from it so far.

A `Turn` is local to one call of `decide`: the decision as a whole stays a pure function of aggregate, command and surroundings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from spectrum.core.errors import Problem
from spectrum.core.evolve import evolve
from spectrum.core.ids import JobId
from spectrum.core.jobs.commands import Closing, Command, Consequences, Entry, Fact, Hint, Holding, Secret
from spectrum.core.jobs.model import (
    EPOCH_SHIFT,
    Aggregate,
    Attempt,
    Effect,
    Instance,
    Job,
    Step,
    Surroundings,
    Waiting,
    keys_absent,
)
from spectrum.core.jobs.table import (
    ENDS_OWNERSHIP,
    JOBS,
    NEEDS_OWNERSHIP,
    STEPS,
    Case,
    JobState,
    JobTrigger,
    Ownership,
    Reason,
    StepCase,
    StepState,
    StepTrigger,
    WaitsFor,
)
from spectrum.core.plan import Catalog, Operation


class Refused(Exception):
    """Raised inside a decision: the command is refused with this problem, and nothing of it is kept but the entries."""

    def __init__(self, problem: Problem, *entries: Entry) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.entries = entries


class Turn:
    """The working copy. `instance`, `jobs` and `effects` are replaced, never changed in place."""

    def __init__(self, aggregate: Aggregate, command: Command, around: Surroundings, catalog: Catalog) -> None:
        self.before = aggregate
        self.command = command
        self.around = around
        self.catalog = catalog
        self.instance: Instance = aggregate.instance
        self.jobs: dict[JobId, Job] = dict(aggregate.jobs)
        self.effects: dict[tuple[str, str], Effect] = dict(aggregate.effects)
        self.facts: list[Fact] = []
        self.entries: list[Entry] = []
        self.hints: list[Hint] = []
        self.opened: list[Attempt] = []
        self.closed: list[Closing] = []
        self.secrets: tuple[Secret, ...] = ()
        self.breaker = around.breaker

    @property
    def now(self) -> datetime:
        return self.around.now

    # ---- rows

    def job(self, job_id: JobId) -> Job:
        found = self.jobs.get(job_id)
        if found is None:
            raise Refused(Problem("not-found", f"There is no job {job_id} on this instance."))
        return found

    def put(self, job: Job, **changes: Any) -> Job:
        job = evolve(job, **changes) if changes else job
        self.jobs[job.id] = job
        return job

    def put_step(self, job_id: JobId, step: Step, **changes: Any) -> Step:
        step = evolve(step, **changes)
        job = self.jobs[job_id]
        steps = tuple(step if each.id == step.id else each for each in job.steps)
        self.jobs[job_id] = evolve(job, steps=steps)
        return step

    def change_instance(self, **changes: Any) -> None:
        self.instance = evolve(self.instance, **changes)

    def operation_of(self, job: Job) -> Operation | None:
        return self.catalog.get((job.operation, job.operation_version))

    def active(self) -> Job | None:
        active_id = self.instance.active_job_id
        return self.jobs.get(active_id) if active_id else None

    def waiters(self) -> list[Job]:
        waiting = [job for job in self.jobs.values() if job.state is JobState.WAITING]
        return sorted(waiting, key=lambda job: (not job.front, job.number))

    # ---- the counter and the clock

    def raise_counter(self) -> int:
        """The next reading of the instance's counter: a fence or a token. The epoch stands in front of it."""
        counter = max(self.instance.counter, self.around.epoch << EPOCH_SHIFT) + 1
        self.change_instance(counter=counter)
        return counter

    def due(self, job: Job, seconds: float) -> datetime:
        """A deadline of `job`, `seconds` of time in which it can be met from now, as it is stored."""
        return self.now + timedelta(seconds=seconds) - (self.around.lost - job.lost_before)

    def effective(self, job: Job, stored: datetime) -> datetime:
        """When a stored deadline really falls: time in which it could not be met does not count (DESIGN §2)."""
        return stored + (self.around.lost - job.lost_before)

    def passed(self, job: Job, stored: datetime | None) -> bool:
        return stored is not None and self.effective(job, stored) <= self.now

    # ---- the target

    def answered(self, yes: bool) -> None:
        """A call to the target succeeded, or failed because it did not answer."""
        self.breaker = self.breaker.after(yes, self.now)

    # ---- what follows

    def holding(self, job: Job, refused: Mapping[str, str] | None = None, *, gone: bool = False) -> Holding:
        """What the holder of `job` is told."""
        absent = keys_absent(self.effects)
        return Holding(job, self.instance, self.now, self.around.target_url, refused or {}, gone, absent)

    def fact(self, type_: str, **data: Any) -> None:
        sequence = self.instance.event_sequence + 1
        self.change_instance(event_sequence=sequence)
        job = self.jobs.get(data.get("job_id", ""))
        self.facts.append(Fact(type_, self.instance.id, sequence, data, job.traceparent if job else None))

    def job_fact(self, job: Job, fact: str, **data: Any) -> None:
        self.fact(f"job.{fact}", job_id=job.id, operation=job.operation, generation=job.generation, **data)

    def entry(self, action: str, subject: str, **detail: Any) -> None:
        self.entries.append(Entry(self.command.actor, action, subject, detail))

    def wait(self, what: WaitsFor, until: datetime, holder: str = "", unblock: str = "") -> Waiting:
        return Waiting(what, self.now, until, holder, unblock)

    def wait_for_worker(self, job: Job, until: datetime) -> Waiting:
        return self.wait(WaitsFor.WORKER, until, job.pool_id, "operator: start a worker of the pool")

    def wait_in_queue(self, until: datetime) -> Waiting:
        holder = self.instance.active_job_id or ""
        return self.wait(WaitsFor.QUEUE, until, holder, f"whoever ends or cancels {holder}")

    def result(self) -> tuple[Aggregate, Consequences]:
        """The aggregate after the decision, each changed row one version further, and what follows from it.

        The version of the instance is that of the whole aggregate: it tells whether what somebody keeps of it is out of date.
        """
        for job_id, job in self.jobs.items():
            old = self.before.jobs.get(job_id)
            if old is not None and old is not job and old != job:
                self.jobs[job_id] = evolve(job, version=old.version + 1)
        version = self.before.instance.version + 1
        if self.instance != self.before.instance:
            self.change_instance(version=version, updated_at=self.now)
        elif self.jobs != self.before.jobs or self.effects != self.before.effects:
            self.change_instance(version=version)
        after = evolve(self.before, instance=self.instance, jobs=self.jobs, effects=self.effects)
        return after, Consequences(
            tuple(self.facts),
            tuple(self.entries),
            tuple(self.hints),
            tuple(self.opened),
            tuple(self.closed),
            self.secrets,
            self.breaker if self.breaker != self.around.breaker else None,
        )


def job_case(job: Job, cases: Iterable[Case]) -> Case:
    """Which of the listed cases this job is in."""
    listed = set(cases)
    if Case.ALWAYS in listed:
        return Case.ALWAYS
    if Case.TOUCHED in listed:
        return Case.TOUCHED if job.touched else Case.UNTOUCHED
    return Case.REASON_CANCEL if job.reason is Reason.CANCELLED else Case.REASON_OTHER


def next_state(job: Job, trigger: JobTrigger) -> JobState:
    """The state that follows by the table.

    Raises `Refused(not-allowed-now)` where the pair is not listed or the owner is not as the trigger needs it.
    """
    row = JOBS.get((job.state, trigger))
    needed = NEEDS_OWNERSHIP.get(trigger, Ownership.ANY)
    owner_fits = needed is Ownership.ANY or (needed is Ownership.OWNED) == job.owned
    if row is None or not owner_fits:
        owned = "owned" if job.owned else "not owned"
        raise Refused(
            Problem("not-allowed-now", f"Job {job.id} is {job.state} and {owned}: {trigger} is not allowed now.")
        )
    return row[job_case(job, row)]


def ends_ownership(job: Job, trigger: JobTrigger) -> bool:
    return trigger in ENDS_OWNERSHIP and (job.owned or job.state is not JobState.WAITING)


def next_step_state(step: Step, trigger: StepTrigger, case: StepCase = StepCase.ALWAYS) -> StepState | None:
    """The state that follows by the table, or None where the pair is not listed."""
    row = STEPS.get((step.state, trigger))
    if row is None:
        return None
    return row.get(case, row.get(StepCase.ALWAYS))

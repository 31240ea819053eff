"""How a job gets, changes and loses its holder: claim, release, lose; and what the clock does to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectrum.core import instances
from spectrum.core.errors import ErrorClass, Failure, Problem
from spectrum.core.ids import LeaseId
from spectrum.core.jobs.commands import Claim, Done, Entry, Holding, Lose, Observe, Release, Report
from spectrum.core.jobs.ending import close_as_unknown, move, promote_next, residue_of, turn_back
from spectrum.core.jobs.model import MAX_RESCUES, Job, Step
from spectrum.core.jobs.table import (
    SATISFIED,
    Health,
    JobState,
    JobTrigger,
    Reason,
    StepState,
    StepTrigger,
    WaitsFor,
)
from spectrum.core.jobs.turn import Refused, Turn, next_state, next_step_state
from spectrum.core.product.outline import Outline
from spectrum.core.retry import LONGEST_PAUSE


def claim(turn: Turn, command: Claim) -> Holding:
    """Give the job to its new owner under a new fence; what was under way is unknown from here on.

    Raises `Refused(not-allowed-now)` where somebody has it, it is not time yet, or a brake is on.
    """
    job = turn.job(command.job_id)
    state = next_state(job, JobTrigger.CLAIM)
    _may_be_claimed(turn, job, command)
    first = job.started_at is None
    job = turn.put(
        job,
        state=state,
        fence=turn.raise_counter(),
        owner=command.owner,
        not_before=None,
        waiting=None,
        started_at=job.started_at or turn.now,
    )
    turn.breaker = turn.breaker.claimed(job.id, turn.now)
    _forget_attempts(turn, job)
    if state is JobState.UNWINDING:
        job = turn_back(turn, turn.jobs[job.id])
    turn.job_fact(turn.jobs[job.id], "claimed", worker_id=command.owner.worker_id, fence=job.fence, first=first)
    turn.entry("job.claimed", job.id, fence=job.fence, incarnation=command.owner.incarnation)
    return turn.holding(turn.jobs[job.id])


def _may_be_claimed(turn: Turn, job: Job, command: Claim) -> None:
    if job.not_before is not None and job.not_before > turn.now:
        raise Refused(Problem("not-allowed-now", f"Job {job.id} is not due before {job.not_before:%FT%TZ}."))
    if turn.around.braked and job.state is not JobState.UNWINDING:
        raise Refused(Problem("not-allowed-now", f"The brake {turn.around.braked} is on."))
    if not turn.around.target_open:
        raise Refused(Problem("not-allowed-now", "The target does not answer; its breaker is open."))
    if job.alone and command.holds_others:
        raise Refused(Problem("not-allowed-now", f"Job {job.id} is run by a worker that holds nothing else."))


def _forget_attempts(turn: Turn, job: Job) -> None:
    """Whether an attempt with an intent and no outcome happened is not known to a new holder."""
    for step in job.steps:
        if not step.outstanding:
            continue
        close_as_unknown(turn, step)
        if step.state is StepState.RUNNING:
            state = next_step_state(step, StepTrigger.CLAIM)
            turn.put_step(job.id, step, state=state, outstanding=False, attempt_deadline=None)
            turn.fact("step.unknown", job_id=job.id, step=step.name, attempt=step.attempt)
        else:
            turn.put_step(job.id, step, outstanding=False, attempt_deadline=None)


def release(turn: Turn, command: Release) -> Done:
    """Hand the job back, not to be claimed before `until`, which is `LONGEST_PAUSE` away at most.

    A stale one is refused with `stale-fence`.
    """
    job = turn.job(command.job_id)
    check_pool(job, command)
    check_fence(job, command)
    if command.why is WaitsFor.BREAKER:
        turn.answered(False)
    until = min(command.until, turn.now + LONGEST_PAUSE) if command.until is not None else None
    job = move(turn, turn.put(job, not_before=until), JobTrigger.RELEASE)
    if not job.state.terminal and until is not None:
        job = turn.put(job, waiting=turn.wait(command.why, until, command.holder[:200], "nobody: it goes on by itself"))
    return Done(True, job)


def check_pool(job: Job, command: Report | Release) -> None:
    """A worker of another pool never held the job: it is told nothing of it, not even what a repeat would be (P11)."""
    if job.pool_id != command.pool_id:
        raise Refused(Problem("forbidden", f"Job {job.id} is not one of your pool's."), _refusal(job, command))


def _refusal(job: Job, command: Report | Release) -> Entry:
    return Entry(command.actor, "call.refused", job.id, {"fence": command.fence, "current": job.fence})


def check_fence(job: Job, command: Report | Release) -> None:
    """Only the holder under the present fence is heard; what another says is kept as evidence (P4)."""
    evidence = _refusal(job, command)
    if job.state.terminal and job.fence == command.fence:
        raise Refused(Problem("not-allowed-now", f"Job {job.id} has {job.state}.", extra={"state": job.state.value}))
    if job.owner is None or job.fence != command.fence:
        detail = f"Job {job.id} is no longer yours: your fence is {command.fence}, the present one {job.fence}. Let go."
        raise Refused(Problem("stale-fence", detail), evidence)
    if job.owner.lease_id != command.lease_id:
        raise Refused(Problem("forbidden", f"Your lease does not hold job {job.id}."), evidence)


def lease_ended(lease_id: LeaseId) -> Problem:
    return Problem("not-allowed-now", f"Lease {lease_id} has ended. Start a new incarnation.", extra={"lease": "ended"})


def lose(turn: Turn, command: Lose) -> Done:
    """Take the job from an owner that is lost. Nothing changes where it is not the owner's any more."""
    job = turn.job(command.job_id)
    if not job.owned or job.fence != command.fence:
        return Done(False, job)
    return Done(True, take_away(turn, job, command.why))


def take_away(turn: Turn, job: Job, why: str) -> Job:
    """Rescue: the fence rises and the job is claimable again in the direction it had, until it is poison."""
    worker = job.owner.worker_id if job.owner else ""
    turn.job_fact(job, "rescued", why=why, worker_id=worker)
    turn.entry("job.rescued", job.id, why=why, worker_id=worker)
    if job.state is JobState.RUNNING:
        job = turn.put(job, rescues=job.rescues + 1)
        if job.rescues > MAX_RESCUES:
            message = f"{job.rescues} workers in a row were lost with it before anything new came of it."
            failure = Failure(ErrorClass.FATAL, "poison", message, next=f"spectrum job show {job.id}")
            return move(turn, turn.put(job, alone=True), JobTrigger.POISON, Reason.POISON, failure)
    return move(turn, job, JobTrigger.LOST)


def tick(turn: Turn) -> Done:
    """What the clock does: deadlines of jobs and attempts, and a waiter that nobody promoted."""
    for job_id in list(turn.jobs):
        # Looked up each time: the end of one job may have promoted or refused the next.
        job = turn.jobs[job_id]
        if not job.state.terminal:
            _tick(turn, job)
    promote_next(turn)
    return Done(turn.instance is not turn.before.instance or turn.jobs != dict(turn.before.jobs))


def _tick(turn: Turn, job: Job) -> None:
    if job.state is JobState.UNWINDING:
        if turn.passed(job, job.unwind_deadline):
            _unwinding_took_too_long(turn, job)
            return
    elif turn.passed(job, job.deadline):
        move(turn, job, JobTrigger.DEADLINE, Reason.DEADLINE, _too_late(job))
        return
    if job.owned and (late := _late_attempt(turn, job)):
        take_away(turn, job, f"attempt {late.attempt} of step {late.name} passed its deadline")


def _late_attempt(turn: Turn, job: Job) -> Step | None:
    return next((s for s in job.steps if s.outstanding and turn.passed(job, s.attempt_deadline)), None)


def _too_late(job: Job) -> Failure:
    if job.state is JobState.WAITING:
        message = f"{job.operation} waited for its turn until its deadline."
    else:
        open_steps = [step for step in job.steps if step.state not in SATISFIED]
        message = f"{job.operation} did not end by its deadline; open: {', '.join(step.name for step in open_steps)}."
        for step in open_steps:
            if step.failure is not None:
                return Failure(
                    ErrorClass.FATAL,
                    "deadline",
                    f"{message} Last: {step.failure.message}",
                    step.failure.actor,
                    evidence=step.failure.evidence,
                )
    return Failure(ErrorClass.FATAL, "deadline", message)


def _unwinding_took_too_long(turn: Turn, job: Job) -> None:
    # Where every undo is done but nobody saw that it holds, all that was touched is in doubt.
    touched = tuple(dict.fromkeys(step.slot for step in job.steps if step.touched and step.slot))
    turn.put(job, residue=residue_of(job) or touched)
    move(turn, turn.jobs[job.id], JobTrigger.DEADLINE)


def observe(turn: Turn, command: Observe) -> Done:
    """Take over what was seen of an instance, unless a job is active or anything has moved since."""
    instance = turn.instance
    moved = instance.counter != command.fence or instance.generation != command.generation
    older = instance.observed_at is not None and instance.observed_at >= command.asked_at
    if moved or older or instance.active_job_id is not None or instance.lifecycle not in instances.WATCHED:
        return Done(False)
    health = Health.UNKNOWN
    if command.answered:
        services = instances.all_services(instance.lifecycle, instance.services, command.services)
        conditions = instances.since_when(instance.conditions, command.conditions, turn.now)
        turn.change_instance(services=services, conditions=conditions, observed_at=turn.now)
        outline = _outline(turn)
        never_end = frozenset(s.name for s in outline.services if not s.may_end) if outline is not None else frozenset()
        health = instances.health_of(instance.lifecycle, services, _primary_services(outline), never_end)
    change_health(turn, instances.steady(instance, health, turn.now))
    return Done(True)


def _outline(turn: Turn) -> Outline | None:
    spec = turn.instance.accepted or turn.instance.requested
    return turn.before.outlines.get(spec.release_id)


def _primary_services(outline: Outline | None) -> frozenset[str]:
    """The services behind the primary endpoint, or behind every one where none is."""
    endpoints = outline.endpoints if outline is not None else ()
    return frozenset(e.service for e in endpoints if e.primary) or frozenset(e.service for e in endpoints)


def change_health(turn: Turn, changes: Mapping[str, Any]) -> None:
    """Take over what sightings make of the health, and tell of it where it is another one now."""
    before = turn.instance.health
    turn.change_instance(**changes)
    if turn.instance.health is not before:
        turn.fact("instance.health_changed", health=turn.instance.health.value, before=before.value)

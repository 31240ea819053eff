"""What a person or a program asks of an instance's jobs: submit and cancel."""

from __future__ import annotations

from spectrum.core.errors import Problem
from spectrum.core.jobs.commands import Cancel, Done, Submit, Submitted
from spectrum.core.jobs.ending import move, promote_next
from spectrum.core.jobs.model import Job
from spectrum.core.jobs.table import Hold, JobState, JobTrigger, Lifecycle, Reason, WaitsFor
from spectrum.core.jobs.turn import Refused, Turn
from spectrum.core.plan import Operation

MAX_WAITING = 16
_GOES_FORWARD = frozenset({JobState.WAITING, JobState.READY, JobState.RUNNING})


def submit(turn: Turn, command: Submit) -> Submitted:
    """Accept a job, behind those that came before it. The same job again is the same job.

    Raises `Refused` with `operation-not-available`, `precondition-failed`, `not-allowed-now` or `instance-busy`.
    """
    operation = turn.catalog.get((command.operation, command.operation_version))
    if operation is None:
        raise Refused(Problem("operation-not-available", f"There is no operation {command.operation!r} here (yet)."))
    if (same := turn.jobs.get(command.job_id)) is not None:
        return Submitted(same, turn.instance, attached=True)
    if operation.preempts and (first := _same_under_way(turn, operation)):
        return Submitted(first, turn.instance, attached=True)
    _check(turn, command, operation)
    job = _enqueue(turn, command, operation)
    if operation.preempts:
        turn.fact("instance.deleting", job_id=job.id)
        _preempt(turn)
    promote_next(turn)
    return Submitted(turn.jobs[job.id], turn.instance)


def _same_under_way(turn: Turn, operation: Operation) -> Job | None:
    """A delete never pre-empts a delete: the second attaches to the first, unless that is on its way back."""
    same = (job for job in turn.jobs.values() if job.operation == operation.name)
    return next((job for job in same if job.state in _GOES_FORWARD), None)


def _check(turn: Turn, command: Submit, operation: Operation) -> None:
    instance = turn.instance
    expected = command.expected_generation
    if expected is not None and expected != instance.generation:
        detail = f"{instance.name} is at generation {instance.generation}, not {expected}. Read it again, then repeat."
        raise Refused(Problem("precondition-failed", detail))
    if instance.hold is not Hold.NONE and not operation.on_hold:
        detail = f"{instance.name} is {instance.hold}. Run: spectrum instance resolve {instance.name}"
        raise Refused(Problem("not-allowed-now", detail, extra={"hold": instance.hold.value}))
    if operation.needs_hold and instance.hold is Hold.NONE:
        name = instance.name
        detail = f"{name} is not on hold: there is nothing to {operation.name}. See: spectrum instance show {name}"
        raise Refused(Problem("not-allowed-now", detail, extra={"hold": instance.hold.value}))
    busy = instance.active_job_id is not None
    if command.if_purge_is_due and (busy or not _purge_is_due(turn)):
        raise Refused(Problem("not-allowed-now", f"{instance.name} is not due to be purged (any more)."))
    if not busy and instance.lifecycle not in operation.allowed:
        raise Refused(_not_from_here(turn, operation))
    if len(turn.waiters()) >= MAX_WAITING:
        detail = f"{MAX_WAITING} jobs already wait for {instance.name}. Cancel some: spectrum job list --instance {instance.name}"
        raise Refused(Problem("instance-busy", detail))


def _purge_is_due(turn: Turn) -> bool:
    """Whether the retention is over now: whoever thought so may have looked before an undelete and another delete (P16)."""
    due = turn.instance.purge_at
    return turn.instance.lifecycle is Lifecycle.DELETED and due is not None and due <= turn.now


def _not_from_here(turn: Turn, operation: Operation) -> Problem:
    instance = turn.instance
    allowed = ", ".join(sorted(state.value for state in operation.allowed))
    hints = {
        Lifecycle.DELETED: f" Bring it back: spectrum instance undelete {instance.name};"
        f" or destroy it: spectrum instance purge {instance.name}",
        Lifecycle.FAILED: f" It never came to be. Remove it: spectrum instance delete {instance.name}",
    }
    detail = f"{instance.name} is {instance.lifecycle}; {operation.name} is possible from: {allowed}."
    extra = {"lifecycle": instance.lifecycle.value}
    return Problem("not-allowed-now", detail + hints.get(instance.lifecycle, ""), extra=extra)


def _enqueue(turn: Turn, command: Submit, operation: Operation) -> Job:
    instance = turn.instance
    generation = instance.generation
    if command.spec is not None and command.new is None:
        generation += 1
        turn.change_instance(generation=generation, requested=command.spec)
    turn.change_instance(job_counter=instance.job_counter + 1, created_at=instance.created_at or turn.now)
    job = Job(
        id=command.job_id,
        organization_id=instance.organization_id,
        instance_id=instance.id,
        operation=operation.name,
        operation_version=operation.version,
        number=instance.job_counter + 1,
        generation=generation,
        pool_id=instance.pool_id,
        deadline=turn.now,
        created_at=turn.now,
        parameters=command.parameters,
        spec=command.spec,
        actor=command.actor,
        traceparent=command.traceparent,
        parent_id=command.parent_id,
        front=operation.preempts,
        lost_before=turn.around.lost,
    )
    deadline = turn.due(job, command.queue_seconds)
    job = turn.put(job, deadline=deadline, waiting=turn.wait_in_queue(deadline))
    turn.secrets = command.secrets
    turn.job_fact(job, "submitted")
    turn.entry("job.submitted", job.id, operation=operation.name, instance_id=instance.id, generation=generation)
    return job


def _preempt(turn: Turn) -> None:
    """A delete asks the active job to cancel, unless there is no way back."""
    active = turn.active()
    if active is not None and not active.past_return and active.state is not JobState.UNWINDING:
        _cancel(turn, active)


def cancel(turn: Turn, command: Cancel) -> Done:
    """Ask a job to stop and to undo what it did. A repeat on a job on its way back changes nothing."""
    job = turn.job(command.job_id)
    if job.state.terminal:
        raise Refused(Problem("not-allowed-now", f"Job {job.id} has {job.state}: there is nothing to cancel."))
    if job.state in (JobState.CANCELLING, JobState.UNWINDING):
        return Done(False, job)
    if job.past_return:
        steps = ", ".join(step.name for step in job.steps if step.irreversible and step.touched)
        raise Refused(
            Problem("not-allowed-now", f"Job {job.id} can't be cancelled after its irreversible step {steps}.")
        )
    _cancel(turn, job)
    return Done(True, turn.jobs[job.id])


def _cancel(turn: Turn, job: Job) -> None:
    turn.entry("job.cancel", job.id)
    job = move(turn, job, JobTrigger.CANCEL, Reason.CANCELLED)
    if job.state is JobState.CANCELLING:
        turn.job_fact(job, "cancelling")
        until = turn.effective(job, job.deadline)
        holder = job.owner.worker_id if job.owner else ""
        turn.put(job, waiting=turn.wait(WaitsFor.LEASE, until, holder, "its worker, at the next safe point"))

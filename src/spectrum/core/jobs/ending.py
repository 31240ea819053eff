"""How a job turns back and how it ends: unwinding, the terminal states, and the promotion of who waits next."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from spectrum.core.errors import Actor, ErrorClass, Failure
from spectrum.core.jobs.commands import Closing, Hint
from spectrum.core.jobs.model import Job, Step
from spectrum.core.jobs.table import (
    SATISFIED,
    TERMINAL,
    Hold,
    JobState,
    JobTrigger,
    Lifecycle,
    Phase,
    Reason,
    StepCase,
    StepState,
    StepTrigger,
    Wants,
)
from spectrum.core.jobs.turn import Turn, ends_ownership, next_state, next_step_state
from spectrum.core.plan import Given, Node, Operation, Plan, PlanError, step_id
from spectrum.core.product.extension import Retention

PURGE_AGAIN = timedelta(hours=1)
"""After a purge that failed, before the clock asks for the next one."""


def move(
    turn: Turn, job: Job, trigger: JobTrigger, reason: Reason | None = None, failure: Failure | None = None
) -> Job:
    """Take one transition of the job table, with everything that belongs to it.

    Raises `Refused` where the table does not list it.
    """
    state = next_state(job, trigger)
    came_from = job.state
    changes: dict[str, object] = {"state": state, "reason": job.reason or reason, "failure": job.failure or failure}
    if ends_ownership(job, trigger):
        changes |= {"fence": turn.raise_counter(), "owner": None}
    job = turn.put(job, **changes)
    if state is JobState.UNWINDING and came_from is not JobState.UNWINDING:
        job = _begin_unwinding(turn, job)
    if job.state in TERMINAL:
        job = finish(turn, job)
    elif job.owner is None and job.state in (JobState.READY, JobState.UNWINDING):
        job = _offer(turn, job)
    return job


def _offer(turn: Turn, job: Job) -> Job:
    """Make the job claimable, and say so."""
    until = job.unwind_deadline if job.state is JobState.UNWINDING and job.unwind_deadline else job.deadline
    job = turn.put(job, waiting=turn.wait_for_worker(job, turn.effective(job, until)))
    turn.hints.append(Hint(job.id, job.instance_id, job.pool_id, job.not_before))
    return job


# ---- unwinding


def _begin_unwinding(turn: Turn, job: Job) -> Job:
    operation = turn.operation_of(job)
    turn.job_fact(job, "unwinding", reason=job.reason)
    turn.entry("job.unwinding", job.id, reason=str(job.reason))
    deadline = turn.due(job, job.unwind_seconds)
    job = turn.put(job, unwind_deadline=deadline, not_before=None, waiting=None)
    if operation is not None and operation.forward_only:
        return _give_up(turn, job)
    return turn_back(turn, job)


def turn_back(turn: Turn, job: Job) -> Job:
    """Unwinding is a condition, not a moment: every step that is not yet on its way back is put on it.

    A step that its holder is running right now keeps running until its outcome is there.
    """
    for step in job.steps:
        if not (job.owned and step.state is StepState.RUNNING and step.outstanding):
            unwind_step(turn, job, step)
    return turn.jobs[job.id]


def unwind_step(turn: Turn, job: Job, step: Step) -> None:
    case = StepCase.TOUCHED if step.touched else StepCase.UNTOUCHED
    state = next_step_state(step, StepTrigger.UNWIND, case)
    if state is None:
        return
    close_as_unknown(turn, step)
    turn.put_step(
        job.id,
        step,
        state=state,
        phase=Phase.UNDO,
        outstanding=False,
        retry_at=None,
        attempt_deadline=None,
        deadline=None,
    )


def close_as_unknown(turn: Turn, step: Step) -> None:
    """An attempt that nobody can speak for any more: whether it happened is not known."""
    if step.outstanding:
        turn.closed.append(Closing(step.id, step.attempt, "unknown", turn.now))


def _give_up(turn: Turn, job: Job) -> Job:
    """An operation without an undo ends where it stands, and says what it left."""
    for step in job.steps:
        if step.state not in SATISFIED:
            close_as_unknown(turn, step)
            turn.put_step(
                job.id, step, state=StepState.UNDO_FAILED if step.touched else StepState.SKIPPED, outstanding=False
            )
    job = turn.jobs[job.id]
    residue = tuple(s.slot for s in job.steps if s.state is StepState.UNDO_FAILED and s.slot)
    return turn.put(
        job, state=next_state(job, JobTrigger.DEADLINE), residue=residue, owner=None, fence=turn.raise_counter()
    )


def residue_of(job: Job) -> tuple[str, ...]:
    """Slots that unwinding could not bring back."""
    settled = (StepState.UNDONE, StepState.SKIPPED)
    return tuple(dict.fromkeys(step.slot for step in job.steps if step.slot and step.state not in settled))


# ---- the end


def finish(turn: Turn, job: Job) -> Job:
    """Everything that a terminal state brings with it, in its one transaction (DESIGN §3, States)."""
    for step in job.steps:
        if step.outstanding:
            close_as_unknown(turn, step)
            turn.put_step(job.id, step, outstanding=False)
    job = turn.put(turn.jobs[job.id], finished_at=turn.now, owner=None, waiting=None, not_before=None)
    if job.state is JobState.SUCCEEDED:
        job = turn.put(job, reason=None, failure=None)
        _accept(turn, job)
    else:
        _reject(turn, job)
    turn.job_fact(job, job.state.value, reason=job.reason, residue=list(job.residue))
    turn.entry(f"job.{job.state.value}", job.id, operation=job.operation, reason=str(job.reason or ""))
    if turn.instance.active_job_id == job.id:
        turn.change_instance(active_job_id=None)
        promote_next(turn)
    return turn.jobs[job.id]


def _accept(turn: Turn, job: Job) -> None:
    operation = turn.operation_of(job)
    if job.spec is not None:
        turn.change_instance(accepted=job.spec, accepted_generation=job.generation)
    if operation is None:
        return
    if operation.clears_hold and turn.instance.hold is Hold.QUARANTINED:
        turn.change_instance(hold=Hold.NONE)
    lifecycle = operation.success(turn.instance, job)
    if lifecycle is not None:
        set_lifecycle(turn, lifecycle, job)


def _reject(turn: Turn, job: Job) -> None:
    operation = turn.operation_of(job)
    if operation is not None and operation.forward_only and turn.instance.purge_at is not None:
        # Else the clock would ask for it again at once, without end.
        turn.change_instance(purge_at=max(turn.instance.purge_at, turn.now + PURGE_AGAIN))
    if job.spec is not None:
        turn.change_instance(rejected_generation=max(turn.instance.rejected_generation, job.generation))
    if operation is not None and operation.failure is not None and turn.instance.lifecycle is Lifecycle.CREATING:
        set_lifecycle(turn, operation.failure, job)
    if job.residue and not (operation is not None and operation.forward_only):
        turn.change_instance(hold=Hold.QUARANTINED)
        turn.fact("instance.quarantined", job_id=job.id, residue=list(job.residue))
        turn.entry("instance.quarantined", turn.instance.id, job_id=job.id, residue=list(job.residue))


_LIFECYCLE_FACTS = {
    Lifecycle.RUNNING: "running",
    Lifecycle.STOPPED: "stopped",
    Lifecycle.DELETED: "deleted",
    Lifecycle.PURGED: "purged",
    Lifecycle.FAILED: "failed",
}


def set_lifecycle(turn: Turn, lifecycle: Lifecycle, job: Job) -> None:
    before = turn.instance.lifecycle
    if before is lifecycle:
        return
    turn.change_instance(lifecycle=lifecycle)
    if lifecycle is Lifecycle.DELETED:
        turn.change_instance(deleted_at=turn.now, purge_at=_purge_at(turn, job))
    elif before is Lifecycle.DELETED and lifecycle is not Lifecycle.PURGED:
        turn.fact("instance.undeleted", job_id=job.id)
        turn.change_instance(deleted_at=None, purge_at=None)
    if lifecycle is Lifecycle.PURGED:
        turn.effects.clear()
    if before is Lifecycle.CREATING and lifecycle in (Lifecycle.RUNNING, Lifecycle.STOPPED):
        turn.fact("instance.created", job_id=job.id)
    if word := _LIFECYCLE_FACTS.get(lifecycle):
        turn.fact(f"instance.{word}", job_id=job.id)


def _purge_at(turn: Turn, job: Job) -> datetime:
    return turn.now + timedelta(seconds=float(job.parameters.get("retention_seconds", Retention().deleted)))


# ---- promotion


def promote_next(turn: Turn) -> None:
    """Promote the first waiter, and the one after it where a promotion itself ends terminal."""
    while turn.instance.active_job_id is None and (waiting := turn.waiters()):
        _promote(turn, waiting[0])
    _renumber_queue(turn)


def _renumber_queue(turn: Turn) -> None:
    """Waiters say who holds what they wait for."""
    holder = turn.instance.active_job_id or ""
    for job in turn.waiters():
        if job.waiting is None or job.waiting.holder != holder:
            turn.put(job, waiting=turn.wait_in_queue(job.deadline))


def _promote(turn: Turn, job: Job) -> None:
    operation = turn.operation_of(job)
    if operation is None:
        _refuse(
            turn, job, Reason.INVALID, f"This control plane does not know {job.operation} v{job.operation_version}."
        )
    elif turn.instance.hold is not Hold.NONE and not operation.on_hold:
        _refuse(turn, job, Reason.INSTANCE_HELD, f"The instance is {turn.instance.hold}.")
    elif turn.instance.hold is Hold.NONE and operation.needs_hold:
        _refuse(turn, job, Reason.NOT_ALLOWED, "The instance is not on hold (any more).")
    elif turn.instance.lifecycle not in operation.allowed:
        deleted = turn.instance.lifecycle in (Lifecycle.DELETED, Lifecycle.PURGED)
        reason = Reason.INSTANCE_DELETED if deleted else Reason.NOT_ALLOWED
        _refuse(turn, job, reason, f"The instance is {turn.instance.lifecycle}.")
    else:
        _plan(turn, job, operation)


def _refuse(turn: Turn, job: Job, reason: Reason, message: str) -> None:
    failure = Failure(ErrorClass.INVALID, str(reason), f"{job.operation} was not started: {message}", Actor.VENDOR)
    move(turn, job, JobTrigger.REFUSE, reason, failure)


def _plan(turn: Turn, job: Job, operation: Operation) -> None:
    given = Given.of(turn.instance, job, turn.effects, turn.before.outlines, turn.around.target_kind)
    try:
        plan = operation.plan(given)
    except PlanError as error:
        _refuse(turn, job, Reason.INVALID, str(error))
        return
    except Exception as error:
        # Promotion is part of the end of the job before: a mistake in this operation must not keep that one from ending (P19).
        _refuse(turn, job, Reason.INVALID, f"Its plan could not be made ({type(error).__name__}: {error}).")
        return
    baseline = given.wanted(node.slot for node in plan.nodes if node.slot)
    steps = _steps(turn, job, plan)
    turn.change_instance(active_job_id=job.id)
    job = turn.put(
        job,
        steps=steps,
        baseline=baseline,
        plan_hash=plan.digest(),
        unwind_seconds=plan.unwind_seconds,
        lost_before=turn.around.lost,
    )
    job = turn.put(job, deadline=turn.due(job, plan.job_seconds))
    move(turn, job, JobTrigger.PROMOTE)


def _steps(turn: Turn, job: Job, plan: Plan) -> tuple[Step, ...]:
    return tuple(_step(turn, job, position, node) for position, node in enumerate(plan.nodes, 1))


def _step(turn: Turn, job: Job, position: int, node: Node) -> Step:
    step = Step(
        id=step_id(job.id, node.name),
        name=node.name,
        position=position,
        action=node.action,
        needs=node.needs,
        arguments=node.arguments,
        slot=node.slot,
        wants=node.wants,
        irreversible=node.irreversible,
        destructive=node.destructive,
        tries_allowed=node.tries,
        attempt_seconds=node.attempt_seconds,
        step_seconds=node.step_seconds,
        retry_cap=node.retry_cap,
        state=StepState.PENDING if node.condition else StepState.SKIPPED,
    )
    if node.wants is Wants.PRESENT and node.slot:
        return replace(step, effect_key=node.key or new_key(turn, node.slot, job.generation))
    return step


def new_key(turn: Turn, slot: str, generation: int) -> str:
    """`service.role.generation.n`; n grows whenever the slot is to be made anew."""
    number = turn.instance.slot_numbers.get(slot, 0) + 1
    turn.change_instance(slot_numbers={**turn.instance.slot_numbers, slot: number})
    return f"{slot.replace('/', '.')}.{generation}.{number}"

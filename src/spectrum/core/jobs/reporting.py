"""What a holder reports: outcomes of attempts, intents of the next ones, and its verdict on the whole (DESIGN §3.5–3.10)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import assert_never

from spectrum.core import instances
from spectrum.core import plan as plans
from spectrum.core.errors import ErrorClass, Failure, Problem
from spectrum.core.evolve import evolve
from spectrum.core.jobs import told
from spectrum.core.jobs.commands import Closing, Holding, Intent, Outcome, Report, Result, Verdict
from spectrum.core.jobs.ending import move, new_key, residue_of, unwind_step
from spectrum.core.jobs.holding import change_health, check_fence, check_pool
from spectrum.core.jobs.model import Attempt, Effect, Job, Numbered, Step
from spectrum.core.jobs.table import (
    SATISFIED,
    UNWOUND,
    Cause,
    JobState,
    JobTrigger,
    Phase,
    Reason,
    StepCase,
    StepState,
    StepTrigger,
    Wants,
)
from spectrum.core.jobs.turn import Refused, Turn, next_step_state
from spectrum.core.retry import backoff


def report(turn: Turn, command: Report) -> Holding:
    """Apply a report. The fence is checked first, then the number: last+1 applies, a repeat gets its answer again.

    Raises `Refused` with `forbidden` or `stale-fence` (evidence is kept), `report-gap` or `not-allowed-now` (the job has ended).
    """
    job = turn.job(command.job_id)
    check_pool(job, command)
    last = job.last_report
    if command.fence == last.fence and command.number <= last.number:
        gone = job.fence != command.fence or job.state.terminal
        return turn.holding(job, gone=gone)
    check_fence(job, command)
    _check_number(job, command)
    turn.put(job, last_report=Numbered(command.fence, command.number))
    return _Reading(turn, command).apply()


def _check_number(job: Job, command: Report) -> None:
    expected = job.last_report.number + 1 if job.last_report.fence == command.fence else 1
    if command.number != expected:
        detail = f"Report {command.number} of job {job.id} came before report {expected}. Send {expected} first."
        raise Refused(Problem("report-gap", detail, extra={"resend_from": expected}))


@dataclass
class _Reading:
    """One report being applied. What is refused of it is said by step; the rest applies."""

    turn: Turn
    command: Report

    def __post_init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.seen_absent: set[str] = set()

    @property
    def job(self) -> Job:
        return self.turn.jobs[self.command.job_id]

    def apply(self) -> Holding:
        for outcome in self.command.outcomes:
            self._outcome(told.fit(outcome))
        self._conclude()
        self._verdict()
        for intent in self.command.intents:
            if why := self._intent(intent):
                self.refused[intent.step] = why
        return self.turn.holding(self.job, self.refused, gone=self.job.state.terminal)

    # ---- outcomes

    def _outcome(self, outcome: Outcome) -> None:
        step = self.job.step(outcome.step)
        if step is None or not _speaks_of(outcome, step):
            self.turn.entry(
                "outcome.evidence", self.job.id, step=outcome.step, token=outcome.token, result=outcome.result
            )
            return
        self._count_for_breaker(outcome)
        if self.job.state is JobState.UNWINDING and outcome.phase is not Phase.UNDO:
            self._came_too_late(outcome, step)
        elif step.state is StepState.UNKNOWN:
            self._observed(outcome, step)
        else:
            self._ended(outcome, step)

    def _count_for_breaker(self, outcome: Outcome) -> None:
        if outcome.result is Result.DONE:
            self.turn.answered(True)
        elif outcome.failure is not None and outcome.failure.kind is ErrorClass.DEPENDENCY:
            self.turn.answered(False)

    def _came_too_late(self, outcome: Outcome, step: Step) -> None:
        """The outcome of a do in an unwinding job: whatever it was, the step is on its way back."""
        self._close(step, outcome)
        step = self.turn.put_step(self.job.id, step, outstanding=False)
        unwind_step(self.turn, self.job, step)

    def _observed(self, outcome: Outcome, step: Step) -> None:
        """What the holder saw of an attempt whose outcome nobody knows (DESIGN §3.8)."""
        match outcome.result:
            case Result.DONE | Result.ADOPTED:
                self._adopt(step, outcome)
            case Result.ABSENT:
                self.seen_absent.add(step.name)
            case Result.UNDECIDABLE:
                self._replace_or_fail(step, outcome)
            case Result.ERROR | Result.TIMEOUT:
                self._observe_again(step, outcome)
            case _:
                assert_never(outcome.result)

    def _adopt(self, step: Step, outcome: Outcome) -> None:
        turn, job = self.turn, self.job
        owner = job.owner.worker_id if job.owner else None
        attempt = Attempt(
            step.id,
            job.id,
            step.attempt + 1,
            Phase.DO,
            Cause.RESCUE.value,
            job.fence,
            None,
            owner,
            None,
            "adopted",
            turn.now,
        )
        turn.opened.append(attempt)
        turn.fact("step.adopted", job_id=job.id, step=step.name)
        step = evolve(step, attempt=step.attempt + 1)
        self._done(step, outcome)

    def _replace_or_fail(self, step: Step, outcome: Outcome) -> None:
        if self._must_not_be_replaced(step):
            self._observe_again(step, outcome)
            return
        case = StepCase.IRREVERSIBLE if step.irreversible else StepCase.REVERSIBLE
        state = next_step_state(step, StepTrigger.UNDECIDABLE, case)
        if state is StepState.FAILED:
            message = f"Whether the irreversible step {step.name} took effect can't be decided."
            failure = outcome.failure or Failure(ErrorClass.FATAL, "undecidable", message)
            self._failed(step, failure)
        else:
            self.turn.put_step(self.job.id, step, state=state, phase=Phase.REPLACE, retry_at=None)

    def _must_not_be_replaced(self, step: Step) -> bool:
        """What was there before the job holds data that no new key brings back; what only goes forward is tried to its end."""
        operation = self.turn.operation_of(self.job)
        kept = step.wants is Wants.PRESENT and step.effect_key == self.job.baseline.get(step.slot or "")
        return kept or (operation is not None and operation.forward_only)

    def _observe_again(self, step: Step, outcome: Outcome) -> None:
        if outcome.failure is not None and not outcome.failure.kind.retryable:
            self._failed(step, outcome.failure)
            return
        tries = step.tries + 1
        retry_at = self.turn.now + self._pause(step, tries, outcome.failure)
        self.turn.put_step(self.job.id, step, tries=tries, retry_at=retry_at, failure=outcome.failure or step.failure)

    def _ended(self, outcome: Outcome, step: Step) -> None:
        """An attempt that this holder began has ended, or its call gave no answer in time."""
        self._close(step, outcome)
        step = evolve(step, outstanding=False, attempt_deadline=None)
        match outcome.result:
            case Result.DONE | Result.ADOPTED:
                self._done(step, outcome)
            case Result.ERROR if outcome.failure is not None:
                self._error(step, outcome.failure)
            case Result.TIMEOUT | Result.ABSENT | Result.UNDECIDABLE | Result.ERROR:
                self._timeout(step, outcome)
            case _:
                assert_never(outcome.result)

    def _close(self, step: Step, outcome: Outcome) -> None:
        if not step.outstanding:
            return
        word = "unknown" if outcome.result is Result.TIMEOUT else outcome.result.value
        self.turn.closed.append(Closing(step.id, step.attempt, word, self.turn.now, outcome.failure))

    def _done(self, step: Step, outcome: Outcome) -> None:
        turn, job_id = self.turn, self.job.id
        state = next_step_state(step, StepTrigger.OK)
        if self.job.rescues:
            turn.put(self.job, rescues=0)
        self._prove(step)
        match step.phase:
            case Phase.DO:
                turn.put_step(job_id, step, state=state, retry_at=None, failure=None, output=told.small(outcome.output))
                self._keep_facts(outcome)
            case Phase.UNDO:
                turn.put_step(job_id, step, state=state, retry_at=None, failure=None)
            case Phase.REPLACE:
                # A step that wants its slot empty has no key: it is only done again.
                anew = step.slot if step.wants is Wants.PRESENT else None
                key = new_key(turn, anew, self.job.generation) if anew else None
                turn.put_step(job_id, step, state=state, phase=Phase.DO, effect_key=key, retry_at=None)
            case _:
                assert_never(step.phase)

    def _keep_facts(self, outcome: Outcome) -> None:
        """What only the target can know of the instance comes back with the step that made it."""
        if record := told.record_in(outcome.output):
            self.turn.change_instance(**record)
        if conditions := told.conditions_in(outcome.output):
            known = self.turn.instance.conditions
            self.turn.change_instance(conditions=instances.since_when(known, conditions, self.turn.now))
        if health := told.health_in(outcome.output):
            self.turn.change_instance(observed_at=self.turn.now)
            change_health(self.turn, instances.settled(self.turn.instance, health, self.turn.now))

    def _prove(self, step: Step) -> None:
        """The slot was brought to what it is wanted to be: what is wanted absent there is gone.

        The key of a replaced attempt stays wanted absent until purge: a late call may still make it.
        """
        for place, effect in list(self.turn.effects.items()):
            if effect.slot != step.slot:
                continue
            if effect.present or effect.replaced:
                self.turn.effects[place] = evolve(effect, proven=True)
            else:
                del self.turn.effects[place]

    def _error(self, step: Step, failure: Failure) -> None:
        if not failure.kind.retryable:
            self._failed(step, failure)
            return
        undo = step.phase is not Phase.DO
        tries = (step.undo_tries if undo else step.tries) + 1
        pause = self._pause(step, tries, failure)
        if undo:
            self.turn.put_step(self.job.id, step, undo_tries=tries, retry_at=self.turn.now + pause, failure=failure)
            return
        case = StepCase.BUDGET_LEFT if self._budget_left(step, tries, pause) else StepCase.BUDGET_USED
        state = next_step_state(step, StepTrigger.RETRYABLE, case)
        retry_at = self.turn.now + pause if state is StepState.RETRYING else None
        self.turn.put_step(self.job.id, step, state=state, tries=tries, retry_at=retry_at, failure=failure)
        if state is StepState.FAILED:
            self._say_failed(step, failure)

    def _budget_left(self, step: Step, tries: int, pause: timedelta) -> bool:
        turn, job = self.turn, self.job
        in_time = step.deadline is None or turn.now + pause < turn.effective(job, step.deadline)
        return tries < step.tries_allowed and in_time

    def _pause(self, step: Step, tries: int, failure: Failure | None) -> timedelta:
        told = failure.retry_after if failure else None
        return backoff(tries, f"{step.id}:{step.attempt}:{tries}", told, step.retry_cap)

    def _failed(self, step: Step, failure: Failure) -> None:
        state = next_step_state(step, StepTrigger.FATAL) or StepState.FAILED
        self.turn.put_step(self.job.id, step, state=state, failure=failure, retry_at=None)
        self._say_failed(step, failure)

    def _say_failed(self, step: Step, failure: Failure) -> None:
        fact = "step.undo_failed" if step.phase is Phase.UNDO else "step.failed"
        self.turn.fact(fact, job_id=self.job.id, step=step.name, code=failure.code)

    def _timeout(self, step: Step, outcome: Outcome) -> None:
        state = next_step_state(step, StepTrigger.TIMEOUT) or step.state
        tries = step.undo_tries + 1
        changes: dict[str, object] = {"state": state, "failure": outcome.failure or step.failure}
        if step.phase is not Phase.DO:
            changes |= {"undo_tries": tries, "retry_at": self.turn.now + self._pause(step, tries, outcome.failure)}
        self.turn.put_step(self.job.id, step, **changes)
        if state is StepState.UNKNOWN:
            self.turn.fact("step.unknown", job_id=self.job.id, step=step.name, attempt=step.attempt)

    # ---- what follows for the job

    def _conclude(self) -> None:
        job = self.job
        if job.state not in (JobState.RUNNING, JobState.CANCELLING):
            return
        if all(step.state in SATISFIED for step in job.steps):
            move(self.turn, job, JobTrigger.ALL_DONE)
        elif job.state is JobState.RUNNING and (failed := _first_failed(job)):
            move(self.turn, job, JobTrigger.STEP_FAILED, Reason.STEP_FAILED, _as_job_failure(job, failed))

    def _verdict(self) -> None:
        match self.command.verdict:
            case Verdict.NONE:
                pass
            case Verdict.ACKNOWLEDGED:
                self._acknowledge()
            case Verdict.UNWOUND:
                self._unwound()
            case Verdict.REOPENED:
                self._reopen()
            case _:
                assert_never(self.command.verdict)

    def _acknowledge(self) -> None:
        job = self.job
        if job.state is not JobState.CANCELLING:
            return
        if any(step.outstanding for step in job.steps):
            self.refused["acknowledged"] = "a call is still outstanding"
            return
        move(self.turn, job, JobTrigger.ACKNOWLEDGE)

    def _unwound(self) -> None:
        job = self.job
        if job.state is not JobState.UNWINDING:
            return
        if not all(step.state in UNWOUND for step in job.steps):
            self.refused["unwound"] = "steps are still to be undone"
            return
        move(self.turn, self.turn.put(job, residue=residue_of(job)), JobTrigger.UNWOUND)

    def _reopen(self) -> None:
        if self.job.state is not JobState.UNWINDING:
            return
        for name in self.command.reopen:
            step = self.job.step(name)
            if step is not None and (state := next_step_state(step, StepTrigger.REOPEN)):
                tries = step.undo_tries + 1
                retry_at = self.turn.now + self._pause(step, tries, None)
                self.turn.put_step(self.job.id, step, state=state, undo_tries=tries, retry_at=retry_at)

    # ---- intents

    def _intent(self, intent: Intent) -> str:
        """Take an intent, or say why not. Every refusal is one that the holder can act on."""
        step = self.job.step(intent.step)
        if step is None:
            return "no such step"
        if why := self._not_now(intent, step):
            return why
        self._open(intent, step)
        return ""

    def _not_now(self, intent: Intent, step: Step) -> str:
        job = self.job
        if step.outstanding:
            return "an attempt of it is outstanding"
        match job.state:
            case JobState.RUNNING:
                why = self._do_not_now(intent, step)
            case JobState.UNWINDING if intent.phase is Phase.UNDO:
                undoable = any(s.name == step.name for s in plans.unwindable(job.steps))
                why = "" if undoable else "what was built on it is not undone yet"
            case _:
                why = f"the job is {job.state}"
        # Where every job of the target is in somebody's hands, no claim brings the probe: an intent that comes in its time is it.
        if not why and not self.turn.breaker.lets_begin(job.id, self.turn.now):
            return "breaker: the target does not answer"
        return why

    def _do_not_now(self, intent: Intent, step: Step) -> str:
        turn = self.turn
        wanted = Phase.REPLACE if step.state is StepState.REPLACING else Phase.DO
        if intent.phase is not wanted:
            return f"it is {step.state}"
        if not any(s.name == step.name for s in plans.ready(self.job.steps)):
            return "what it needs is not done"
        if step.state is StepState.UNKNOWN and step.slot and step.name not in self.seen_absent:
            return "its last attempt is unknown and was not seen absent"
        if step.destructive and turn.around.braked:
            return f"brake: {turn.around.braked}"
        return ""

    def _open(self, intent: Intent, step: Step) -> None:
        turn, job = self.turn, self.job
        turn.breaker = turn.breaker.begun(turn.now)
        token = turn.raise_counter()
        seconds = step.attempt_seconds
        deadline = step.deadline or turn.due(job, step.step_seconds)
        state = next_step_state(step, StepTrigger.INTENT) or step.state
        owner = job.owner.worker_id if job.owner else None
        turn.opened.append(
            Attempt(
                step.id,
                job.id,
                step.attempt + 1,
                intent.phase,
                self._cause(step).value,
                job.fence,
                token,
                owner,
                turn.now,
            )
        )
        step = turn.put_step(
            job.id,
            step,
            state=state,
            attempt=step.attempt + 1,
            token=token,
            outstanding=True,
            touched=step.touched or step.slot is not None,
            retry_at=None,
            attempt_deadline=turn.due(job, seconds),
            deadline=deadline,
        )
        self._want(step, token)

    def _cause(self, step: Step) -> Cause:
        if not self._begun(step):
            return Cause.FIRST
        # What ended in the hands of its holder says when to try again; of a do it is the state that tells.
        lost = step.state is StepState.UNKNOWN if step.phase is Phase.DO else step.retry_at is None
        return Cause.RESCUE if lost else Cause.RETRY

    def _begun(self, step: Step) -> bool:
        """Whether the step had an attempt in its present phase."""
        match step.phase:
            case Phase.DO:
                return step.attempt > 0
            case Phase.UNDO:
                return step.deadline is not None  # set with a phase's first intent, unset where unwinding begins
            case Phase.REPLACE:
                replaced = self.turn.effects.get((step.slot or "", step.effect_key or ""))
                return replaced.replaced if replaced is not None else step.retry_at is not None
            case _:
                assert_never(step.phase)

    def _want(self, step: Step, token: int) -> None:
        """The effects table says what the call is about to make true."""
        if step.slot is None:
            return
        key = self._wanted_key(step)
        for place, effect in list(self.turn.effects.items()):
            if effect.slot == step.slot and effect.key != key:
                replaced = effect.replaced or (step.phase is Phase.REPLACE and effect.key == step.effect_key)
                self.turn.effects[place] = evolve(
                    effect, present=False, proven=False, fence=self.job.fence, token=token, replaced=replaced
                )
        if key is not None:
            self._want_present(step.slot, key, token)

    def _wanted_key(self, step: Step) -> str | None:
        match step.phase:
            case Phase.DO:
                return step.effect_key
            case Phase.UNDO:
                return self.job.baseline.get(step.slot or "")
            case Phase.REPLACE:
                return None
            case _:
                assert_never(step.phase)

    def _want_present(self, slot: str, key: str, token: int) -> None:
        placement = self.turn.instance.placement_id
        self.turn.effects[slot, key] = Effect(placement, slot, key, True, False, self.job.fence, token)


def _speaks_of(outcome: Outcome, step: Step) -> bool:
    """An outcome names phase and token of its attempt; an unknown attempt may be spoken of by who observed it.

    A step may also fail before its first intent: the target refuses the instance as such.
    """
    named = outcome.phase is step.phase and outcome.token == step.token
    before_any_intent = step.state is StepState.PENDING and outcome.result is Result.ERROR
    return named and (step.outstanding or step.state is StepState.UNKNOWN or before_any_intent)


def _first_failed(job: Job) -> Step | None:
    return next((step for step in job.steps if step.state is StepState.FAILED), None)


def _as_job_failure(job: Job, step: Step) -> Failure:
    failure = step.failure or Failure(ErrorClass.FATAL, "step-failed", "It gave no reason.")
    return replace(
        failure, message=f"Step {step.name}: {failure.message}", next=failure.next or f"spectrum job show {job.id}"
    )

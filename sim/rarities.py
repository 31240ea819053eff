"""Rare situations of the protocol, as they show in the database: a run of seeds that met none of a kind has proved too little."""

from __future__ import annotations

from collections.abc import Callable

from sim.invariants import observer, unread
from sim.marks import declare, sometimes
from sim.twins.store import MemoryDatabase
from spectrum.core.breakers import BreakerState
from spectrum.core.jobs.commands import Cancel, Done, Lose, Observe, Rejection, Repeated
from spectrum.core.jobs.model import MAX_RESCUES, Job
from spectrum.core.jobs.table import Hold, JobState, Phase, Reason, StepState

STALE_REPORT = declare("a report or release under a stale fence was refused", "zombies talk")
FOREIGN = declare("a call about somebody else's job was refused", "not every worker that calls holds what it speaks of")
ADOPTED = declare("an effect was adopted", "its outcome was lost, and it was not made twice")
HALF_UNDONE = declare("a half-undone job was rescued", "it goes on being undone, where it was")
CANCELLED_TWICE = declare("a cancel met a job that was being undone", "it changes nothing")
TOO_LATE = declare("a cancel came too late", "the last step was done: the job has succeeded")
REFUSED_INTENT = declare("a cancel met a step under way", "its outcome counts, and nothing new is begun")
HALF_OPEN = declare("a breaker was half open", "one probe decides for all")
BREAKER_CLOSED = declare("a breaker closed again", "what waited goes on")
QUARANTINED = declare(
    "an instance was quarantined", "an undo failed for good: automation keeps away, with the evidence"
)
RESOLVED = declare("a quarantine was resolved", "by an operation, with no person at the machine")
MADE_ANEW = declare("an undecidable slot was made anew", "under another key, the old one wanted absent")
UNKNOWN = declare("an attempt was unknown", "it has an intent and no outcome")
POISONED = declare("a job was poison", "it was the end of several workers, and is undone alone")
REOPENED = declare(
    "an undone step was undone again",
    "a look showed that it did not hold. Of seeds with late calls and refusals one in 150 meets it: sagas bring it about",
    not_yet=True,
)
TAKEN_BACK = declare("a claim's answer never arrived", "the next heartbeat hands the jobs back")
SUPERSEDED = declare("an incarnation was superseded", "its jobs go on elsewhere at once")
PREEMPTED = declare("a delete pre-empted a job", "it asks the active one to cancel and goes to the front")
REFUSED_AT_PROMOTION = declare(
    "a waiter was refused when its turn came", "and the next one had its turn in the same moment"
)
KEY_REPEATED = declare("a key was repeated and got its answer again", "the first answer was lost")
KEY_REUSED = declare("a key was reused for something else", "that is refused")
OBSERVED_LATE = declare("an observation was refused as outdated", "what was seen was before the last job")
ENDED_EARLY = declare("a lease ended with jobs in hand", "they are claimed again under a higher fence")


@observer(MemoryDatabase)
def what_becomes_of_jobs(database: MemoryDatabase) -> Callable[[], None]:
    new = unread(database.history)

    def look() -> None:
        for before, after, command in new():
            if before is not None:
                _a_change(before, after, isinstance(command, Lose))

    return look


def _a_change(before: Job, after: Job, lost: bool) -> None:
    states = {step.state for step in after.steps}
    let_go = before.owner is not None and after.owner is None
    sometimes(HALF_UNDONE, lost and let_go and {StepState.UNDONE, StepState.UNDOING} <= states)
    sometimes(TOO_LATE, before.state is JobState.CANCELLING and after.state is JobState.SUCCEEDED)
    begun = before.state is JobState.RUNNING and any(step.outstanding for step in before.steps)
    sometimes(REFUSED_INTENT, begun and after.state is JobState.CANCELLING)
    sometimes(POISONED, after.reason is Reason.POISON and after.rescues > MAX_RESCUES and before.reason is None)
    sometimes(PREEMPTED, before.state is JobState.WAITING and after.front and after.state is not JobState.WAITING)
    refused = before.state is JobState.WAITING and after.state is JobState.FAILED
    sometimes(REFUSED_AT_PROMOTION, refused and after.reason is Reason.NOT_ALLOWED)
    for one, other in zip(before.steps, after.steps, strict=False):
        sometimes(UNKNOWN, other.state is StepState.UNKNOWN and one.state is not other.state)
        sometimes(REOPENED, one.state is StepState.UNDONE and other.state is StepState.UNDOING)
        sometimes(
            MADE_ANEW, one.phase is Phase.REPLACE and other.phase is Phase.DO and one.effect_key != other.effect_key
        )


@observer(MemoryDatabase)
def what_is_told(database: MemoryDatabase) -> Callable[[], None]:
    new = unread(database.events)

    def look() -> None:
        for logged in new():
            fact = logged.fact
            sometimes(ADOPTED, fact.type == "step.adopted")
            sometimes(QUARANTINED, fact.type == "instance.quarantined")
            why = str(fact.data.get("why", "")) if fact.type == "job.rescued" else ""
            sometimes(TAKEN_BACK, "does not hold it" in why)
            sometimes(SUPERSEDED, "newer incarnation" in why)
            sometimes(ENDED_EARLY, "lapsed" in why)

    return look


@observer(MemoryDatabase)
def what_is_answered(database: MemoryDatabase) -> Callable[[], None]:
    new = unread(database.told)

    def look() -> None:
        for told in new():
            match told.response:
                case Rejection(problem=problem):
                    sometimes(STALE_REPORT, problem.slug == "stale-fence")
                    sometimes(FOREIGN, problem.slug == "forbidden")
                    sometimes(KEY_REUSED, problem.slug == "idempotency-key-reused")
                case Done(changed=False, job=job):
                    going_back = job is not None and job.state is JobState.UNWINDING
                    sometimes(CANCELLED_TWICE, going_back and isinstance(told.command, Cancel))
                    sometimes(OBSERVED_LATE, isinstance(told.command, Observe))
                case Repeated():
                    sometimes(KEY_REPEATED, told.again)

    return look


@observer(MemoryDatabase)
def what_becomes_of_instances(database: MemoryDatabase) -> Callable[[], None]:
    new = unread(database.changes)

    def look() -> None:
        for change in new():
            was_held = change.before is not None and change.before.hold is Hold.QUARANTINED
            sometimes(RESOLVED, was_held and change.after.hold is Hold.NONE)

    return look


@observer(MemoryDatabase)
def breakers(database: MemoryDatabase) -> Callable[[], None]:
    known: dict[str, BreakerState] = {}

    def look() -> None:
        for target_id, breaker in database.breakers.items():
            before = known.get(target_id, BreakerState.CLOSED)
            if breaker.state is not before:
                sometimes(HALF_OPEN, breaker.state is BreakerState.HALF_OPEN)
                sometimes(BREAKER_CLOSED, breaker.state is BreakerState.CLOSED)
                known[target_id] = breaker.state

    return look

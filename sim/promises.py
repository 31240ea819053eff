"""The promises as they show in the database, and in what database and target say of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import dropwhile, islice, pairwise

from sim.invariants import Check, When, invariant, observer, unread
from sim.marks import declare, sometimes
from sim.system import System
from sim.twins.provider import Act
from sim.twins.store import MemoryDatabase
from spectrum.core.ids import JobId
from spectrum.core.jobs.commands import Claim, Lose, Release, Repeated, Report, Submitted
from spectrum.core.jobs.model import Job
from spectrum.core.jobs.table import JOBS, OWNABLE, SATISFIED, UNWOUND, JobState
from spectrum.providers.protocol import Call, Strength


def _reachable() -> dict[JobState, frozenset[JobState]]:
    """What may follow a state in any number of steps: several commands of one flush become one change of the row."""
    following = {state: {state} for state in JobState}
    for _ in JobState:
        for (state, _trigger), cases in JOBS.items():
            for after in cases.values():
                following[state] |= following[after] | {after}
    return {state: frozenset(after) for state, after in following.items()}


REACHABLE = _reachable()


@invariant("P5", MemoryDatabase)
def transitions_are_in_the_table(database: MemoryDatabase) -> Check:
    """Every change of a job is one of the table and raises its version; terminal is final; fences only grow."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        for before, after, _command in new():
            if before is not None:
                yield from _wrong_change(before, after)

    return check


def _wrong_change(before: Job, after: Job) -> Iterator[str]:
    if after.state not in REACHABLE[before.state]:
        yield f"job {after.id} went from {before.state} to {after.state}"
    if before.state.terminal:
        yield f"job {after.id} was changed after it had {before.state}"
    if after.version <= before.version and after != before:
        yield f"job {after.id} was changed, and its version stayed {after.version}"
    if after.fence < before.fence:
        yield f"the fence of job {after.id} fell from {before.fence} to {after.fence}"
    changed_owner = before.owner != after.owner and after.owner is not None
    if changed_owner and after.fence == before.fence:
        yield f"job {after.id} has another owner under the same fence {after.fence}"


@invariant("P4", MemoryDatabase)
def only_the_holder_is_heard(database: MemoryDatabase) -> Check:
    """A report or a release changes its job only under the fence that the job has; a lost or released job has a new one."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        for before, after, command in new():
            if before is None:
                continue
            if isinstance(command, Report | Release) and command.job_id == before.id and command.fence != before.fence:
                yield f"job {after.id} was changed under fence {command.fence}, its own was {before.fence}"
            let_go = before.owner is not None and after.owner is None and not after.state.terminal
            if let_go and after.fence == before.fence:
                yield f"job {after.id} was taken from its owner, and its fence stayed {after.fence}"

    return check


@invariant("P1", MemoryDatabase)
def no_step_is_skipped_or_worn_out(database: MemoryDatabase) -> Check:
    """A job succeeds only with every step done or skipped; the loss of its worker uses up none of a step's tries."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        for before, after, command in new():
            open_steps = [s.name for s in after.steps if s.state not in SATISFIED]
            if after.state is JobState.SUCCEEDED and open_steps:
                yield f"job {after.id} has succeeded without {', '.join(open_steps)}"
            if before is not None and isinstance(command, Lose | Claim):
                tries = [step.tries for step in before.steps]
                if tries and tries != [step.tries for step in after.steps]:
                    yield f"job {after.id}: a rescue was counted as a retry"

    return check


@invariant("P1", MemoryDatabase)
def one_active_job(database: MemoryDatabase) -> Check:
    """An instance has at most one active job, and knows which; an owner is there exactly where it may be."""

    def check() -> Iterator[str]:
        active: dict[str, str] = {}
        for job in database.jobs.values():
            if job.state.terminal or job.state is JobState.WAITING:
                if job.owner is not None:
                    yield f"job {job.id} is {job.state} and has an owner"
                continue
            if other := active.get(job.instance_id):
                yield f"jobs {other} and {job.id} are both active"
            active[job.instance_id] = job.id
            if database.instances[job.instance_id].active_job_id != job.id:
                yield f"job {job.id} is {job.state}, and its instance does not know it"
            if job.owner is not None and job.state not in OWNABLE:
                yield f"job {job.id} is {job.state} and has an owner"

    return check


@invariant("P20", MemoryDatabase)
def waiting_says_why(database: MemoryDatabase) -> Check:
    """Every job that nobody runs says what it waits for; nothing open lacks a deadline."""

    def check() -> Iterator[str]:
        for job in database.jobs.values():
            if job.state.terminal:
                continue
            if job.owner is None and job.waiting is None:
                yield f"job {job.id} is {job.state} and does not say what it waits for"
            if job.state is JobState.UNWINDING and job.unwind_deadline is None:
                yield f"job {job.id} unwinds without a deadline"
            for step in job.steps:
                if step.outstanding and step.attempt_deadline is None:
                    yield f"step {step.name} of job {job.id} has an attempt without a deadline"

    return check


@invariant("P4", MemoryDatabase)
class IntentsAreOfTheHolder:
    """No attempt is opened under a fence lower than one that its job had before."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._read = 0
        self._fences: dict[str, int] = {}

    def __call__(self) -> Iterator[str]:
        attempts = self._database.attempts
        new, self._read = islice(attempts.values(), self._read, None), len(attempts)
        for attempt in new:
            highest = self._fences.get(attempt.job_id, 0)
            if attempt.fence < highest:
                yield f"attempt {attempt.number} of {attempt.step_id} was opened under fence {attempt.fence}, after {highest}"
            self._fences[attempt.job_id] = max(highest, attempt.fence)


@invariant("P6", MemoryDatabase)
def sequences_have_no_gap(database: MemoryDatabase) -> Check:
    """The events of one instance are numbered without a gap, and every end of a job is among them."""
    new = unread(database.events)
    sequences: dict[str, int] = {}

    def check() -> Iterator[str]:
        for logged in new():
            subject, sequence = logged.fact.subject, logged.fact.sequence
            if sequence != sequences.get(subject, 0) + 1:
                yield f"event {logged.fact.type} of {subject} has number {sequence} after {sequences.get(subject, 0)}"
            sequences[subject] = sequence

    return check


@invariant("P6", MemoryDatabase, When.END)
def every_end_is_an_event(database: MemoryDatabase) -> Check:
    """A job that ended has exactly one event that says so, and one audit row."""

    def check() -> Iterator[str]:
        for job in database.jobs.values():
            said = [
                e for e in database.events if e.fact.data.get("job_id") == job.id and e.fact.type == f"job.{job.state}"
            ]
            entries = [e for e in database.audit if e.subject == job.id and e.action == f"job.{job.state}"]
            if job.state.terminal and (len(said) != 1 or len(entries) != 1):
                yield f"job {job.id} has {job.state}: {len(said)} events and {len(entries)} audit rows say so"

    return check


@invariant("P10", MemoryDatabase, When.END)
def every_submit_is_audited(database: MemoryDatabase) -> Check:
    """Every job has the audit row of its submit, with its actor."""

    def check() -> Iterator[str]:
        submitted = {entry.subject for entry in database.audit if entry.action == "job.submitted" and entry.actor}
        for job in database.jobs.values():
            if job.id not in submitted:
                yield f"job {job.id} was submitted by nobody"

    return check


@invariant("P5", MemoryDatabase, When.END)
def attempts_are_kept(database: MemoryDatabase) -> Check:
    """Attempts of a step are numbered from 1 without a gap, tokens grow, and none is left open by a job that ended."""

    def check() -> Iterator[str]:
        steps: dict[str, list[int]] = {}
        for step_id, number in database.attempts:
            steps.setdefault(step_id, []).append(number)
        for step_id, numbers in steps.items():
            if sorted(numbers) != list(range(1, len(numbers) + 1)):
                yield f"step {step_id} has attempts {sorted(numbers)}"
            tokens = [database.attempts[step_id, number].token or 0 for number in sorted(numbers)]
            given = [token for token in tokens if token]
            if any(later <= earlier for earlier, later in pairwise(given)):
                yield f"tokens of step {step_id} do not grow: {given}"
        for attempt in database.attempts.values():
            if attempt.outcome is None and database.jobs[attempt.job_id].state.terminal:
                yield f"attempt {attempt.number} of {attempt.step_id} is still open, its job has ended"

    return check


@invariant("P3", MemoryDatabase)
def what_is_undone_is_as_it_was(database: MemoryDatabase) -> Check:
    """A job that was undone without residue leaves every slot of its plan wanted as it was at planning."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        for before, after, _command in new():
            undone = after.state.terminal and after.unwind_deadline is not None and not after.residue
            undone = undone and all(
                step.state in UNWOUND for step in after.steps
            )  # what only goes forward is not undone
            if before is None or before.state.terminal or not undone:
                continue
            effects = database.effects[after.instance_id].values()
            wanted = {effect.slot: effect.key for effect in effects if effect.present}
            for slot, key in after.baseline.items():
                if wanted.get(slot) != key:
                    yield f"job {after.id} has {after.state} and left {slot} wanted as {wanted.get(slot)}, not as {key}"

    return check


@invariant("P3", System)
class NothingMovesAtRest:
    """On an atomic target, an instance without a job and with all effects proven has what is wanted: no late call lands."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._new = unread(system.target.ledger)
        self._drifted: set[str] = set()

    def __call__(self) -> Iterator[str]:
        target, database = self._system.target, self._system.database
        if target.strength is not Strength.ATOMIC:
            return
        self._drifted |= {entry.call.instance for entry in self._new() if entry.act is Act.DRIFTED}
        held: dict[str, dict[str, str]] = {}
        for thing in target.things.values():
            held.setdefault(thing.call.instance, {})[thing.call.slot] = thing.call.key
        for instance in database.instances.values():
            effects = database.effects.get(instance.id, {}).values()
            settled = all(effect.proven or effect.replaced for effect in effects)
            if instance.active_job_id is None and settled and instance.id not in self._drifted:
                wanted = {effect.slot: effect.key for effect in effects if effect.present}
                if wanted != held.get(instance.id, {}):
                    there = held.get(instance.id, {})
                    yield f"{instance.name} ({instance.lifecycle}) at rest: the target holds {there}, wanted is {wanted}"


OVERTAKEN = declare("a target was changed under a fence that had ended", "a best-effort one can't refuse it")
_CHANGES = frozenset({Act.MADE, Act.STARTED, Act.REMOVED, Act.DRIFTED})


@observer(System)
def what_lands_after_its_end(system: System) -> Callable[[], None]:
    """On a best-effort target a call that is late may land after its job has ended: then only an inventory can find what it did."""
    new = unread(system.target.ledger)

    def look() -> None:
        for entry in new() if not system.atomic else ():
            place = (entry.call.instance, entry.slot)
            if entry.act in _CHANGES:
                system.overtaken.discard(place)
            if entry.act in _CHANGES - {Act.DRIFTED} and not _is_held(system, entry.call):
                system.overtaken.add(place)
                sometimes(OVERTAKEN)

    return look


def _is_held(system: System, call: Call) -> bool:
    jobs = system.database.jobs.values()
    return any(job.owner and job.fence == call.fence and job.instance_id == call.instance for job in jobs)


@invariant("P3", System, When.END)
def the_target_holds_what_is_wanted(system: System) -> Check:
    """Where no job is open and nothing is held, the target's inventory is what the effects table wants present.

    A slot that was last changed under a fence that had ended is for a reconciler to find.
    """

    def check() -> Iterator[str]:
        held = {(thing.call.instance, thing.call.slot): thing.call.key for thing in system.target.things.values()}
        for instance in system.database.instances.values():
            if instance.hold.value != "none":
                continue
            effects = system.database.effects.get(instance.id, {})
            wanted = {effect.slot: effect.key for effect in effects.values() if effect.present}
            there = {slot: key for (owner, slot), key in held.items() if owner == instance.id}
            wrong = {slot for slot in {*wanted, *there} if wanted.get(slot) != there.get(slot)}
            if any((instance.id, slot) not in system.overtaken for slot in wrong):
                yield f"{instance.name} ({instance.lifecycle}): the target holds {there}, wanted is {wanted}"

    return check


@invariant("P9", System, When.END)
def one_key_one_job(system: System) -> Check:
    """Once something was accepted under a key, all answers under it name one job, and that job is there; a refusal uses up none."""

    def check() -> Iterator[str]:
        for key, answers in system.answers.items():
            accepted = [*dropwhile(lambda named: named is None, map(_job_named, answers))]
            if len(set(accepted)) > 1:
                yield f"key {key} was answered with {', then '.join(map(str, accepted))}"
            for job_id in accepted[:1]:
                if job_id not in system.database.jobs:
                    yield f"key {key} names job {job_id}, which is not there"

    return check


def _job_named(answer: object) -> JobId | None:
    match answer:
        case Repeated(body=body):
            return JobId(body["id"])
        case Submitted(job=job):
            return job.id
        case _:
            return None

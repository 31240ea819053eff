"""The rules of the protocol that the promises rest on, where breaking one shows before a promise is broken.

Each keeps its own books of what happened: it believes nothing that the code under test wrote down about itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sim.invariants import Check, When, invariant, unread
from sim.signed import Travelled
from sim.system import CANARY, System
from sim.twins.provider import Act
from sim.twins.store import MemoryDatabase
from spectrum.core.breakers import FIRST_WAIT, PROBE_TIME, Breaker
from spectrum.core.errors import Problem
from spectrum.core.ids import JobId, TargetId
from spectrum.core.jobs.commands import Done, Holding, Observe, Release, Report, Result, Verdict
from spectrum.core.jobs.model import EPOCH_SHIFT, MAX_RESCUES, Job, Step
from spectrum.core.jobs.table import SATISFIED, UNWOUND, Hold, JobState, Lifecycle, Phase, Reason, StepState
from spectrum.core.plan import Operation
from spectrum.operations import CATALOG

SETTLE_SHARE = 0.95  # of the settle time: a worker's clock may run fast


def _planned(before: Job, after: Job) -> bool:
    return before.state is JobState.WAITING and bool(after.steps)


def _operation(job: Job) -> Operation | None:
    """The operation that is run, believed from here and not from the job."""
    return CATALOG.get((job.operation, job.operation_version))


# ---- who is heard


@invariant("P11", MemoryDatabase)
def only_its_pool_and_lease_speak_of_a_job(database: MemoryDatabase) -> Check:
    """A report or a release changes its job only where it comes from the job's pool and the lease that holds it."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        for before, _after, command in new():
            if before is None or not isinstance(command, Report | Release) or command.job_id != before.id:
                continue
            if command.pool_id != before.pool_id:
                yield f"job {before.id} was changed by a worker of pool {command.pool_id}"
            if before.owner is not None and command.lease_id != before.owner.lease_id:
                yield f"job {before.id} was changed under lease {command.lease_id}, which does not hold it"

    return check


@invariant("P11", MemoryDatabase)
def a_stranger_is_told_nothing(database: MemoryDatabase) -> Check:
    """Whoever speaks of a job of another pool is refused, also where it would change nothing."""
    new = unread(database.told)

    def check() -> Iterator[str]:
        for told in new():
            command = told.command
            if isinstance(command, Report | Release) and isinstance(told.response, Holding | Done):
                job = database.jobs[command.job_id]
                if job.pool_id != command.pool_id:
                    yield f"a worker of pool {command.pool_id} was told of job {job.id}"

    return check


@invariant("P13", Travelled)
def every_call_is_heard_once_as_it_was_sent(travelled: Travelled) -> Check:
    """What the cell admits was sent by that worker, letter by letter, and each number of a lease is heard once."""
    new, believed = unread(travelled.heard), unread(travelled.believed)
    used: set[tuple[str, int]] = set()

    def check() -> Iterator[str]:
        for call in new():
            if (call.worker_id, call.target, call.body) not in travelled.sent:
                yield f"a call to {call.target} was taken for one of {call.worker_id}, which never sent it"
            if call.lease_id is not None and (call.lease_id, call.number) in used:
                yield f"call {call.number} under lease {call.lease_id} was heard twice"
            if call.lease_id is not None:
                used.add((call.lease_id, call.number))
        for answer in believed():
            if answer not in travelled.answered:
                yield f"a worker believed an answer ({answer[1]}) that the cell never gave to its call"

    return check


@invariant("P13", MemoryDatabase)
def reports_are_counted(database: MemoryDatabase) -> Check:
    """Under one fence reports are applied in the order of their numbers, each once."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        for before, after, command in new():
            if before is None or not isinstance(command, Report) or command.job_id != after.id:
                continue
            last, now = before.last_report, after.last_report
            expected = last.number + 1 if last.fence == now.fence else 1
            if now.number != expected:
                yield f"report {now.number} of job {after.id} was applied under fence {now.fence} in the place of {expected}"

    return check


@invariant("P4", MemoryDatabase)
def fences_and_tokens_bear_the_epoch(database: MemoryDatabase) -> Check:
    """What is given out after a database was put back is higher than all that was given out before, whatever it has forgotten."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        for before, after, _command in new():
            known = {before.fence, *(step.token for step in before.steps)} if before is not None else {0}
            for number in {after.fence, *(step.token for step in after.steps)} - known - {0}:
                if number >> EPOCH_SHIFT != database.epoch:
                    yield f"job {after.id} was given {number}, which is not of epoch {database.epoch}"

    return check


@invariant("P4", MemoryDatabase)
def who_speaks_of_an_attempt_made_it(database: MemoryDatabase) -> Check:
    """That an attempt is done is told under the fence that it was made under; anybody else can only say what is to be seen."""
    new = unread(database.told)

    def check() -> Iterator[str]:
        for told in new():
            if not isinstance(told.command, Report) or not isinstance(told.response, Holding):
                continue
            for outcome in told.command.outcomes:
                made = outcome.token or 0
                if outcome.result is Result.DONE and made and made < told.command.fence:
                    where = f"{outcome.step} of {told.command.job_id}"
                    yield f"{where} is told done under fence {told.command.fence}, its token is {made}"

    return check


@invariant("P4", MemoryDatabase)
def an_owner_has_a_living_lease(database: MemoryDatabase) -> Check:
    """A job is given to nobody whose lease has ended, and nobody gets another answer under a claim number that was answered."""
    new = unread(database.history)
    granted: dict[tuple[str, int], tuple[tuple[str, int], ...]] = {}
    highest: dict[str, int] = {}

    def check() -> Iterator[str]:
        claimed = False
        for before, after, _command in new():
            if after.owner is not None and (before is None or before.fence != after.fence):
                claimed = True
                if after.fence <= highest.get(after.instance_id, 0):
                    yield f"job {after.id} was claimed under fence {after.fence}, its instance had a higher one"
                lease = database.leases[after.owner.lease_id]
                if not lease.live or lease.incarnation != after.owner.incarnation:
                    yield f"job {after.id} was given to lease {lease.id}, which has ended"
                if before is not None and before.not_before and before.not_before > database.clock:
                    yield f"job {after.id} was claimed before {before.not_before}"
            highest[after.instance_id] = max(highest.get(after.instance_id, 0), after.fence)
        for lease in database.leases.values() if claimed else ():
            place = (lease.id, lease.claim)
            if granted.setdefault(place, lease.claim_answer) != lease.claim_answer:
                yield f"claim {lease.claim} of lease {lease.id} was answered in two ways"

    return check


@invariant("P17", MemoryDatabase)
def what_is_seen_is_of_now(database: MemoryDatabase) -> Check:
    """An observation changes an instance only where nothing has moved since it was asked for."""
    new, told = unread(database.changes), unread(database.told)
    counters: dict[str, int] = {}  # before the commit that is looked at

    def check() -> Iterator[str]:
        for answer in told():
            seen, response = answer.command, answer.response
            if not isinstance(seen, Observe) or not isinstance(response, Done) or not response.changed:
                continue
            if seen.fence < counters.get(seen.instance_id, 0):
                yield f"{seen.instance_id} was changed by an observation that began before its last job"
        for change in new():
            counters[change.after.id] = change.after.counter
            if isinstance(change.command, Observe) and change.before and change.before.active_job_id is not None:
                yield f"{change.after.name} was changed by an observation while a job was active"

    return check


# ---- who goes on, and how


@invariant("P19", MemoryDatabase)
class PoisonIsCountedRightly:
    """A job is poison after the loss of more workers in a row than are allowed, never before, never later, and then it is alone."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._new = unread(database.history)
        self._facts = unread(database.events)
        self._database = database
        self._lost: defaultdict[str, int] = defaultdict(int)

    def __call__(self) -> Iterator[str]:
        # Several may be lost in one step.
        rescued = {e.fact.data["job_id"] for e in self._facts() if e.fact.type == "job.rescued"}
        for before, after, _command in self._new():
            if before is not None:
                yield from self._change(before, after, after.id in rescued)

    def _change(self, before: Job, after: Job, was_rescued: bool) -> Iterator[str]:
        if _progressed(before, after):
            self._lost[after.id] = 0
        poisoned = after.reason is Reason.POISON and before.reason is not Reason.POISON
        if before.state is JobState.RUNNING and (after.state is JobState.READY or poisoned) and was_rescued:
            self._lost[after.id] += 1
        lost = self._lost[after.id]
        if poisoned and lost <= MAX_RESCUES:
            yield f"job {after.id} is poison after the loss of {lost} workers in a row"
        if not after.state.terminal and after.reason is None and lost > MAX_RESCUES:
            yield f"job {after.id} goes on after the loss of {lost} workers in a row"
        if poisoned and not after.alone:
            yield f"job {after.id} is poison, and may run beside others"
        if after.owner is not None and after.alone and before.owner is None:
            others = [
                j.id for j in self._database.jobs.values() if j.owner and j.owner.lease_id == after.owner.lease_id
            ]
            if len(others) > 1:
                yield f"job {after.id} is to run alone, and its worker has {len(others) - 1} others"


def _progressed(before: Job, after: Job) -> bool:
    news = {(s.id, s.state) for s in after.steps} - {(s.id, s.state) for s in before.steps}
    return any(state in (StepState.DONE, StepState.UNDONE, StepState.PENDING) for _, state in news)


@invariant("P5", MemoryDatabase)
def waiters_take_their_turns(database: MemoryDatabase) -> Check:
    """A delete goes first, then who came first; nobody begins on an instance on hold but who may."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        promoted = [after for before, after, _ in new() if before is not None and _planned(before, after)]
        for job in promoted:
            operation = _operation(job)
            hold = database.instances[job.instance_id].hold
            if hold is not Hold.NONE and operation is not None and not operation.on_hold:
                yield f"job {job.id} ({job.operation}) was begun on an instance that is {hold}"
            waiting = [
                j for j in database.jobs.values() if j.instance_id == job.instance_id and j.state is JobState.WAITING
            ]
            for other in waiting:
                if _turn(other) < _turn(job):
                    yield f"job {job.id} ({job.operation}) had its turn before {other.id} ({other.operation})"

    return check


def _turn(job: Job) -> tuple[bool, int]:
    operation = _operation(job)
    return (operation is None or not operation.preempts, job.number)


@invariant("P5", MemoryDatabase)
def steps_follow_the_plan(database: MemoryDatabase) -> Check:
    """A step is begun once what it needs is done, undone once what was built on it is undone, and none once a cancel is asked."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        for before, after, _command in new():
            if before is None or before.steps is after.steps:
                continue
            known = {step.id: step for step in before.steps}
            for step in after.steps:
                if step.outstanding and step.token != known.get(step.id, step).token:
                    yield from _begun(before, after, step)

    return check


def _begun(before: Job, after: Job, step: Step) -> Iterator[str]:
    by_name = {each.name: each for each in after.steps}
    if step.phase is Phase.UNDO:
        users = [each for each in after.steps if step.name in each.needs and each.state not in UNWOUND]
        if users:
            yield f"{step.name} of job {after.id} is undone before {users[0].name}, which is built on it"
        return
    missing = [need for need in step.needs if by_name[need].state not in SATISFIED]
    if missing:
        yield f"{step.name} of job {after.id} is begun before {missing[0]}, which it needs"
    if before.state is JobState.CANCELLING:
        yield f"{step.name} of job {after.id} is begun after its cancel was asked for"


@invariant("P20", MemoryDatabase)
def who_runs_does_not_wait(database: MemoryDatabase) -> Check:
    """A job that somebody runs waits for nothing, but for its holder where it is to be cancelled."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        for _before, after, _command in new():
            runs = after.owner is not None and after.state is not JobState.CANCELLING
            if runs and (after.waiting is not None or after.not_before is not None):
                yield f"job {after.id} is {after.state} in the hands of {after.owner} and says that it waits"
            if after.state.terminal and (after.waiting is not None or after.owner is not None):
                yield f"job {after.id} has {after.state} and says that it waits, or that somebody has it"

    return check


@invariant("P9", System)
def a_key_is_for_one_request(system: System) -> Check:
    """A key under which something was accepted is refused for anything else."""
    new = unread(system.reused)

    def check() -> Iterator[str]:
        for key, answer in new():
            refused = isinstance(answer, Problem) and answer.slug in ("idempotency-key-reused", "unavailable")
            if answer is not None and not refused:
                yield f"key {key} was taken for another request, and answered with {answer!r:.80}"

    return check


# ---- effects


@invariant("P3", System)
class NothingIsMadeUnannounced:
    """Whatever a target holds stands in the effects table, from before it was made until its absence is proven."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._new = unread(system.target.ledger)

    def __call__(self) -> Iterator[str]:
        for entry in self._new():
            call = entry.call
            known = self._system.database.effects.get(call.instance, {})
            watched = self._system.atomic and not self._system.database.forgetful
            if entry.act is Act.MADE and (call.slot, call.key) not in known and watched:
                yield f"{call.key} was made in {call.slot} of {call.instance}, and the effects table does not know it"


@invariant("P3", MemoryDatabase)
class WhatWasThereComesBack:
    """A job that was undone without residue leaves every slot of its plan wanted as it was when it was planned."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._new = unread(database.history)
        self._then: dict[str, dict[str, str]] = {}

    def __call__(self) -> Iterator[str]:
        for before, after, _command in self._new():
            if before is not None and _planned(before, after):
                self._then[after.id] = self._wanted(after)
            undone = after.state in (JobState.FAILED, JobState.CANCELLED) and after.id in self._then
            all_back = all(step.state in UNWOUND for step in after.steps)
            if undone and all_back and not after.residue and before is not None and not before.state.terminal:
                now, then = self._wanted(after), self._then[after.id]
                yield from self._unproven(after)
                for slot in {step.slot for step in after.steps if step.slot}:
                    if now.get(slot) != then.get(slot):
                        yield f"job {after.id} has {after.state} and left {slot} wanted as {now.get(slot)}, not as {then.get(slot)}"

    def _unproven(self, job: Job) -> Iterator[str]:
        touched = {step.slot for step in job.steps if step.touched}
        for effect in self._database.effects.get(job.instance_id, {}).values():
            if effect.slot in touched and not (effect.proven or effect.replaced):
                yield f"job {job.id} has {job.state}, and nobody has seen {effect.slot} undone"

    def _wanted(self, job: Job) -> dict[str, str]:
        return {e.slot: e.key for e in self._database.effects.get(job.instance_id, {}).values() if e.present}


@invariant("P2", MemoryDatabase)
class WhatWasReplacedStaysAway:
    """A key that was given up as undecidable is never wanted present again."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._new = unread(database.changes)
        self._given_up: set[tuple[str, str, str]] = set()

    def __call__(self) -> Iterator[str]:
        for change in self._new():
            for effect in self._database.effects.get(change.after.id, {}).values():
                place = (change.after.id, effect.slot, effect.key)
                if effect.replaced:
                    self._given_up.add(place)
                if effect.present and place in self._given_up:
                    yield f"{effect.key} in {effect.slot} was given up, and is wanted again"


@invariant("P16", System)
class AbsentIsSeenTwice:
    """An effect is taken for absent once it was seen absent twice, with the target's settle time between."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._new = unread(system.target.ledger)
        self._told = unread(system.database.told)
        self._seen: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)

    def __call__(self) -> Iterator[str]:
        for entry in self._new():
            call = entry.call
            if entry.act is Act.ARRIVED and not call.token and call.slot:
                self._seen[call.instance, call.slot, call.fence].append(entry.at)
        for told in self._told():
            report = told.command
            if not isinstance(report, Report) or not isinstance(told.response, Holding):
                continue
            for outcome in report.outcomes:
                if outcome.result is Result.ABSENT:
                    yield from self._absent(report, outcome.step)

    def _absent(self, report: Report, name: str) -> Iterator[str]:
        step = self._system.database.jobs[report.job_id].step(name)
        assert step is not None
        looks = self._seen[report.instance_id, step.slot or "", report.fence]
        if len(looks) < 2 or looks[-1] - looks[0] < self._system.target.settle * SETTLE_SHARE:
            yield f"{name} of job {report.job_id} was taken for absent after looks at {looks}"


@invariant("P3", System)
class UndoneIsSeen:
    """An undo is done once its call has reached the target, and a job is unwound after looks at what is left: two where a late call
    may still land.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._new = unread(system.target.ledger)
        self._told = unread(system.database.told)
        self._arrived: set[tuple[str, str, int]] = set()
        self._looks: Counter[tuple[str, int]] = Counter()  # since the last call that was to change something
        self._newest: Counter[tuple[str, int]] = Counter()  # token: an older one that arrives late is refused

    def __call__(self) -> Iterator[str]:
        for entry in self._new():
            call = entry.call
            if entry.act is Act.ARRIVED and call.token:
                copy = (call.instance, call.slot, call.token) in self._arrived  # what it was to change is changed
                self._arrived.add((call.instance, call.slot, call.token))
                if call.token >= self._newest[call.instance, call.fence] and not copy:
                    self._newest[call.instance, call.fence] = call.token
                    self._looks[call.instance, call.fence] = 0
            elif entry.act is Act.ARRIVED and not call.slot:
                self._looks[call.instance, call.fence] += 1
        for told in self._told():
            if isinstance(told.command, Report) and isinstance(told.response, Holding):
                yield from self._report(told.command)

    def _report(self, report: Report) -> Iterator[str]:
        job = self._system.database.jobs[report.job_id]
        for outcome in report.outcomes:
            step = job.step(outcome.step)
            undone = outcome.phase is Phase.UNDO and outcome.result is Result.DONE and step is not None and step.slot
            if undone and (job.instance_id, undone, outcome.token) not in self._arrived:
                yield f"{outcome.step} of job {job.id} is told undone, and no call of token {outcome.token} has arrived"
        looks = self._looks[job.instance_id, report.fence]
        if report.verdict is Verdict.UNWOUND and looks < (1 if self._system.atomic else 2):
            yield f"job {job.id} is told unwound after {looks} looks at what is left"


# ---- the target


@invariant("P14", MemoryDatabase)
class OneProbeAtATime:
    """A target that does not answer is left alone until its wait is over; then one job is claimed or one attempt begun, and the
    next only once that was answered or its time is over.
    """

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._new = unread(database.history)
        self._known: dict[TargetId, Breaker] = {}
        self._next_at: dict[TargetId, datetime] = {}
        self._probe: dict[TargetId, JobId | None] = {}

    def __call__(self) -> Iterator[str]:
        moves = [(before, after) for before, after, _command in self._new() if before is not None]
        told = {
            target_id for target_id, breaker in self._database.breakers.items() if self._has_told(target_id, breaker)
        }
        for before, after in moves:
            target_id = self._database.instances[after.instance_id].target_id
            # What a flush held that changed the breaker may have come before it, or after.
            if (
                target_id not in told
                and not self._database.forgetful
                and self._known.get(target_id, Breaker()).openings
            ):
                yield from self._began(target_id, before, after)

    def _has_told(self, target_id: TargetId, breaker: Breaker) -> bool:
        """Whether an answer was counted since the last look: the target answered, or failed to once more."""
        before, self._known[target_id] = self._known.get(target_id, Breaker()), breaker
        if before.openings == breaker.openings:
            return False
        self._next_at[target_id], self._probe[target_id] = self._database.clock + FIRST_WAIT, None
        return True

    def _began(self, target_id: TargetId, before: Job, after: Job) -> Iterator[str]:
        claimed = after.owner is not None and after.fence != before.fence
        tokens = {step.id: step.token for step in before.steps}
        attempts = [step.name for step in after.steps if step.outstanding and step.token != tokens.get(step.id)]
        for what in ("its claim",) if claimed else attempts:
            now = self._database.clock
            if now < self._next_at[target_id] and (claimed or self._probe[target_id] != after.id):
                yield f"{what} of job {after.id} began before {self._next_at[target_id]}, though {target_id} does not answer"
            self._next_at[target_id] = now + PROBE_TIME
            self._probe[target_id] = after.id if claimed else None


# ---- the end


@invariant("P1", System, When.END)
def nothing_is_left_half_way(system: System) -> Check:
    """At rest no instance is still being created, no job has run into its deadline, and every effect is proven."""

    def check() -> Iterator[str]:
        database = system.database
        for instance in database.instances.values():
            if instance.lifecycle is Lifecycle.CREATING:
                yield f"{instance.name} is being created, and no job does it"
            unproven = [e.slot for e in database.effects.get(instance.id, {}).values() if not (e.proven or e.replaced)]
            if unproven and instance.hold is Hold.NONE:
                yield f"{instance.name} is at rest, and nobody knows of {', '.join(unproven)}"
        for job in database.jobs.values():
            if job.reason is Reason.DEADLINE and not system.in_a_hurry:
                yield f"job {job.id} ({job.operation}) has run into its deadline: {job.failure and job.failure.message}"

    return check


@invariant("P3", MemoryDatabase)
def what_is_left_is_told(database: MemoryDatabase) -> Check:
    """A job that leaves a residue puts its instance on hold in the same moment, and leaves evidence."""
    new = unread(database.history)

    def check() -> Iterator[str]:
        for before, after, _command in new():
            ended = after.state.terminal and (before is None or not before.state.terminal)
            forward = ended and (operation := _operation(after)) is not None and operation.forward_only
            if ended and after.residue and not forward and database.instances[after.instance_id].hold is Hold.NONE:
                yield f"job {after.id} has left {', '.join(after.residue)}, and its instance is not on hold"
            left = [s.slot for s in after.steps if s.slot and s.state is StepState.UNDO_FAILED]
            if ended and left and not after.residue:
                yield f"job {after.id} could not undo {', '.join(left)}, and says nothing of it"

    return check


@invariant("P18", MemoryDatabase)
class NoSecretIsTold:
    """No event, audit row, job or instance holds what an instance's programs said of its secrets."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._events, self._audit = unread(database.events), unread(database.audit)
        self._jobs = unread(database.history)

    def __call__(self) -> Iterator[str]:
        for what in (*self._events(), *self._audit()):
            if CANARY in repr(what):
                yield f"a secret stands in {what!r:.120}"
        for before, after, _command in self._jobs():
            if before is not None and _said(after) != _said(before) and CANARY in repr(_said(after)):
                yield f"a secret stands in job {after.id}"


def _said(job: Job) -> tuple[Any, ...]:
    return (job.failure, *((step.failure, step.output) for step in job.steps))

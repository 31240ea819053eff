"""Whatever is asked, reported, lost or left waiting, in whatever order: the promises that one instance's jobs keep."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sim.promises import REACHABLE
from spectrum.core import plan as plans
from spectrum.core.errors import Problem
from spectrum.core.jobs.commands import Outcome, Result, Verdict
from spectrum.core.jobs.model import Job, Step
from spectrum.core.jobs.table import OWNABLE, UNWOUND, Hold, JobState, Phase, StepState, WaitsFor
from tests.unit.jobs.bench import LATER, LEASE, NEVER, OPERATIONS, OTHER, Bench, creating

ENDS = frozenset(f"job.{state}" for state in JobState if state.terminal)
FAILURES = {Result.ERROR: (LATER, NEVER), Result.TIMEOUT: (LATER,)}


class AnyHistory(RuleBasedStateMachine):
    """Drives `decide` as vendors, workers, clocks and their failures would."""

    def __init__(self) -> None:
        super().__init__()
        self.bench: Bench = creating()
        self.before = self.bench.aggregate
        self.open_attempts: Counter[tuple[str, int]] = Counter()

    # ---- what happens

    def do(self, what: str, *arguments: object, **rest: object) -> None:
        """Apply a command; a refusal changes no row."""
        before = self.bench.aggregate
        try:
            getattr(self.bench, what)(*arguments, **rest)
        except Problem:
            assert self.bench.aggregate is before
        else:
            self._record()

    @rule(operation=st.sampled_from([operation.name for operation in OPERATIONS if operation.name != "create"]))
    def somebody_asks(self, operation: str) -> None:
        self.do("submit", operation)

    @rule(pick=st.integers(0, 20))
    def somebody_cancels(self, pick: int) -> None:
        jobs = list(self.bench.aggregate.jobs.values())
        self.do("cancel", jobs[pick % len(jobs)])

    @rule(seconds=st.sampled_from([0.1, 5.0, 70.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.wait(seconds)
        self.do("tick")

    @rule(seconds=st.sampled_from([5.0, 5_000.0]))
    def time_is_lost(self, seconds: float) -> None:
        self.bench.lose_time(seconds)
        self.do("tick")

    @precondition(lambda self: self.active is not None)
    @rule(lease=st.sampled_from([LEASE, OTHER]), busy=st.booleans())
    def a_worker_claims(self, lease: object, busy: bool) -> None:
        self.do("claim", lease, holds_others=busy)

    @precondition(lambda self: self.active is not None)
    @rule()
    def its_owner_is_lost(self) -> None:
        self.do("lose")

    @precondition(lambda self: self.held is not None)
    @rule(seconds=st.sampled_from([None, 1.0]))
    def its_owner_hands_it_back(self, seconds: float | None) -> None:
        self.do("release", seconds, lease=self.held.owner.lease_id)  # type: ignore[union-attr]

    @precondition(lambda self: self.held is not None)
    @rule(data=st.data())
    def its_owner_reports(self, data: st.DataObject) -> None:
        job = self.held
        assert job is not None
        assert job.owner is not None
        outcomes = tuple(
            self._outcome(data, step) for step in job.steps if self._speaks(step) and data.draw(st.booleans())
        )
        intents = tuple(step.name for step in self._startable(job) if data.draw(st.booleans()))
        verdict = data.draw(st.sampled_from(list(Verdict)))
        reopen = tuple(step.name for step in job.steps) if verdict is Verdict.REOPENED else ()
        self.do("report", *outcomes, intents=intents, verdict=verdict, reopen=reopen, lease=job.owner.lease_id)

    @precondition(lambda self: self.active is not None)
    @rule(back=st.integers(1, 5), number=st.integers(1, 4))
    def a_zombie_reports(self, back: int, number: int) -> None:
        job = self.active
        assert job is not None
        stale = job.fence - back
        before = self.bench.aggregate
        self.do("report", fence=stale, number=number, intents=tuple(step.name for step in job.steps))
        assert self.bench.aggregate == before

    # ---- what its owner may say

    def _speaks(self, step: Step) -> bool:
        return step.outstanding or step.state is StepState.UNKNOWN

    def _outcome(self, data: st.DataObject, step: Step) -> Outcome:
        result = data.draw(st.sampled_from(list(Result)))
        failure = data.draw(st.sampled_from(FAILURES[result])) if result in FAILURES else None
        return Outcome(step.name, step.phase, step.token, result, failure)

    def _startable(self, job: Job) -> list[Step]:
        if job.state is JobState.UNWINDING:
            return plans.unwindable(job.steps)
        return plans.ready(job.steps)

    @property
    def active(self) -> Job | None:
        active = self.bench.instance.active_job_id
        return self.bench.aggregate.jobs[active] if active else None

    @property
    def held(self) -> Job | None:
        return self.active if self.active is not None and self.active.owned else None

    # ---- what must hold

    def _record(self) -> None:
        """Compare what was with what is: every change by the table, versions and fences only growing."""
        before, after = self.before, self.bench.aggregate
        for job_id, old in before.jobs.items():
            new = after.jobs[job_id]
            if new != old:
                assert not old.state.terminal, "terminal is final"
                assert new.state in REACHABLE[old.state]
                assert new.version == old.version + 1
                assert new.fence >= old.fence
                gone = old.owner is not None and new.owner is None and not new.state.terminal
                assert not gone or new.fence > old.fence
        assert after.instance.counter >= before.instance.counter
        changed = (after.instance, after.jobs, after.effects) != (before.instance, before.jobs, before.effects)
        assert after.instance.version == before.instance.version + changed
        over = {job.id for job in before.jobs.values() if job.state.terminal}
        ended = {job.id for job in after.jobs.values() if job.state.terminal} - over
        said = [fact.data["job_id"] for fact in self.bench.consequences.facts if fact.type in ENDS]
        assert sorted(said) == sorted(ended), "every end is said, and once"
        sequences = [fact.sequence for fact in self.bench.consequences.facts]
        first = before.instance.event_sequence + 1
        assert sequences == list(range(first, first + len(sequences)))
        self._record_attempts()
        self.before = after

    def _record_attempts(self) -> None:
        for attempt in self.bench.consequences.opened:
            assert (attempt.step_id, attempt.number) not in self.open_attempts, "attempts are never overwritten"
            self.open_attempts[attempt.step_id, attempt.number] = attempt.outcome is None
        for closing in self.bench.consequences.closed:
            self.open_attempts[closing.step_id, closing.number] = 0

    @invariant()
    def there_is_one_active_job_and_an_owner_only_where_there_may_be_one(self) -> None:
        open_jobs = [j for j in self.bench.aggregate.jobs.values() if not j.state.terminal]
        active = [job.id for job in open_jobs if job.state is not JobState.WAITING]
        assert active == ([self.bench.instance.active_job_id] if self.bench.instance.active_job_id else [])
        assert all(job.state in OWNABLE for job in self.bench.aggregate.jobs.values() if job.owned)

    @invariant()
    def nobody_waits_without_a_reason_or_for_nothing(self) -> None:
        for job in self.bench.aggregate.jobs.values():
            if not job.state.terminal and not job.owned:
                assert job.waiting is not None
        waiting = [j for j in self.bench.aggregate.jobs.values() if j.waiting and j.waiting.what is WaitsFor.QUEUE]
        assert not waiting or self.bench.instance.active_job_id is not None

    @invariant()
    def a_slot_is_wanted_once(self) -> None:
        wanted = Counter(effect.slot for effect in self.bench.aggregate.effects.values() if effect.present)
        assert all(count == 1 for count in wanted.values())

    @invariant()
    def success_means_that_every_step_is_done(self) -> None:
        for job in self.bench.aggregate.jobs.values():
            states = {step.state for step in job.steps}
            if job.state is JobState.SUCCEEDED:
                assert states <= {StepState.DONE, StepState.SKIPPED}
                assert job.failure is None
            elif job.state.terminal and job.touched and not job.residue:
                assert states <= UNWOUND
            if job.state is JobState.UNWINDING:
                assert all(s.phase is Phase.UNDO or s.outstanding or s.state in UNWOUND for s in job.steps)

    @invariant()
    def nothing_is_left_open_by_a_job_that_ended(self) -> None:
        ended = {s.id for j in self.bench.aggregate.jobs.values() if j.state.terminal for s in j.steps}
        assert not [place for place, is_open in self.open_attempts.items() if is_open and place[0] in ended]

    @invariant()
    def residue_is_quarantined_until_it_is_cleared(self) -> None:
        quarantines = [fact for fact in self.bench.facts if fact.type == "instance.quarantined"]
        assert self.bench.instance.hold is Hold.NONE or quarantines


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_any_history_keeps_the_promises = AnyHistory.TestCase

"""A bench for decisions: one aggregate, a clock that is moved by hand, and every command with what it usually carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from spectrum.core import ids
from spectrum.core.errors import Actor, ErrorClass, Failure
from spectrum.core.ids import (
    InstanceId,
    JobId,
    LeaseId,
    OrganizationId,
    PlacementId,
    PoolId,
    ReleaseId,
    TargetId,
    WorkerId,
)
from spectrum.core.jobs.commands import (
    Answer,
    Cancel,
    Claim,
    Command,
    Consequences,
    Done,
    Fact,
    Holding,
    Intent,
    Lose,
    Observe,
    Outcome,
    Rejection,
    Release,
    Report,
    Result,
    Submit,
    Submitted,
    Tick,
    Verdict,
)
from spectrum.core.jobs.decide import decide
from spectrum.core.jobs.model import Aggregate, Instance, Job, Owner, Spec, Step, Surroundings
from spectrum.core.jobs.table import JobState, Lifecycle, Phase, Wants
from spectrum.core.plan import Catalog, Given, Node, Operation, Plan

START = datetime(2026, 1, 1, tzinfo=UTC)
ORGANIZATION = OrganizationId("org_00000000-0000-7000-8000-000000000001")
INSTANCE = InstanceId("ins_00000000-0000-7000-8000-000000000001")
POOL = PoolId("pol_00000000-0000-7000-8000-000000000001")
LEASE = LeaseId("lea_00000000-0000-7000-8000-000000000001")
ELSEWHERE = PoolId("pol_00000000-0000-7000-8000-000000000002")
OTHER = LeaseId("lea_00000000-0000-7000-8000-000000000002")
WORKER = WorkerId("wrk_00000000-0000-7000-8000-000000000001")
RELEASE = ReleaseId("rel_00000000-0000-7000-8000-000000000001")
SPEC = Spec("hello", "1", RELEASE, "small")
JOB_SECONDS = 1_000.0
UNWIND_SECONDS = 500.0

LATER = Failure(ErrorClass.TRANSIENT, "not-yet", "Try again.")
NEVER = Failure(ErrorClass.INVALID, "no-use", "It will never work.", Actor.VENDOR)


def _plan(*nodes: Node) -> Any:
    return lambda given: Plan(nodes, JOB_SECONDS, UNWIND_SECONDS)


DISK = Node("disk", "ensure", "data/volume", Wants.PRESENT, tries=3)
WEB = Node("web", "ensure", "web/container", Wants.PRESENT, ("disk",), tries=3)
CHECK = Node("check", "check", needs=("web",), tries=100)
DOWN = Node("down", "remove", "web/container", Wants.ABSENT, destructive=True)
WIPE = Node("wipe", "remove", "data/volume", Wants.ABSENT, irreversible=True, destructive=True, tries=100)


def _keep(given: Given) -> Plan:
    kept = given.present["data/volume"].key
    return Plan((Node("keep", "ensure", "data/volume", Wants.PRESENT, key=kept),), JOB_SECONDS, UNWIND_SECONDS)


def _operation(name: str, allowed: set[Lifecycle], plan: Any, after: Lifecycle | None = None, **rest: Any) -> Operation:
    return Operation(name, 1, frozenset(allowed), plan, {}, success=lambda instance, job: after, **rest)


_R, _S, _D, _C, _F = Lifecycle.RUNNING, Lifecycle.STOPPED, Lifecycle.DELETED, Lifecycle.CREATING, Lifecycle.FAILED

OPERATIONS = (
    _operation("create", {_C}, _plan(DISK, WEB, CHECK), _R, failure=_F),
    _operation("stop", {_R}, _plan(DOWN), _S),
    _operation("start", {_S}, _plan(replace(WEB, needs=())), _R),
    _operation("keep", {_R, _S}, _keep),
    _operation("wipe", {_R, _S}, _plan(DOWN, replace(WIPE, needs=("down",)), Node("gone", "check", needs=("wipe",)))),
    _operation("delete", {_R, _S, _F}, _plan(DOWN), _D, on_hold=True, preempts=True, clears_hold=True),
    _operation("purge", {_D, _F}, _plan(WIPE), Lifecycle.PURGED, forward_only=True),
    _operation(
        "resolve", set(Lifecycle) - {Lifecycle.PURGED, _C}, _plan(DOWN), on_hold=True, clears_hold=True, needs_hold=True
    ),
)
CATALOG: Catalog = {(operation.name, operation.version): operation for operation in OPERATIONS}


@dataclass
class Bench:
    """An instance and its jobs. Every method applies one command and returns its answer, or raises the `Problem`."""

    aggregate: Aggregate = field(default_factory=lambda: Aggregate(_new()))
    around: Surroundings = field(default_factory=lambda: Surroundings(START, epoch=1))
    consequences: Consequences = field(default_factory=Consequences)  # of the last command
    refused: Rejection | None = None
    facts: list[Fact] = field(default_factory=list)
    commands: int = 0
    claims: int = 0
    _numbers: dict[tuple[JobId, int], int] = field(default_factory=dict)

    # ---- what there is

    @property
    def instance(self) -> Instance:
        return self.aggregate.instance

    def job(self, job: Job) -> Job:
        return self.aggregate.jobs[job.id]

    @property
    def active(self) -> Job:
        assert self.instance.active_job_id is not None
        return self.aggregate.jobs[self.instance.active_job_id]

    def step(self, name: str) -> Step:
        step = self.active.step(name)
        assert step is not None
        return step

    def wanted(self) -> dict[str, str]:
        return {effect.slot: effect.key for effect in self.aggregate.effects.values() if effect.present}

    # ---- time

    def wait(self, seconds: float) -> None:
        self.around = replace(self.around, now=self.around.now + timedelta(seconds=seconds))

    def lose_time(self, seconds: float) -> None:
        """Let time pass in which no deadline could be met."""
        self.wait(seconds)
        self.around = replace(self.around, lost=self.around.lost + timedelta(seconds=seconds))

    # ---- commands

    def apply(self, command: Command) -> Answer:
        decision = decide(self.aggregate, command, self.around, CATALOG)
        self.refused = decision if isinstance(decision, Rejection) else None
        if isinstance(decision, Rejection):
            raise decision.problem
        self.aggregate, self.consequences = decision.aggregate, decision.consequences
        self.facts.extend(decision.consequences.facts)
        return decision.answer

    def submit(self, operation: str, **rest: Any) -> Job:
        number = self.commands + 1
        job_id = JobId(ids.make("job", self.around.now, number.to_bytes(10, "big")))
        submit = Submit(**self._common(), job_id=job_id, operation=operation, operation_version=1, **rest)
        answer = self.apply(submit)
        assert isinstance(answer, Submitted)
        return answer.job

    def claim(self, lease: LeaseId = LEASE, **rest: Any) -> Holding:
        self.claims += 1
        owner = Owner(lease, WORKER, 1, self.claims)
        return self._holding(Claim(**self._common(), job_id=self.active.id, owner=owner, **rest))

    def report(
        self,
        *outcomes: Outcome,
        intents: tuple[str, ...] = (),
        verdict: Verdict = Verdict.NONE,
        reopen: tuple[str, ...] = (),
        number: int | None = None,
        fence: int | None = None,
        lease: LeaseId = LEASE,
        pool: PoolId = POOL,
        job: Job | None = None,
    ) -> Holding:
        """The next report of the active job's holder."""
        job = job or self.active
        under = job.fence if fence is None else fence
        due = self._numbers.get((job.id, under), 0) + 1
        asked = tuple(Intent(name, self._phase(job, name)) for name in intents)
        holding = self._holding(
            Report(
                **self._common(),
                job_id=job.id,
                lease_id=lease,
                pool_id=pool,
                fence=under,
                number=number or due,
                outcomes=outcomes,
                intents=asked,
                verdict=verdict,
                reopen=reopen,
            )
        )
        self._numbers[job.id, under] = number or due
        return holding

    def did(self, name: str, result: Result = Result.DONE, failure: Failure | None = None, **output: Any) -> Outcome:
        """The outcome of the step's present attempt."""
        step = self.step(name)
        return Outcome(name, step.phase, step.token, result, failure, output)

    def release(
        self,
        seconds: float | None = None,
        fence: int | None = None,
        lease: LeaseId = LEASE,
        pool: PoolId = POOL,
    ) -> Done:
        until = None if seconds is None else self.around.now + timedelta(seconds=seconds)
        job = self.active
        under = fence or job.fence
        return self._done(
            Release(**self._common(), job_id=job.id, lease_id=lease, pool_id=pool, fence=under, until=until)
        )

    def lose(self, job: Job | None = None, fence: int | None = None) -> Done:
        job = job or self.active
        return self._done(Lose(**self._common(), job_id=job.id, fence=fence or job.fence, why="its lease lapsed"))

    def cancel(self, job: Job | None = None) -> Done:
        return self._done(Cancel(**self._common(), job_id=(job or self.active).id))

    def tick(self) -> Done:
        return self._done(Tick(**self._common()))

    def observe(self, **rest: Any) -> Done:
        given: Mapping[str, Any] = {"fence": self.instance.counter, "generation": self.instance.generation, **rest}
        return self._done(Observe(**self._common(), asked_at=self.around.now, **given))

    # ---- whole ways

    def run(self, *names: str) -> Job:
        """Claim the active job unless somebody has it, and do these steps one after another, or all of them."""
        job = self.active
        if not job.owned:
            self.claim()
        for name in names or tuple(step.name for step in job.steps):
            self.report(intents=(name,))
            self.report(self.did(name))
        return self.job(job)

    def undo(self) -> Job:
        """Undo every touched step of the active job, newest first, and say that all is as it was."""
        job = self.active
        if not job.owned:
            self.claim()
        for step in reversed(self.active.steps):
            if step.touched and self.step(step.name).state.value == "undoing":
                self.report(intents=(step.name,))
                self.report(self.did(step.name))
        self.report(verdict=Verdict.UNWOUND)
        return self.job(job)

    def run_out_of_luck(self, name: str) -> Job:
        """Let a step of the active job fail for good, and undo everything."""
        job = self.active
        if not job.owned:
            self.claim()
        self.report(intents=(name,))
        self.report(self.did(name, Result.ERROR, NEVER))
        self.undo()
        return self.job(job)

    def leave_residue(self, name: str) -> Job:
        """Let a step of the active job fail for good, its undo too, and undo the rest."""
        job = self.active
        if not job.owned:
            self.claim()
        self.report(intents=(name,))
        self.report(self.did(name, Result.ERROR, NEVER))
        self.report(intents=(name,))
        self.report(self.did(name, Result.ERROR, NEVER))
        self.undo()
        return self.job(job)

    def _common(self) -> dict[str, Any]:
        self.commands += 1
        return {
            "id": f"command-{self.commands}",
            "instance_id": INSTANCE,
            "organization_id": ORGANIZATION,
            "actor": "vendor:ada",
        }

    def _phase(self, job: Job, name: str) -> Phase:
        if job.state is JobState.UNWINDING:
            return Phase.UNDO
        step = job.step(name)
        return Phase.REPLACE if step is not None and step.state.value == "replacing" else Phase.DO

    def _holding(self, command: Command) -> Holding:
        answer = self.apply(command)
        assert isinstance(answer, Holding)
        return answer

    def _done(self, command: Command) -> Done:
        answer = self.apply(command)
        assert isinstance(answer, Done)
        return answer


def _new() -> Instance:
    return Instance(
        id=INSTANCE,
        organization_id=ORGANIZATION,
        name="acme",
        target_id=TargetId("tgt_00000000-0000-7000-8000-000000000001"),
        pool_id=POOL,
        placement_id=PlacementId("plc_00000000-0000-7000-8000-000000000001"),
        requested=SPEC,
    )


def creating() -> Bench:
    """A create that waits for a worker."""
    bench = Bench()
    bench.submit("create", spec=SPEC, new=bench.instance)
    return bench


def running() -> Bench:
    """An instance that runs, with nothing under way."""
    bench = creating()
    bench.run()
    return bench

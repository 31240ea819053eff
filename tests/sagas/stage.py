"""One saga on a stage of its own: a system of one control plane and two workers, an instance in some lifecycle, one operation.

`rehearse` plays an operation without faults and says which places it comes by; `play` plays it with one strike or some breaks, and
raises `AssertionError` where it does not end as it should.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import sim.promises
import sim.rarities
import sim.rules  # noqa: F401 - all three register what watches the system
from sim.run import run
from sim.system import ORGANIZATION, POOL, RELEASE, TARGET, SimRenderer, System, outline, send
from sim.twins.faults import Faults
from sim.twins.provider import MemoryTarget
from sim.twins.store import MemoryDatabase
from sim.twins.wire import Wire
from sim.world import World
from spectrum.core import ids
from spectrum.core.errors import Problem
from spectrum.core.ids import InstanceId, JobId, PlacementId
from spectrum.core.jobs.commands import Cancel, Command, Release, Submit, Submitted
from spectrum.core.jobs.model import Instance, Job, Spec
from spectrum.core.jobs.store import Asked
from spectrum.core.jobs.table import Hold, JobState, Lifecycle, Phase
from spectrum.core.plan import Catalog, Operation
from spectrum.core.product.outline import HookOutline, Outline
from spectrum.operations import CATALOG
from spectrum.providers.protocol import Strength
from spectrum.transports.protocol import LinkDown
from spectrum.worker.context import Renderer
from tests.sagas.broken import FATAL, Break, Breaks, How
from tests.sagas.script import ENDINGS, LATE, PAUSE, Kind, NamedWire, Script, Strike

FIFO = 3  # a seed whose schedule is first in, first out
PATIENCE = 2 * 86_400.0  # seconds
INSTANCE = InstanceId("ins_019b76da-a800-7000-8000-000000000001")
SPEC = Spec("hello", "1", RELEASE, "small")
EVERY_SO_OFTEN = 0.3  # seconds
QUIET = 1.5 * LATE  # seconds in which what is still on its way lands


def product() -> Outline:
    """Two services, one on a volume, and a hook that runs at create."""
    return replace(outline(), hooks=(HookOutline("migrate", "web", ("create",), 60.0, ()),))


# ---- where a saga begins


@dataclass(frozen=True, slots=True)
class Ground:
    """What sagas are played on: how the target is made, and what renders the product for it.

    A ground in memory is laid out as a scene needs it; on any other, the instance has to come into its lifecycle first.
    """

    place: Callable[[Faults, Strength], MemoryTarget]
    renderer: Renderer
    memory: bool = False


MEMORY = Ground(MemoryTarget, SimRenderer(), memory=True)


@dataclass(frozen=True, slots=True)
class Scene:
    """An instance in some lifecycle, and what the target holds of it, at a moment (virtual seconds)."""

    lifecycle: Lifecycle
    at: float = 0.0
    database: MemoryDatabase | None = None
    things: Mapping[int, Any] = field(default_factory=dict)
    fences: Mapping[InstanceId, int] = field(default_factory=dict)
    tokens: Mapping[tuple[InstanceId, str], int] = field(default_factory=dict)


_WAYS: dict[Lifecycle, tuple[str, ...]] = {
    Lifecycle.CREATING: (),
    Lifecycle.RUNNING: ("create",),
    Lifecycle.STOPPED: ("create", "stop"),
    Lifecycle.SUSPENDED: ("create", "stop"),
    Lifecycle.DELETED: ("create", "delete"),
    Lifecycle.FAILED: ("create",),
    Lifecycle.PURGED: ("create", "delete", "purge"),
}


def _wrong_on_the_way(lifecycle: Lifecycle) -> tuple[Break, ...]:
    return (Break("verify", Phase.DO, How.FOR_GOOD),) if lifecycle is Lifecycle.FAILED else ()


@lru_cache
def scene_in(lifecycle: Lifecycle, strength: Strength) -> Scene:
    """An instance that came into this lifecycle by the platform's own operations."""
    found: list[Scene] = []

    async def scenario(world: World) -> None:
        world.faults = script = Script(world.choices, None)
        breaks = Breaks(_wrong_on_the_way(lifecycle))
        stage = Stage(world, script, breaks.catalog(CATALOG), strength)
        await stage.come_to(lifecycle)
        found.append(stage.keep(lifecycle))

    if _WAYS[lifecycle]:
        outcome = run(scenario, FIFO)
        assert outcome.violation is None, outcome.violation
    return found[0] if found else Scene(lifecycle)


# ---- the stage


@dataclass
class Stage:
    """A system under a script, and one instance on it."""

    world: World
    script: Script
    catalog: Catalog
    strength: Strength
    scene: Scene = Scene(Lifecycle.CREATING)
    ground: Ground = MEMORY

    def __post_init__(self) -> None:
        self.system = System(
            self.world,
            self.strength,
            planes=1,
            workers=2,
            catalog=self.catalog,
            product=product(),
            place=self.ground.place,
            renderer=self.ground.renderer,
        )
        self.system.wire = self.wire()
        self._set()
        self.system.begin()

    def wire(self) -> Wire:
        """What joins workers and control plane."""
        return NamedWire(self.script)

    def _set(self) -> None:
        scene, database, target = self.scene, self.system.database, self.system.target
        if scene.database is None:
            return
        self.world.loop.now = scene.at
        for name in ("instances", "jobs", "effects", "attempts", "leases", "boots"):
            getattr(database, name).update(getattr(scene.database, name))
        database.events.extend(scene.database.events)
        database.audit.extend(scene.database.audit)
        database.clock, database.transactions = scene.database.clock, scene.database.transactions
        target.things.update({number: _copied(thing) for number, thing in scene.things.items()})
        target._fences.update(scene.fences)
        target._tokens.update(scene.tokens)
        target._count = 1_000

    def keep(self, lifecycle: Lifecycle) -> Scene:
        target: MemoryTarget = self.system.target
        database = copy.copy(self.system.database)
        return Scene(
            lifecycle, self.world.loop.now, database, dict(target.things), dict(target._fences), dict(target._tokens)
        )

    async def come_to(self, lifecycle: Lifecycle) -> None:
        """Bring the instance into its lifecycle by the platform's own operations."""
        for operation in _WAYS[lifecycle]:
            await self.ended((await self.submit(operation)).id)
        if lifecycle is Lifecycle.SUSPENDED:  # no operation leads there yet
            self._by_hand(lifecycle=lifecycle)

    @property
    def instance(self) -> Instance:
        return self.system.database.instances[INSTANCE]

    def job(self, job_id: JobId) -> Job:
        return self.system.database.jobs[job_id]

    # ---- asking

    async def submit(self, operation: str, version: int = 1) -> Job:
        answer = await self.ask_for(operation, version)
        assert isinstance(answer, Submitted), answer
        return answer.job

    async def ask_for(self, operation: str, version: int) -> Any:
        """What a submit is answered."""
        number = len(self.system.database.jobs) + 1
        job_id = JobId(ids.make("job", self.system.database.now(), number.to_bytes(10, "big")))
        submit = Submit(
            **self._common(f"submit/{number}"),
            job_id=job_id,
            operation=operation,
            operation_version=version,
            spec=SPEC if operation == "create" else None,
            new=None if INSTANCE in self.system.database.instances else _new(),
        )
        return await self._ask(submit)

    async def act(self, kind: Kind) -> None:
        """What a strike of this kind asks of the active job: a cancel, or a release by its holder."""
        job = next((job for job in self.system.open_jobs), None)
        if job is None:
            return
        if kind is Kind.CANCEL:
            await self._ask(Cancel(**self._common("cancel"), job_id=job.id))
        elif job.owner is not None:
            await self._ask(
                Release(
                    **self._common("release"),
                    job_id=job.id,
                    lease_id=job.owner.lease_id,
                    pool_id=job.pool_id,
                    fence=job.fence,
                )
            )

    async def _ask(self, command: Command) -> Any:
        while True:
            try:
                answer = await send(self.system.wire, self.system.addresses[0], ("execute", Asked(command)))
            except LinkDown:
                answer = None
            if answer is not None and not (isinstance(answer, Problem) and answer.slug == "unavailable"):
                return answer
            await asyncio.sleep(0.5)

    def _common(self, name: str) -> dict[str, Any]:
        return {"id": name, "instance_id": INSTANCE, "organization_id": ORGANIZATION, "actor": "vendor:saga"}

    def quarantine(self) -> None:
        """Stands in for who found that something is wrong with the instance."""
        self._by_hand(hold=Hold.QUARANTINED)

    def _by_hand(self, **changed: Any) -> None:
        instances = self.system.database.instances
        instances[INSTANCE] = replace(instances[INSTANCE], version=instances[INSTANCE].version + 1, **changed)

    # ---- waiting

    async def ended(self, job_id: JobId) -> Job:
        """The job, once it is terminal."""
        await self.world.patiently(
            lambda: self.job(job_id).state.terminal, "the end of the job", PATIENCE, EVERY_SO_OFTEN
        )
        return self.job(job_id)

    async def quiet(self) -> None:
        """Until nothing is on its way any more: no host stands still, no call is late."""
        hosts = self.world.hosts
        await self.world.patiently(
            lambda: all(h.up and not h.paused for h in hosts), "awake hosts", 10 * PAUSE, EVERY_SO_OFTEN
        )
        await asyncio.sleep(QUIET)

    # ---- what there is

    def held(self) -> dict[str, str]:
        """What the target holds, by slot."""
        return {thing.call.slot: thing.call.key for thing in self.system.target.things.values()}

    def wanted(self) -> dict[str, str]:
        """What the effects table wants present, by slot."""
        effects = self.system.database.effects.get(INSTANCE, {})
        return {effect.slot: effect.key for effect in effects.values() if effect.present}


def _copied(thing: Any) -> Any:
    twin = copy.copy(thing)
    twin.data = list(thing.data)
    return twin


def _new() -> Instance:
    placement = PlacementId("plc_019b76da-a800-7000-8000-000000000001")
    return Instance(INSTANCE, ORGANIZATION, "saga", TARGET, POOL, placement, requested=SPEC)


# ---- the sagas


@dataclass(frozen=True, slots=True)
class Saga:
    """One situation: an operation from a lifecycle, with what goes wrong."""

    operation: str
    version: int
    lifecycle: Lifecycle
    strength: Strength
    breaks: tuple[Break, ...] = ()
    strike: Strike | None = None
    catalog: Catalog = field(default_factory=lambda: CATALOG, compare=False, repr=False)

    @property
    def definition(self) -> Operation:
        return self.catalog[self.operation, self.version]

    @property
    def breaks_for_good(self) -> bool:
        return any(each.how in FATAL and each.phase is Phase.DO for each in self.breaks)

    @property
    def undo_fails(self) -> bool:
        return any(each.how in FATAL and each.phase is Phase.UNDO for each in self.breaks)

    def __str__(self) -> str:
        wrong = [*map(str, self.breaks), *([str(self.strike)] if self.strike else [])]
        return f"{self.operation} from {self.lifecycle} on {self.strength}: {'; '.join(wrong) or 'nothing goes wrong'}"


@dataclass(frozen=True, slots=True)
class Played:
    """How a saga ended: its job, how often each place was come by, and whether its fault came to pass (if it has one)."""

    job: Job
    turns: Counter[str]
    as_written: bool


def play(saga: Saga, seed: int = FIFO, ground: Ground = MEMORY) -> Played:
    """Play the saga and judge its end.

    Raises AssertionError that names the saga and tells its story.
    """
    played: list[Played] = []
    scene = scene_in(saga.lifecycle, saga.strength) if ground.memory else Scene(Lifecycle.CREATING)

    async def scenario(world: World) -> None:
        world.faults = script = Script(world.choices, saga.strike)
        breaks = Breaks(saga.breaks)
        stage = Stage(world, script, breaks.catalog(saga.catalog), saga.strength, scene, ground)
        if not ground.memory:
            breaks.breaks = _wrong_on_the_way(saga.lifecycle)
            await stage.come_to(saga.lifecycle)
            breaks.breaks = saga.breaks
        script.act = stage.act
        if saga.definition.needs_hold:
            stage.quarantine()
        judge = Judgement(saga, stage, breaks)
        script.armed = True
        job = await stage.ended((await stage.submit(saga.operation, saga.version)).id)
        script.armed = False
        breaks.mended = True
        await stage.quiet()
        played.append(Played(job, script.turns, script.struck == (saga.strike is not None)))
        judge.require(played[0].as_written or not ground.memory, "the fault never struck: its place was not come by")
        await judge.end(job)

    outcome = run(scenario, seed)
    if outcome.violation is not None:
        story = "\n".join(f"{line.at:10.3f} {line.who:10} {line.what}" for line in outcome.story)
        raise AssertionError(f"{saga}\n{outcome.violation}\n{story}")
    return played[0]


@dataclass
class Judgement:
    """Whether a saga ended as it should, compared with how it began."""

    saga: Saga
    stage: Stage
    breaks: Breaks

    def __post_init__(self) -> None:
        self.before = self.stage.system.database.instances.get(INSTANCE)
        self.held = self.stage.held()
        self.wanted = self.stage.wanted()

    def require(self, truth: bool, what: str) -> None:
        self.stage.world.require("saga", truth, what)

    async def end(self, job: Job) -> None:
        self.require(job.state in self._expected(job), f"the job has {job.state} ({job.reason}, {job.failure})")
        self.require(job.owner is None and job.finished_at is not None, "an ended job has an owner or no end")
        if job.state is JobState.SUCCEEDED:
            self._succeeded(job)
        elif self.saga.definition.forward_only:
            await self._ask_again(job)
        elif job.residue:
            await self._clear(job)
        else:
            self._as_before(job)
        await self._found_and_reverted()
        stage = self.stage
        self.require(stage.held() == stage.wanted(), f"the target holds {stage.held()}, wanted is {stage.wanted()}")

    def _expected(self, job: Job) -> set[JobState]:
        saga, strike = self.saga, self.saga.strike
        if saga.breaks_for_good:
            if strike is not None and strike.kind is Kind.CANCEL:
                return {JobState.FAILED, JobState.CANCELLED}
            return {JobState.FAILED}
        expected = {JobState.SUCCEEDED}
        if strike is not None and strike.kind is Kind.CANCEL:
            expected.add(JobState.CANCELLED)
        no_way_back = any(step.irreversible for step in job.steps) and not saga.definition.forward_only
        if strike is not None and strike.kind is Kind.BLIND and no_way_back:
            expected.add(JobState.FAILED)  # it can't be decided whether what has no way back took effect
        once = {step.name for step in job.steps if step.tries_allowed == 1}
        endings = strike is not None and strike.kind in ENDINGS
        if once and (endings or any(each.step in once for each in saga.breaks)):
            expected.add(JobState.FAILED)
        return expected

    def _succeeded(self, job: Job) -> None:
        before, now = self.before, self.stage.instance
        # `success` looks at the instance as it was while the job ran.
        due = self.saga.definition.success(before or _new(), job)
        lifecycle = due or (before.lifecycle if before else Lifecycle.CREATING)
        self.require(now.lifecycle is lifecycle, f"the instance is {now.lifecycle}, not {lifecycle}")
        self.require(now.hold is Hold.NONE, f"the instance is {now.hold} after a success")
        self.require(not job.residue, f"a success left {job.residue}")

    def _as_before(self, job: Job) -> None:
        """Baseline restored exactly: lifecycle, effects, inventory."""
        stage, now = self.stage, self.stage.instance
        was = self.before.lifecycle if self.before else Lifecycle.CREATING
        failure = self.saga.definition.failure
        lifecycle = failure if was is Lifecycle.CREATING and failure is not None else was
        self.require(now.lifecycle is lifecycle, f"the instance is {now.lifecycle}, not {lifecycle}")
        hold = self.before.hold if self.before else Hold.NONE
        self.require(now.hold is hold, f"the instance is {now.hold} though all was undone")
        self.require(stage.wanted() == self.wanted, f"wanted is {stage.wanted()}, was {self.wanted}")
        if self.before is not None:
            self.require(now.accepted == self.before.accepted, "the accepted spec has changed")
        if not self._in_flight:
            self.require(stage.held() == self.held, f"the target holds {stage.held()}, held {self.held}")
        effects = stage.system.database.effects.get(INSTANCE, {}).values()
        open_ends = [e for e in effects if not (e.proven or e.replaced) and e.key not in self.wanted.values()]
        self.require(not open_ends, f"effects are left open: {open_ends}")

    async def _clear(self, job: Job) -> None:
        """Residue: quarantined with evidence, until an operation that clears the hold has succeeded."""
        self.require(self.saga.undo_fails, f"residue {job.residue} though no undo failed")
        now = self.stage.instance
        self.require(now.hold is Hold.QUARANTINED, f"the instance is {now.hold}, its job left {job.residue}")
        failed = [step for step in job.steps if step.slot in job.residue and step.failure is not None]
        self.require(bool(failed), "nothing says why the undo failed")
        self.require(job.failure is not None, "the job does not say why it failed")
        refused = next((op for op in CATALOG.values() if now.lifecycle in op.allowed and not op.on_hold), None)
        if refused is not None:
            answer = await self.stage.ask_for(refused.name, refused.version)
            self.require(isinstance(answer, Problem), f"{refused.name} was accepted while quarantined")
        clearing = [op for op in CATALOG.values() if op.clears_hold and now.lifecycle in op.allowed]
        self.require(bool(clearing), f"nothing clears the hold of an instance that is {now.lifecycle}")
        chosen = clearing[len(job.residue[0]) % len(clearing)]
        cleared = await self.stage.ended((await self.stage.submit(chosen.name, chosen.version)).id)
        await self.stage.quiet()
        self.require(cleared.state is JobState.SUCCEEDED, f"{chosen.name} has {cleared.state}: {cleared.failure}")
        hold = self.stage.instance.hold
        self.require(hold is Hold.NONE, f"the instance is {hold} after {chosen.name}")

    async def _ask_again(self, job: Job) -> None:
        """What goes forward only fails with its residue, and may be asked for again."""
        self.require(self.stage.instance.hold is Hold.NONE, "a forward-only operation put the instance on hold")
        again = await self.stage.ended((await self.stage.submit(self.saga.operation, self.saga.version)).id)
        await self.stage.quiet()
        self.require(again.state is JobState.SUCCEEDED, f"asked again, it has {again.state}: {again.failure}")

    @property
    def _in_flight(self) -> bool:
        """On a best-effort target a call that was in flight at the takeover is reverted later (P4)."""
        strike = self.saga.strike
        late = strike is not None and strike.kind in (Kind.ZOMBIE, Kind.LATE)
        return self.saga.strength is Strength.BEST_EFFORT and late

    async def _found_and_reverted(self) -> None:
        """Stands in for the reconciler: what nobody wants is taken away, and resolve brings the rest to what it is wanted to be."""
        stage = self.stage
        if not self._in_flight or stage.held() == stage.wanted():
            return
        target = stage.system.target
        for thing in [thing for thing in target.things.values() if thing.call.slot not in stage.wanted()]:
            target.lose(thing)
        if stage.held() != stage.wanted():
            stage.quarantine()
            resolved = await stage.ended((await stage.submit("resolve")).id)
            await stage.quiet()
            self.require(resolved.state is JobState.SUCCEEDED, f"resolve has {resolved.state}: {resolved.failure}")

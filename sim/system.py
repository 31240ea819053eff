"""The whole system in one world: control planes, workers, a target and vendors, unchanged code joined below HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sim import signed
from sim.hosts import Host
from sim.marks import declare, sometimes
from sim.twins.faults import Faults
from sim.twins.kafka import MemoryFacts, MemoryHints, MemoryKafka
from sim.twins.log import MemoryLead, MemoryLog, MemoryReader
from sim.twins.provider import MemoryTarget
from sim.twins.store import MemoryDatabase, MemoryStore
from sim.twins.wire import Unreachable, Wire
from sim.world import World
from spectrum.control.dispatch import Caller, Dispatch, release_of, report_of
from spectrum.control.engine import Engine
from spectrum.control.leader import PADDING_SECONDS, TERM_SECONDS
from spectrum.control.relay import relay
from spectrum.control.streams import requests_of
from spectrum.control.sweeper import Sweeper
from spectrum.control.wakeups import Wakeups
from spectrum.control.watch import observe
from spectrum.core.errors import Problem
from spectrum.core.ids import (
    JobId,
    OrganizationId,
    PoolId,
    ReleaseId,
    TargetId,
    WorkerId,
)
from spectrum.core.instances import WATCHED, all_services, health_of
from spectrum.core.jobs.commands import Hint, Holding
from spectrum.core.jobs.model import Instance, Job, Spec
from spectrum.core.jobs.store import Asked, Unavailable, Written
from spectrum.core.jobs.table import Health, Lifecycle
from spectrum.core.observation import Observed
from spectrum.core.plan import Catalog
from spectrum.core.product.outline import EndpointOutline, Need, Outline, ServiceOutline
from spectrum.core.product.release import TargetKind
from spectrum.core.product.resources import Base, Hook, PortRequest, Service, Volume
from spectrum.operations import CATALOG
from spectrum.operations.context import Answer
from spectrum.ports import Tasks
from spectrum.providers.protocol import Provider, Resource, Strength
from spectrum.settings import Tuning
from spectrum.transports.protocol import (
    Chunk,
    Handback,
    Incarnation,
    JobRef,
    Link,
    LinkDown,
    LongPollsAlone,
    Look,
    News,
    Onward,
    Polled,
    Pulse,
    Requests,
    Room,
    Sighting,
    hints_topic,
)
from spectrum.worker.context import Holder, Renderer
from spectrum.worker.loop import Worker
from spectrum.worker.rendering import service_state

POOL = PoolId("pol_00000000-0000-7000-8000-000000000001")
ORGANIZATION = OrganizationId("org_00000000-0000-7000-8000-000000000001")
TARGET = TargetId("tgt_00000000-0000-7000-8000-000000000001")
RELEASE = ReleaseId("rel_00000000-0000-7000-8000-000000000001")
LEASE_SECONDS = 15.0
LOOK_EVERY = 10.0
HEARTBEAT_SECONDS = 5.0
RELAY_SECONDS = 2.0
RELAY_BATCH = 20  # small: what is cut off in the middle has a middle
SWEEP_SECONDS = 4.0  # rarer than in production: with virtual time, sweeps are most of what a quiet world does
CALL_SECONDS = 20.0
# Next to nothing is quarantined here: a resolve is played on instances that nothing is wrong with.
AT_ANY_TIME = {place: replace(operation, needs_hold=False) for place, operation in CATALOG.items()}
TUNING = Tuning(lease=LEASE_SECONDS, observation_interval=LOOK_EVERY)
CANARY = "correct-horse-battery-staple"  # a secret of every instance, which its services may say aloud
SPOOLED = declare("a spooled report was accepted", "what a worker did while nobody could hear it is not done again")


# ---- the product that is run: a web service on a database


def outline() -> Outline:
    return Outline(
        product="hello",
        version="1",
        digest="sha256:0",
        kind=TargetKind.PROCESS,
        services=(
            ServiceOutline("db", (), ("data",), True, 60.0, 5.0, False),
            ServiceOutline("web", (Need("db", "service_healthy"),), (), True, 60.0, 5.0, False),
        ),
        volumes=("data",),
        hooks=(),
        endpoints=(EndpointOutline("api", "web", 80, True),),
        secrets=(),
        deleted_retention=600.0,
        backup_retention=600.0,
    )


class SimRenderer:
    """Renders the product above; no document, no secret."""

    async def resource(self, holder: Holder, slot: str, spec: Spec) -> Resource:
        name, role = slot.split("/")
        service = Service(name, ("serve",), ports=(PortRequest(name, 80, name == "web"),))
        match role:
            case "base":
                return Base(holder.instance.name, service.ports)
            case "volume":
                return Volume(name)
            case "container":
                return service
            case _:
                return Hook(role, service, (role,), 60.0)

    async def stock(self, holder: Holder, spec: Spec, provider: Provider) -> None:
        await provider.stock((), ())

    async def ask(self, holder: Holder, spec: Spec, endpoint: str) -> Answer:
        return Answer(200)

    async def secrets(self, holder: Holder) -> tuple[str, ...]:
        return (CANARY,)

    async def describe(self, holder: Holder, spec: Spec, seen: Mapping[str, Observed]) -> Mapping[str, Any]:
        return {"services": [service_state(name, seen.get(f"{name}/container")) for name in ("db", "web")]}


class MemorySpool:
    """A disk that survives the worker's crashes."""

    def __init__(self, database: MemoryDatabase | None = None) -> None:
        self._kept: dict[tuple[str, int, int], News] = {}
        self._database = database

    def put(self, news: News) -> None:
        self._kept[news.job_id, news.fence, news.number] = news

    def drop(self, news: News) -> None:
        was_there = self._kept.pop((news.job_id, news.fence, news.number), None)
        job = self._database.jobs.get(news.job_id) if self._database else None
        sometimes(SPOOLED, bool(was_there and job) and job is not None and job.last_report.fence == news.fence)

    def all(self) -> Sequence[News]:
        return list(self._kept.values())


# ---- the control plane


@dataclass(frozen=True)
class Bus:
    """Kafka, and how far the log has come to it."""

    broker: MemoryKafka
    log: MemoryLog


@dataclass
class ControlPlane:
    """One copy: what its host runs in one life."""

    world: World
    host: Host
    database: MemoryDatabase
    catalog: Catalog
    wire: Wire
    signed: tuple[signed.Registry, signed.Travelled] | None = None
    kafka: Bus | None = None
    tasks: Tasks = field(default_factory=Tasks)

    def __post_init__(self) -> None:
        self.store = store = MemoryStore(self.database, self.world.faults)
        self.wakeups = Wakeups()
        self.engine = Engine(store, self.catalog, self.host.clock, self.tasks, self._committed)
        self.dispatch = Dispatch(store, self.engine, self.host.clock, self.host.entropy)
        self.sweeper = Sweeper(
            store, self.engine, self.dispatch, self.host.clock, self.host.entropy, LEASE_SECONDS, SWEEP_SECONDS
        )
        if self.signed is not None:
            registry, travelled = self.signed
            self.app = signed.application(self, store, registry, travelled, TUNING, LOOK_EVERY)

    def _committed(self, written: Sequence[Written], hints: Sequence[Hint]) -> None:
        for hint in hints:
            self.wakeups.wake(hint.pool_id)
        if self.kafka:
            self.kafka.broker.tell(hints)

    async def run(self) -> None:
        self.wire.listen(self.host.name, self.host, self.handle)
        if self.kafka:
            self.tasks.spawn(self._relay(self.kafka), "relay")
        await self.sweeper.run()

    async def _relay(self, bus: Bus) -> None:
        lead = MemoryLead(bus.log, self.store, self.host.name, TERM_SECONDS, PADDING_SECONDS)
        outlet = MemoryFacts(bus.broker)
        await relay(
            MemoryReader(lead), outlet, self.host.clock, self.host.entropy, self.tasks, RELAY_SECONDS, batch=RELAY_BATCH
        ).run()

    async def handle(self, request: tuple[Any, ...]) -> Any:
        what, *rest = request
        if what == "http" and self.signed is not None:
            return await signed.answer(self.app, rest[0], self.signed[1])
        handler = getattr(self, f"_{what}")
        try:
            return await handler(*rest)
        except Unavailable as error:  # as the API does
            return Problem("unavailable", str(error))
        except Problem as problem:
            return problem

    async def _start(self, caller: Caller, boot: str) -> Incarnation:
        lease = await self.dispatch.start(caller, boot)
        hints = hints_topic(caller.pool_id) if self.kafka else ""
        return Incarnation(lease.id, lease.incarnation, LEASE_SECONDS, HEARTBEAT_SECONDS, hints)

    async def _poll(self, caller: Caller, seconds: float, room: Room, work: bool) -> Polled:
        if looks := self.looks(room.looks):
            return Polled(False, Requests(looks))
        topic = caller.pool_id if work else requests_of(caller.pool_id)
        return Polled(await self.wakeups.wait(topic, min(seconds, LOOK_EVERY)))

    def looks(self, room: int) -> tuple[Look, ...]:
        """What is due to be looked at; as with the real watch, it is due again an interval after it was handed out."""
        now = self.database.now()
        due = [
            instance
            for instance in self.database.instances.values()
            if instance.lifecycle in WATCHED
            and instance.active_job_id is None
            and self.database.look_at.get(instance.id, now) <= now
        ][:room]
        self.database.look_at |= {instance.id: now + timedelta(seconds=LOOK_EVERY) for instance in due}
        return tuple(Look(i.id, "memory://", i.counter, i.generation, now) for i in due)

    async def _observed(self, caller: Caller, incarnation: Incarnation, sightings: Sequence[Sighting]) -> None:
        await self.seen(caller.actor, sightings)

    async def seen(self, actor: str, sightings: Sequence[Sighting]) -> None:
        """Take in what was seen of instances."""
        await asyncio.gather(*(self.engine.execute(observe(each, ORGANIZATION, actor)) for each in sightings))

    async def _claim(
        self, caller: Caller, incarnation: Incarnation, number: int, want: int, holds_others: bool
    ) -> Sequence[Holding]:
        lease = incarnation.lease_id
        return await self.dispatch.claim(caller, lease, incarnation.number, number, want, holds_others=holds_others)

    async def _beat(
        self,
        caller: Caller,
        incarnation: Incarnation,
        number: int,
        claim_seen: int,
        held: Sequence[tuple[JobId, int]],
    ) -> Pulse:
        return await self.dispatch.beat(caller, incarnation.lease_id, incarnation.number, number, claim_seen, held)

    async def _report(self, caller: Caller, incarnation: Incarnation, news: News) -> Holding:
        return await self.dispatch.report(report_of(caller, incarnation.lease_id, news))

    async def _release(self, caller: Caller, incarnation: Incarnation, back: Handback) -> None:
        await self.dispatch.release(release_of(caller, incarnation.lease_id, back))

    async def _execute(self, asked: Asked) -> Any:
        return await self.engine.execute(asked)


# ---- the worker's side of the wire


@dataclass
class SimLink:
    """The worker's link over the wire; any copy of the control plane will do."""

    world: World
    wire: Wire
    caller: Caller
    addresses: tuple[str, ...]

    async def start(self, boot: str) -> Incarnation:
        found: Incarnation = await self._ask("start", boot)
        return found

    async def poll(self, incarnation: Incarnation, seconds: float, room: Room, *, work: bool = True) -> Polled:
        found: Polled = await self._ask("poll", seconds, room, work)
        return found

    async def observed(self, incarnation: Incarnation, sightings: Sequence[Sighting]) -> None:
        await self._ask("observed", incarnation, tuple(sightings))

    async def stream(self, incarnation: Incarnation, chunk: Chunk) -> Onward:
        raise NotImplementedError("nobody reads logs in a simulation")

    async def claim(self, incarnation: Incarnation, number: int, want: int, holds_others: bool) -> Sequence[Holding]:
        found: Sequence[Holding] = await self._ask("claim", incarnation, number, want, holds_others)
        return found

    async def beat(
        self, incarnation: Incarnation, number: int, claim_seen: int, held: Sequence[tuple[JobId, int]]
    ) -> Pulse:
        found: Pulse = await self._ask("beat", incarnation, number, claim_seen, tuple(held))
        return found

    async def report(self, incarnation: Incarnation, news: News) -> Holding:
        found: Holding = await self._ask("report", incarnation, news)
        return found

    async def release(self, incarnation: Incarnation, handback: Handback) -> None:
        await self._ask("release", incarnation, handback)

    async def release_document(self, incarnation: Incarnation, asked: JobRef, release_id: str) -> Mapping[str, Any]:
        raise NotImplementedError("the simulated renderer needs no document")

    async def secrets(self, incarnation: Incarnation, asked: JobRef) -> Mapping[str, str]:
        raise NotImplementedError("the simulated renderer needs no secret")

    async def _ask(self, what: str, *rest: Any) -> Any:
        address = self.world.faults.one_of("link address", self.addresses)
        answer = await send(self.wire, address, (what, self.caller, *rest))
        if isinstance(answer, Problem):
            raise LinkDown(answer.detail) if answer.slug == "unavailable" else answer
        return answer


async def send(wire: Wire, address: str, request: tuple[Any, ...]) -> Any:
    """What was answered, a `Problem` perhaps.

    Raises `LinkDown` where nothing was.
    """
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await wire.send(address, request)
    except (Unreachable, TimeoutError) as error:
        raise LinkDown(str(error)) from error


# ---- the system


@dataclass
class System:
    """What the invariants judge: the database and the target, and what vendors were told."""

    world: World
    strength: Strength = Strength.ATOMIC
    planes: int = 2
    workers: int = 2
    catalog: Catalog = field(default_factory=lambda: AT_ANY_TIME)
    product: Outline = field(default_factory=lambda: outline())
    place: Callable[[Faults, Strength], MemoryTarget] = MemoryTarget
    renderer: Renderer = field(default_factory=lambda: SimRenderer())
    in_a_hurry: bool = False  # jobs have so little time that they run into their deadlines
    queue_seconds: float = 3600.0  # that a job may wait for its turn
    signed: bool = False  # whether workers speak real HTTP
    with_kafka: bool = False  # whether hints and facts go there
    answers: dict[str, list[Any]] = field(default_factory=dict)  # to each key, in order
    # A key under which something else was asked, and the answer.
    reused: list[tuple[str, Any]] = field(default_factory=list)
    # Instances and slots that were last changed under a fence that had ended.
    overtaken: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.database = MemoryDatabase(tolerance=3 * SWEEP_SECONDS, outlines={RELEASE: self.product})
        self.target = self.place(self.world.faults, self.strength)
        self.target.aloud = CANARY
        self.wire = Wire(self.world.faults)
        self.addresses = tuple(f"control-{number}" for number in range(1, self.planes + 1))
        self.spools = [MemorySpool(self.database) for _ in range(self.workers)]
        self.registry, self.travelled = signed.Registry(), signed.Travelled()
        self.kafka = Bus(MemoryKafka(self.world.faults), MemoryLog(self.database)) if self.with_kafka else None
        self.world.watch(self.target, self.database, self, self.travelled)

    def begin(self) -> None:
        for name in self.addresses:
            self.world.host(name, self._boot_control)
        for number in range(self.workers):
            self.world.host(f"worker-{number + 1}", self._booting_worker(number))

    async def _boot_control(self, host: Host) -> None:
        known = (self.registry, self.travelled) if self.signed else None
        await ControlPlane(self.world, host, self.database, self.catalog, self.wire, known, self.kafka).run()

    def _booting_worker(self, number: int) -> Any:
        worker_id = WorkerId(f"wrk_00000000-0000-7000-8000-{number + 1:012d}")
        operations: dict[str, frozenset[int]] = {}
        for name, version in self.catalog:
            operations[name] = operations.get(name, frozenset()) | {version}
        self.registry.enrol(worker_id, ORGANIZATION, POOL)

        def boot(host: Host) -> Coroutine[Any, Any, None]:
            return Worker(
                self._link(Caller(worker_id, ORGANIZATION, POOL, operations), host),
                {"memory://": self.target.connect()},
                self.catalog,
                self.renderer,
                host.clock,
                host.entropy,
                Tasks(),
                self.spools[number],
                capacity=4,
                hints=MemoryHints(self.kafka.broker, worker_id) if self.kafka else LongPollsAlone(),
            ).run()

        return boot

    def _link(self, caller: Caller, host: Host) -> Link:
        if not self.signed:
            return SimLink(self.world, self.wire, caller, self.addresses)
        operations = {name: sorted(versions) for name, versions in caller.operations.items()}
        return signed.link(
            self.world, self.wire, self.addresses, caller.worker_id, host.clock, operations, self.travelled
        )

    @property
    def atomic(self) -> bool:
        """Whether a call that is late can have no effect on the target."""
        return self.strength is Strength.ATOMIC

    @property
    def open_jobs(self) -> list[Job]:
        return [job for job in self.database.jobs.values() if not job.state.terminal]

    @property
    def at_rest(self) -> bool:
        return not self.open_jobs

    @property
    def known_rightly(self) -> bool:
        """Every running instance is known to be as well as its target shows it."""
        return all(instance.health is self._shown(instance) for instance in self._running())

    def _running(self) -> list[Instance]:
        return [i for i in self.database.instances.values() if i.lifecycle is Lifecycle.RUNNING]

    def _shown(self, instance: Instance) -> Health:
        things = [self.target.living(instance.id, f"{name}/container") for name in ("db", "web")]
        seen = [service_state(name, one[0].seen()) for name, one in zip(("db", "web"), things, strict=True) if one]
        known = all_services(instance.lifecycle, instance.services, seen)
        return health_of(instance.lifecycle, known, frozenset({"web"}), frozenset({"db", "web"}))

"""The trials of the whole system: in each, vendors ask things of their instances while this or that goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from sim import vendors
from sim.nemesis import DRIFT, LEASE_SECONDS, Nemesis, without
from sim.system import AT_ANY_TIME, CALL_SECONDS, LOOK_EVERY, System
from sim.world import Scenario, World
from spectrum.core.jobs.table import Hold, JobState, Reason
from spectrum.core.plan import Given, Operation, Plan
from spectrum.operations import CATALOG
from spectrum.providers.protocol import Strength

PATIENCE = 6 * 3600.0  # seconds in which everything has to come to its end without them
SIGNED_EVERY = 97  # seeds: no multiple of the number of modes, so that each mode has its share
PRACTICE = 10.0  # seconds in which a calm system gets work to do
A_MINUTE, AN_HOUR = 60.0, 3600.0
BLIND = {"nemesis crash": 0.2, "provider.ensure hang": 0.1, "provider.observe undecidable": 0.8}
LOSSY = {"hint lost": 0.9, "hint doubled": 1.0, "hint slow": 0.5, "nemesis kafka": 0.2, "facts unacknowledged": 0.2}
HURRY = 12.0  # seconds that a job may take, and its undoing


@dataclass(frozen=True)
class Size:
    """How long there are faults, how many vendors ask for things, and how long each rests in between at most (seconds)."""

    trouble: float = 120.0
    vendors: int = 3
    rest: float = 15.0


LARGE, BUSY, SMALL = Size(), Size(rest=2.0), Size(30.0, 2, 6.0)


def system(
    strength: Strength, size: Size = LARGE, *, signed: bool | None = None, hurry: bool = False, kafka: bool = False
) -> Scenario:
    """Everything fails; then it heals, and all comes to its end. One seed of a hundred speaks real HTTP, or all do."""

    async def scenario(world: World) -> None:
        real = world.loop.seed % SIGNED_EVERY == 0 if signed is None else signed
        catalog = {place: _hurried(operation) for place, operation in AT_ANY_TIME.items()} if hurry else AT_ANY_TIME
        it = System(world, strength, signed=real, catalog=catalog, in_a_hurry=hurry, with_kafka=kafka)
        it.queue_seconds = HURRY if hurry else it.queue_seconds
        it.begin()
        vendors.begin(it, size.vendors, size.rest)
        # What vanishes by itself stays away until there is healing.
        broker = it.kafka.broker if it.kafka else None
        nemesis = Nemesis(world, (it.wire,), (it.target,), (it.database,), spared=frozenset({DRIFT}), kafka=broker)
        nemesis.begin()
        await asyncio.sleep(size.trouble)
        nemesis.heal()
        await _to_rest(it)
        await _all_told(it)

    return scenario


def blind(strength: Strength) -> Scenario:
    """Workers are lost, and what became of their work can mostly not be seen: slots are made anew."""
    usual = system(strength)

    async def scenario(world: World) -> None:
        world.faults.stress(BLIND)
        await usual(world)

    return scenario


def lossy(strength: Strength) -> Scenario:
    """Nearly every hint is lost, and those that are not come twice and late."""
    usual = system(strength, SMALL, kafka=True)

    async def scenario(world: World) -> None:
        world.faults.stress(LOSSY)
        await usual(world)

    return scenario


def _hurried(operation: Operation) -> Operation:
    """With so little time that a pause or an outage uses it up; what only goes forward has the time it needs."""

    def plan(given: Given) -> Plan:
        return replace(operation.plan(given), job_seconds=HURRY, unwind_seconds=HURRY)

    return operation if operation.forward_only else replace(operation, plan=plan)


async def _to_rest(it: System) -> None:
    """Until every job has ended and every instance is known as it is."""
    world = it.world
    await asyncio.sleep(CALL_SECONDS * 2)
    await world.patiently(lambda: it.at_rest, "every job's end", PATIENCE, every=1.0)
    await world.patiently(lambda: it.known_rightly, "a true picture of every instance", 60 * LOOK_EVERY, every=1.0)


async def _all_told(it: System) -> None:
    """Every event got to Kafka, and no subject's before the one before it (P6, P7)."""
    if it.kafka is None:
        return
    log, broker = it.kafka.log, it.kafka.broker
    await it.world.patiently(lambda: log.lag == 0, "the last event in Kafka", A_MINUTE, every=1.0)
    positions = {event.position for event in broker.facts}
    missing = set(range(1, log.position + 1)) - positions
    it.world.require("P6", not missing, f"Kafka never got the events at {sorted(missing)[:10]}")
    come_to: dict[str, int] = {}
    for event in broker.facts:
        last = come_to.setdefault(event.subject, 0)
        it.world.require("P7", event.sequence <= last + 1, f"{event.subject}: {event.sequence} came after {last}")
        come_to[event.subject] = max(last, event.sequence)


def one_thing(
    happens: Callable[[System], Awaitable[None]], customers: int, rest: float, *, kafka: bool = False
) -> Scenario:
    """One thing goes wrong, and no other. Nobody may lose a job for it, and no job may fail."""

    async def scenario(world: World) -> None:
        world.faults.calm()
        it = System(world, Strength.ATOMIC, catalog=CATALOG, with_kafka=kafka)
        it.begin()
        vendors.begin(it, 1 + world.loop.seed // 4 % customers, rest)
        await asyncio.sleep(PRACTICE * (1 + world.loop.seed % 3))
        await happens(it)
        await asyncio.sleep(PRACTICE)
        world.faults.heal()
        await _to_rest(it)
        await _all_told(it)
        _require_undisturbed(it)

    return scenario


def _require_undisturbed(it: System) -> None:
    rescued = [event.fact.data["why"] for event in it.database.events if event.fact.type == "job.rescued"]
    it.world.require("P1", not rescued, f"{len(rescued)} jobs were taken from their workers: {rescued[:3]}")
    for job in it.database.jobs.values():
        failed = job.state is JobState.FAILED and job.reason not in (Reason.NOT_ALLOWED, Reason.INSTANCE_DELETED)
        why = f"{job.operation} {job.id} has {job.state} ({job.reason}): {job.failure and job.failure.message}"
        it.world.require("P1", not failed, why)
    held = [instance.name for instance in it.database.instances.values() if instance.hold is not Hold.NONE]
    it.world.require("P1", not held, f"on hold: {held}")


async def _nothing(it: System) -> None:
    await asyncio.sleep(A_MINUTE)


async def _database_away(it: System) -> None:
    """PostgreSQL is away for three leases, under load."""
    await without(it.database, 3 * LEASE_SECONDS)


async def _target_away(it: System) -> None:
    """The target does not answer for an hour; vendors go on asking."""
    it.target.line.up = False
    it.world.loop.tell("the target is away", "nemesis")
    await asyncio.sleep(AN_HOUR)
    it.target.line.up = True
    it.world.loop.tell("the target is back", "nemesis")


def _without_kafka(*, hangs: bool = False, disk: bool = False) -> Callable[[System], Awaitable[None]]:
    """Kafka is of no use for an hour; vendors go on asking. Then the backlog is there within a minute."""

    async def happens(it: System) -> None:
        assert it.kafka is not None
        broker, log = it.kafka.broker, it.kafka.log
        broker.be(up=hangs, hangs=hangs)
        await asyncio.sleep(AN_HOUR)
        it.world.require("P1", log.lag > 0, "nothing happened in the hour")
        behind = len(it.database.events)
        if disk:
            broker.lose_disk()
        broker.be()
        if disk:
            await asyncio.sleep(PRACTICE)
            broker.make_topics()
        await it.world.patiently(lambda: log.position >= behind, "the backlog in Kafka", A_MINUTE)

    return happens


async def _rebalancing(it: System) -> None:
    """The groups of the workers never come to rest."""
    assert it.kafka is not None
    for _ in range(int(AN_HOUR / 5)):
        await asyncio.sleep(5.0)
        it.kafka.broker.rebalance()


TRIALS: dict[str, Callable[[], Scenario]] = {
    "system-atomic": lambda: system(Strength.ATOMIC),
    "system-best-effort": lambda: system(Strength.BEST_EFFORT),
    "small-atomic": lambda: system(Strength.ATOMIC, SMALL),
    "small-best-effort": lambda: system(Strength.BEST_EFFORT, SMALL),
    "busy": lambda: system(Strength.ATOMIC, BUSY),
    "in-a-hurry": lambda: system(Strength.ATOMIC, hurry=True),
    "blind": lambda: blind(Strength.BEST_EFFORT),
    "system-signed": lambda: system(Strength.ATOMIC, signed=True),
    "nothing-fails": lambda: one_thing(_nothing, customers=3, rest=10.0),
    "database-away": lambda: one_thing(_database_away, customers=5, rest=3.0),
    "target-away": lambda: one_thing(_target_away, customers=3, rest=600.0),
    "kafka": lambda: system(Strength.ATOMIC, SMALL, kafka=True),
    "kafka-lossy": lambda: lossy(Strength.ATOMIC),
    "kafka-away": lambda: one_thing(_without_kafka(), customers=3, rest=120.0, kafka=True),
    "kafka-hangs": lambda: one_thing(_without_kafka(hangs=True), customers=3, rest=120.0, kafka=True),
    "kafka-loses-its-disk": lambda: one_thing(_without_kafka(disk=True), customers=3, rest=120.0, kafka=True),
    "kafka-rebalances": lambda: one_thing(_rebalancing, customers=3, rest=120.0, kafka=True),
}

MIX = (
    *("small-atomic",) * 70,
    *("small-best-effort",) * 46,
    *("system-atomic",) * 18,
    *("system-best-effort",) * 16,
    *("busy",) * 4,
    *("in-a-hurry",) * 6,
    *("blind",) * 6,
    *("nothing-fails",) * 3,
    *("database-away",) * 2,
    "target-away",
    *("kafka",) * 6,
    *("kafka-lossy",) * 3,
    "kafka-away",
    "kafka-hangs",
    "kafka-loses-its-disk",
    "kafka-rebalances",
)
"""The shares of `everything`: of four seeds in turn each, one of each mode. Most are small; what takes long to come about has the
large ones."""


def everything() -> Scenario:
    """All trials in their shares, drawn by the seed."""

    async def scenario(world: World) -> None:
        name = MIX[world.loop.seed // 4 % len(MIX)]
        world.loop.tell(f"plays {name}")
        await TRIALS[name]()(world)

    return scenario

"""The nemesis: crashes and pauses hosts, bends clocks, cuts wires, takes targets and databases away, lets resources vanish."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from sim.hosts import Host
from sim.loop import SimLoop
from sim.marks import declare, sometimes
from sim.twins.calls import stand_still
from sim.twins.faults import SLOW
from sim.twins.kafka import MemoryKafka
from sim.twins.provider import MemoryTarget
from sim.twins.store import MemoryDatabase
from sim.twins.wire import Wire
from sim.world import World

CRASHED = declare("a host crashed", "the simplest of all faults")
AWAY = declare("a target was away", "its breaker opens, deadlines stand still")
LONG_AWAY = declare("PostgreSQL was away for longer than a lease", "every lease gets its full time again")
JUMPED = declare("PostgreSQL's clock jumped", "time in which nothing could be done does not count")

REST = (0.2, 1.0, 3.0, 10.0)  # seconds between two ideas of the nemesis
OFFSETS = (-3600.0, -30.0, 0.0, 30.0, 3600.0)  # seconds
RATES = (1.0, 0.98, 1.02)  # seconds of a host for one of the world
LEASE_SECONDS = 15.0
DATABASE_AWAY = (*SLOW, 3 * LEASE_SECONDS)  # seconds
JUMPS = (-600.0, -30.0, 30.0, 600.0)  # seconds
DRIFT = "nemesis drift"


class Nemesis:
    """Torments everything that it is given. Each kind of torment has a rate of its own in the mix of the seed."""

    def __init__(
        self,
        world: World,
        wires: tuple[Wire, ...] = (),
        targets: tuple[MemoryTarget, ...] = (),
        databases: tuple[MemoryDatabase, ...] = (),
        spared: frozenset[str] = frozenset(),
        kafka: MemoryKafka | None = None,
    ) -> None:
        self._world = world
        self._faults = world.faults
        self._wires = wires
        self._targets = targets
        self._databases = databases
        self._kafka = kafka
        ideas: dict[str, Callable[[], Awaitable[None]]] = {
            "nemesis crash": self._crash,
            "nemesis pause": self._pause,
            "nemesis clock": self._bend_clock,
            "nemesis partition": self._partition,
            "nemesis outage": self._outage,
            "nemesis database": self._take_database,
            "nemesis database clock": self._bend_database_clock,
            DRIFT: self._drift,
        }
        if kafka is not None:
            ideas |= {"nemesis kafka": self._take_kafka, "nemesis rebalance": self._rebalance}
        self._ideas = {name: idea for name, idea in ideas.items() if name not in spared}
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Start tormenting; each idea goes its own way. No two clocks run alike."""
        for host in self._world.hosts:
            if self._faults.strikes("nemesis clock rate"):
                host.rate = self._faults.one_of("nemesis clock rate of", RATES)
        for name, idea in self._ideas.items():
            self._tasks.append(self._world.loop.outside(self._pursue(name, idea), name))
        self._tasks.append(self._world.loop.outside(self._restart(), "nemesis restart"))

    def heal(self) -> None:
        """End all faults: every host up, awake and reachable. What is already on its way still lands late."""
        self._world.loop.tell("all faults end", "nemesis")
        self._faults.heal()
        for task in self._tasks:
            task.cancel()
        for wire in self._wires:
            wire.cut.clear()
        for target in self._targets:
            target.line.up = True
        for database in self._databases:
            database.up = True
        if self._kafka is not None:
            self._kafka.be()
            self._kafka.make_topics()
        for host in self._world.hosts:
            host.resume()
            if not host.up:
                host.start()

    async def _pursue(self, name: str, idea: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._faults.one_of(f"{name} rest", REST))
            if self._faults.strikes(name):
                await idea()

    async def _restart(self) -> None:
        """What a supervisor does: a host that is down comes back."""
        while True:
            await asyncio.sleep(self._faults.one_of("nemesis restart rest", REST))
            for host in self._world.hosts:
                if not host.up:
                    self._world.loop.tell(f"{host.name} starts again", "nemesis")
                    host.start()

    def _victim(self) -> Host:
        return self._faults.one_of("nemesis victim", self._world.hosts)

    async def _crash(self) -> None:
        host = self._victim()
        sometimes(CRASHED, host.up)
        host.crash()

    async def _pause(self) -> None:
        await stand_still(self._victim(), self._faults.one_of("nemesis pause length", (*SLOW, 60.0)))

    async def _bend_clock(self) -> None:
        host = self._victim()
        host.offset = self._faults.one_of("nemesis clock offset", OFFSETS)
        self._world.loop.tell(f"the clock of {host.name} is now {host.offset:+g} s off", "nemesis")

    async def _partition(self) -> None:
        if not self._wires:
            return
        wire = self._faults.one_of("nemesis wire", self._wires)
        host, way = self._victim(), self._faults.one_of("nemesis way", ("to", "from"))
        wire.cut.add((way, host.name))
        self._world.loop.tell(f"nothing gets through {way} {host.name} any more", "nemesis")
        await asyncio.sleep(self._faults.one_of("nemesis partition length", SLOW))
        wire.cut.discard((way, host.name))

    async def _outage(self) -> None:
        if not self._targets:
            return
        target = self._faults.one_of("nemesis target", self._targets)
        target.line.up = False
        sometimes(AWAY)
        self._world.loop.tell("the target is away", "nemesis")
        await asyncio.sleep(self._faults.one_of("nemesis outage length", (*SLOW, 120.0)))
        target.line.up = True

    async def _take_database(self) -> None:
        """PostgreSQL goes away, for all copies at once."""
        if not self._databases:
            return
        database = self._faults.one_of("nemesis database which", self._databases)
        seconds = self._faults.one_of("nemesis database length", DATABASE_AWAY)
        await without(database, seconds)

    async def _bend_database_clock(self) -> None:
        if not self._databases:
            return
        database = self._faults.one_of("nemesis database which", self._databases)
        jump = self._faults.one_of("nemesis database jump", JUMPS)
        database.ahead += timedelta(seconds=jump)
        sometimes(JUMPED)
        self._world.loop.tell(f"PostgreSQL's clock jumps by {jump:+g} s", "nemesis")

    async def _take_kafka(self) -> None:
        """The broker is away or hangs, and may come back without what it had kept."""
        if self._kafka is None:
            return
        hangs = self._faults.one_of("nemesis kafka how", (False, True))
        self._kafka.be(up=hangs, hangs=hangs)
        await asyncio.sleep(self._faults.one_of("nemesis kafka length", (*SLOW, 60.0)))
        if not hangs and self._faults.strikes("nemesis kafka disk"):
            self._kafka.lose_disk()
        self._kafka.be()
        await asyncio.sleep(self._faults.one_of("nemesis kafka topics", SLOW))
        self._kafka.make_topics()

    async def _rebalance(self) -> None:
        if self._kafka is not None:
            self._kafka.rebalance()

    async def _drift(self) -> None:
        things = [(target, thing) for target in self._targets for thing in target.things.values()]
        if things:
            target, thing = self._faults.one_of("nemesis drift what", things)
            target.lose(thing)


async def without(database: MemoryDatabase, seconds: float) -> None:
    """Have PostgreSQL away for so long."""
    loop = SimLoop.current()
    database.up = False
    loop.tell("PostgreSQL is away", "nemesis")
    await asyncio.sleep(seconds)
    sometimes(LONG_AWAY, seconds > LEASE_SECONDS)
    database.up = True
    loop.tell("PostgreSQL is back", "nemesis")

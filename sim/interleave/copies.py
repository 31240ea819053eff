"""Copies of the control plane on gated connections: production's own parts, joined as `spectrum.server` joins them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sim.interleave.conductor import Conductor
from sim.interleave.gates import GatedPool
from sim.twins.outlet import MemoryOutlet
from spectrum.control.audit import sealer
from spectrum.control.calls import Calls
from spectrum.control.changes import Changes
from spectrum.control.desk import Desk
from spectrum.control.dispatch import Dispatch
from spectrum.control.engine import Engine
from spectrum.control.identity import Identity
from spectrum.control.instances import Instances
from spectrum.control.jobs import Jobs
from spectrum.control.leader import PADDING_SECONDS, TERM_SECONDS
from spectrum.control.products import Products
from spectrum.control.reads import Reads
from spectrum.control.relay import CONSUMER, relay
from spectrum.control.secrets import CellKeys
from spectrum.control.sequencer import sequencer
from spectrum.control.streams import Streams
from spectrum.control.sweeper import Sweeper
from spectrum.control.targets import Targets
from spectrum.control.upkeep import Upkeep
from spectrum.control.wakeups import Wakeups
from spectrum.control.watch import Watch
from spectrum.control.workers import Workers
from spectrum.core.sealing import KEY_BYTES, Keyring
from spectrum.core.signing import Signer
from spectrum.db.audit import AuditChains
from spectrum.db.leading import Leading
from spectrum.db.log import EventLog
from spectrum.db.log_reader import LogReader
from spectrum.db.losses import answerable
from spectrum.db.pools import Pool, Role
from spectrum.db.store import PostgresStore
from spectrum.db.upkeep import Housekeeping
from spectrum.operations import CATALOG
from spectrum.ports import Tasks
from spectrum.settings import Tuning

PUBLIC_URL = "https://spectrum.test"
ROUND_SECONDS = 10.0  # whoever sleeps that long has done its round
LEASE_SECONDS = 15.0
KEYS = CellKeys(
    Keyring("mk_1", {"mk_1": b"k" * KEY_BYTES}), Signer.of(Ed25519PrivateKey.from_private_bytes(b"cell" * 8))
)


FIRST_CALL = {"stage": 0, "left": 100, "right": 200}


class Settling(Tasks):
    """Tasks that can be waited for."""

    async def settle(self) -> None:
        await asyncio.gather(*self._running)


class RoundOver(Exception):
    """What goes round for ever has come to the end of one round."""


@dataclass
class GatedClock:
    """A copy's clock: time goes by only where somebody sleeps, and that is a step like any other."""

    conductor: Conductor
    owner: str

    def now(self) -> datetime:
        return self.conductor.now

    def monotonic(self) -> float:
        return self.conductor.now.timestamp()

    async def sleep(self, seconds: float) -> None:
        if seconds >= ROUND_SECONDS:
            raise RoundOver
        await self.conductor.pause(self.owner, seconds)


@dataclass
class SeededEntropy:
    """The same tokens under the same seed."""

    seed: str
    _count: int = 0

    def token(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self.seed}:{self._count}".encode()).digest(size)

    def uniform(self) -> float:
        return int.from_bytes(self.token(6), "big") / 2**48


@dataclass
class Copy:
    """One control plane. `name` is also who its statements are told of."""

    name: str
    conductor: Conductor
    urls: Mapping[Role, str]
    entropy: SeededEntropy = field(init=False)
    pools: dict[Role, GatedPool] = field(init=False)

    def __post_init__(self) -> None:
        self.pools = {role: GatedPool(self.conductor, self.name, role, url) for role, url in self.urls.items()}
        self.begin("")

    def begin(self, seed: str) -> None:
        """Start afresh: nothing is remembered but the connections."""
        self.entropy = SeededEntropy(f"{seed}/{self.name}")
        self.clock = GatedClock(self.conductor, self.name)
        self.tasks, self.wakeups = Settling(), Wakeups()
        self._calls = FIRST_CALL[self.name]
        api, engine, system = (cast(Pool, self.pools[role]) for role in (Role.API, Role.ENGINE, Role.SYSTEM))
        self.system = system
        tuning = Tuning()
        self.changes = Changes(api, engine, KEYS.keyring, self.entropy, Reads(api, self.tasks))
        self.identity = Identity(self.changes, system, self.tasks)
        self.workers = Workers(self.changes, system, KEYS.signing_key_id)
        self.products, self.targets = Products(self.changes), Targets(self.changes)
        self.store = PostgresStore(engine, system, self.clock)
        self.engine = Engine(self.store, CATALOG, self.clock, self.tasks)
        self.dispatch = Dispatch(self.store, self.engine, self.clock, self.entropy)
        self.watch = Watch(system, engine, self.engine, self.entropy, tuning.observation_interval)
        self.streams = Streams(self.changes, system, self.wakeups, self.clock, self.tasks)
        self.sweeper = Sweeper(self.store, self.engine, self.dispatch, self.clock, self.entropy, LEASE_SECONDS)
        self.instances = Instances(self.changes, self.engine, self.clock)
        self.jobs = Jobs(self.changes, self.engine, self.wakeups, self.clock)
        self.sequencer = sequencer(EventLog(system, self._lead("sequencer")), self.clock, self.entropy)
        reader = LogReader(system, self._lead(CONSUMER), CONSUMER)
        self.relay = relay(reader, MemoryOutlet(), self.clock, self.entropy, self.tasks)
        self.sealer = sealer(AuditChains(system, self._lead("sealer"), KEYS.signer), self.clock, self.entropy)
        self.housekeeping = Housekeeping(system)
        self.upkeep = Upkeep(self.housekeeping, self.clock, self.entropy)
        calls = Calls(self.workers, engine, self.clock, self.tasks)
        self.desk = Desk(
            self.workers,
            self.changes,
            calls,
            self.dispatch,
            self.wakeups,
            self.watch,
            self.streams,
            KEYS,
            self.clock,
            tuning,
            PUBLIC_URL,
        )

    def _lead(self, name: str) -> Leading:
        return Leading(self.system, name, self.name, TERM_SECONDS, PADDING_SECONDS)

    def next_number(self) -> int:
        """Of a signed call. Each copy has its own, as if the worker had counted on."""
        self._calls += 1
        return self._calls

    @asynccontextmanager
    async def taken(self, role: Role) -> AsyncIterator[Any]:
        """A connection of a role."""
        pool = self.pools[role]
        connection = await pool.acquire()
        try:
            with answerable():
                yield connection
        finally:
            await pool.release(connection)

    @asynccontextmanager
    async def transaction(self, role: Role) -> AsyncIterator[Any]:
        async with self.taken(role) as connection, connection.transaction():
            yield connection

    async def end(self) -> None:
        await self.tasks.close()

    async def close(self) -> None:
        for pool in self.pools.values():
            await pool.close()

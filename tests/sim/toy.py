"""A toy of the job protocol with bugs to plant: leases and fences over a wire, a database that commits, events, and a provider.

It checks the simulator, not SPECTRUM: whatever is planted here has to be found within a bounded number of seeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from sim.hosts import EPOCH, Host
from sim.invariants import Check, When, invariant, unread
from sim.loop import SimLoop
from sim.nemesis import Nemesis
from sim.twins.calls import Line
from sim.twins.faults import Faults
from sim.twins.provider import MemoryTarget
from sim.twins.wire import Unreachable, Wire
from sim.world import Scenario, World
from spectrum.core.errors import Fault
from spectrum.core.ids import InstanceId, make
from spectrum.core.product.resources import Base, Volume
from spectrum.ports import Tasks
from spectrum.providers.protocol import Call

JOBS = ("first", "second", "third")
STEPS = 5
LEASE = 5.0  # seconds
TROUBLE = 30.0  # seconds with faults


class Bug(StrEnum):
    NO_FENCE = "takes reports under any fence"
    LOST_UPDATE = "writes back what it read, whoever wrote in between"
    ACK_BEFORE_COMMIT = "answers a report before its commit"
    DUAL_WRITE = "publishes the event of a step beside its transaction"


class Refused(Exception):
    """The control plane says no, and surely did nothing."""


@dataclass(frozen=True)
class Row:
    job: str
    version: int = 0
    fence: int = 0
    until: float = 0.0
    step: int = 0


@dataclass
class Database:
    """Rows and published events; a commit is one step of the loop. It outlives the control plane."""

    line: Line
    rows: dict[str, Row] = field(default_factory=lambda: {job: Row(job) for job in JOBS})
    events: set[tuple[str, int]] = field(default_factory=set)
    writes: list[tuple[Row, Row, int]] = field(default_factory=list)  # before, after, the fence of the writer
    acknowledged: set[tuple[str, int]] = field(default_factory=set)  # what a worker was told is done

    async def read(self, job: str) -> Row:
        return await self.line.call("db.read", lambda: self.rows[job])

    async def commit(self, row: Row, fence: int, expected: int | None, event: bool) -> None:
        def work() -> None:
            before = self.rows[row.job]
            if expected is not None and before.version != expected:
                raise Refused("somebody else wrote in between")
            self.rows[row.job] = row
            self.writes.append((before, row, fence))
            if event:
                self.events.add((row.job, row.step))
            SimLoop.current().tell(
                f"{row.job} is at step {row.step}, version {row.version}, fence {row.fence}", "database"
            )
            SimLoop.current().changed()

        await self.line.call("db.commit", work)

    async def publish(self, job: str, step: int) -> None:
        await self.line.call("bus.publish", lambda: self.events.add((job, step)))


@invariant("P4", Database)
def no_write_under_a_stale_fence(database: Database) -> Check:
    """A report never changes a row under a fence that is not the row's."""
    new = unread(database.writes)

    def check() -> Iterator[str]:
        for before, after, fence in new():
            if fence < before.fence:
                yield f"{after.job} was written under fence {fence}, its fence was {before.fence}"

    return check


@invariant("P5", Database)
def each_write_raises_the_version_by_one(database: Database) -> Check:
    """Versions rise by one, steps never go back."""
    new = unread(database.writes)

    def check() -> Iterator[str]:
        for before, after, _ in new():
            if after.version != before.version + 1:
                yield f"{after.job} went from version {before.version} to {after.version}"

    return check


@invariant("P1", Database)
def nothing_acknowledged_is_lost(database: Database) -> Check:
    """What a worker was told is done is in the database."""

    def check() -> Iterator[str]:
        for job, step in sorted(database.acknowledged):
            if database.rows[job].step < step:
                yield f"step {step} of {job} was acknowledged, the database is at {database.rows[job].step}"

    return check


@invariant("P6", Database, When.END)
def an_event_for_each_committed_step(database: Database) -> Check:
    """As many events as committed steps."""

    def check() -> Iterator[str]:
        done = {(row.job, step) for row in database.rows.values() for step in range(1, row.step + 1)}
        if done != database.events:
            yield f"committed {sorted(done)}, published {sorted(database.events)}"

    return check


@dataclass
class Control:
    """The control plane of one life."""

    host: Host
    database: Database
    bugs: frozenset[Bug]
    tasks: Tasks = field(default_factory=Tasks)

    async def handle(self, request: tuple[Any, ...]) -> Any:
        match request:
            case ("claim",):
                return await self._claim()
            case ("report", str(job), int(fence), int(step)):
                return await self._report(job, fence, step)
        raise Refused(f"unknown request {request!r}")

    async def _claim(self) -> tuple[str, int, int] | None:
        for job in JOBS:
            row = await self.database.read(job)
            now = SimLoop.current().now
            if row.step < STEPS and row.until <= now:
                taken = replace(row, version=row.version + 1, fence=row.fence + 1, until=now + LEASE)
                await self._commit(taken, taken.fence, row.version, event=False)
                return job, taken.fence, taken.step
        return None

    async def _report(self, job: str, fence: int, step: int) -> int:
        row = await self.database.read(job)
        if fence != row.fence and Bug.NO_FENCE not in self.bugs:
            raise Refused(f"fence {fence} is stale: {row.fence}")
        if step <= row.step:
            return row.step
        done = replace(row, version=row.version + 1, step=step, until=SimLoop.current().now + LEASE)
        if Bug.ACK_BEFORE_COMMIT in self.bugs:
            self.tasks.spawn(self._commit_quietly(done, fence, row.version), "commit later")
            return step
        await self._commit(done, fence, row.version, event=True)
        return step

    async def _commit(self, row: Row, fence: int, read: int, event: bool) -> None:
        apart = Bug.DUAL_WRITE in self.bugs
        expected = None if Bug.LOST_UPDATE in self.bugs else read
        await self.database.commit(row, fence, expected, event and not apart)
        if event and apart:
            await self.database.publish(row.job, row.step)

    async def _commit_quietly(self, row: Row, fence: int, read: int) -> None:
        try:
            await self._commit(row, fence, read, event=True)
        except (Refused, ConnectionError):
            SimLoop.current().tell("a commit failed after its answer had gone out")


@dataclass
class Worker:
    """A worker of one life: claims, acts, reports."""

    host: Host
    wire: Wire
    database: Database
    target: MemoryTarget
    instances: dict[str, InstanceId]

    async def work(self) -> None:
        while True:
            await self.host.clock.sleep(0.5 + self.host.entropy.uniform())
            try:
                await self._one_job()
            except (Refused, Unreachable, ConnectionError, Fault, TimeoutError) as error:
                SimLoop.current().tell(f"lets go after {error!r}")

    async def _one_job(self) -> None:
        claimed = await self._ask("claim")
        if claimed is None:
            return
        job, fence, step = claimed
        SimLoop.current().tell(f"works on {job} from step {step} under fence {fence}")
        provider = self.target.connect()
        async with asyncio.timeout(3):
            base = Call(self.instances[job], "instance/base", "base.1", fence, fence * 100)
            await provider.ensure(base, Base(job))
        for number in range(step + 1, STEPS + 1):
            slot = f"data-{number}/volume"
            call = Call(self.instances[job], slot, f"{slot}.1", fence, fence * 100 + number)
            async with asyncio.timeout(3):
                await provider.ensure(call, Volume(slot))
            self.database.acknowledged.add((job, await self._ask("report", job, fence, number)))
            SimLoop.current().changed()

    async def _ask(self, *request: Any) -> Any:
        async with asyncio.timeout(2):
            return await self.wire.send("control", request)


def toy(*bugs: Bug) -> Scenario:
    """The scenario, with these bugs planted."""

    async def scenario(world: World) -> None:
        database = Database(Line(world.faults, _away))
        target = MemoryTarget(world.faults)
        wire = Wire(world.faults)
        instances = {job: InstanceId(make("ins", EPOCH, bytes([0] * 9 + [n]))) for n, job in enumerate(JOBS)}
        world.watch(database, target)

        async def serve(host: Host) -> None:
            wire.listen("control", host, Control(host, database, frozenset(bugs)).handle)
            await asyncio.Event().wait()

        world.host("control", serve)
        for number in (1, 2):
            world.host(f"worker-{number}", lambda host: Worker(host, wire, database, target, instances).work())
        nemesis = Nemesis(world, (wire,), (target,))
        nemesis.begin()
        await asyncio.sleep(_until(world.faults))
        nemesis.heal()
        await world.patiently(lambda: all(row.step == STEPS for row in database.rows.values()), "every job's end", 120)
        await asyncio.sleep(20)  # for what is still on its way

    return scenario


def _until(faults: Faults) -> float:
    """How long the trouble lasts: short for seeds that have none."""
    return faults.one_of("trouble", (2.0, 10.0, TROUBLE))


def _away(why: str) -> Refused | ConnectionError:
    """Only what surely did not happen is a refusal."""
    return Refused(why) if why == "no connection" else ConnectionError(why)


fenced = toy()
ack_before_commit = toy(Bug.ACK_BEFORE_COMMIT)
dual_write = toy(Bug.DUAL_WRITE)

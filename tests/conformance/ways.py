"""What the suite of hints needs from each way: somebody who tells, listeners, and hands that take the way away."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from sim.choices import Choices
from sim.twins.faults import Faults
from sim.twins.kafka import MemoryHints, MemoryKafka
from spectrum.core.ids import InstanceId, JobId
from spectrum.core.jobs.commands import Hint
from spectrum.ports import SystemClock, SystemEntropy, Tasks
from spectrum.transports.kafka import topics
from spectrum.transports.kafka.hints import HintSender, KafkaHints
from spectrum.transports.poll import PollLink
from spectrum.transports.protocol import Hints, Incarnation, LinkDown, Room, hints_topic
from spectrum.worker.keys import load_or_create
from spectrum.worker.main import runnable
from tests.api.support import PUBLIC_URL, Api, Caller, serving
from tests.api.vendor import vendor
from tests.db.rows import make_id
from tests.kafka.broker import Broker
from tests.kafka.conftest import settings_of
from tests.postgres import Database

HERE, ELSEWHERE = "here", "elsewhere"
PATIENCE = 60.0
PAUSE = 0.05


@dataclass
class Way:
    """`pools` are two that nothing was told to yet. `remove` takes the way away, as a machine does that loses its power."""

    pools: dict[str, str]
    send: Callable[[list[Hint]], None]
    hearing: Callable[[str, str], Awaitable[Hints]]  # of a pool, by a member
    remove: Callable[[], Awaitable[None]]
    restore: Callable[[], Awaitable[None]]
    hang: Callable[[], None] | None = None
    told: int = 0
    listeners: list[Listener] = field(default_factory=list)

    def tell(self, pool: str = HERE) -> None:
        """A job of some instance became claimable."""
        self.told += 1
        number = f"00000000-0000-7000-8000-{self.told:012d}"
        self.send([Hint(JobId(f"job_{number}"), InstanceId(f"ins_{number}"), self.pools[pool])])

    async def heard_by_any(self) -> None:
        """One more, by whoever listens."""
        before = sum(each.count for each in self.listeners)
        self.tell()
        await self.listeners[0].until(lambda: sum(each.count for each in self.listeners) > before)

    async def listener(self, member: str = "wrk_a", pool: str = HERE) -> Listener:
        """Somebody who listens by now."""
        hints = await self.hearing(pool, member)
        made = Listener(hints)
        self.listeners.append(made)
        hints.listen(hints_topic(self.pools[pool]), made.note)
        await made.until(lambda: hints.listening)
        return made


@dataclass
class Listener:
    """Somebody in the place of a worker."""

    hints: Hints
    count: int = 0

    def note(self) -> None:
        self.count += 1

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - what threads and brokers do is no event here
                await asyncio.sleep(PAUSE)

    async def hears(self, tell: Callable[[], None]) -> None:
        """What is told now."""
        before = self.count
        tell()
        await self.until(lambda: self.count > before)


# ---- long polls


class Polling:
    """Hears by long polls alone, as a worker without another way does."""

    def __init__(self, link: PollLink, incarnation: Incarnation, tasks: Tasks) -> None:
        self.listening = False
        self._link, self._incarnation, self._tasks = link, incarnation, tasks
        self._room = asyncio.Event()
        self._room.set()
        self._ended = False

    def listen(self, topic: str, heard: Callable[[], None]) -> None:
        self._tasks.spawn(self._poll(heard), "poll")

    async def _poll(self, heard: Callable[[], None]) -> None:
        seconds = 0.0
        while not self._ended:
            await self._room.wait()
            try:
                polled = await self._link.poll(self._incarnation, seconds, Room())
            except LinkDown:
                self.listening = False
                await asyncio.sleep(PAUSE)
                continue
            if polled.work or not self.listening:
                heard()
            self.listening, seconds = True, 10.0

    @contextmanager
    def dealing(self) -> Iterator[None]:
        yield

    def hold(self, full: bool) -> None:
        (self._room.clear if full else self._room.set)()

    async def close(self) -> None:
        self._ended = True


class _Cable(httpx2.AsyncBaseTransport):
    """The way to a control plane, which can be pulled out."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self.inner = inner
        self.out = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.out:
            raise httpx2.ConnectError("pulled out")
        return await self.inner.handle_async_request(request)


@asynccontextmanager
async def by_polls(database: Database, folder: Path) -> AsyncIterator[Way]:
    tasks = Tasks()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(serving(database, folder))
        here = await stack.enter_async_context(vendor(api))
        stack.push_async_callback(tasks.close)
        await here.admin.post("/v1/targets", {"name": ELSEWHERE, "url": "process:///srv/elsewhere"})
        targets = {HERE: "local", ELSEWHERE: ELSEWHERE}
        rows = await api.as_admin("SELECT name, pool_id FROM targets")
        pools = {row["name"]: row["pool_id"] for row in rows}
        cable = _Cable(httpx2.ASGITransport(api.plane.app()))
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=cable, base_url=PUBLIC_URL))

        async def hearing(pool: str, member: str) -> Hints:
            link = await _link(api, here.admin, http, tasks, targets[pool], folder / f"{make_id('wrk')}.key")
            return Polling(link, await link.start(make_id("lea")), tasks)

        async def pull(out: bool) -> None:
            cable.out = out

        def send(hints: list[Hint]) -> None:
            for hint in hints:
                api.plane.wakeups.wake(hint.pool_id)

        by_name = {HERE: pools["local"], ELSEWHERE: pools[ELSEWHERE]}
        yield Way(by_name, send, hearing, lambda: pull(True), lambda: pull(False))


async def _link(
    api: Api, admin: Caller, http: httpx2.AsyncClient, tasks: Tasks, target: str, key_file: Path
) -> PollLink:
    keys = load_or_create(key_file, SystemEntropy())
    link = PollLink(
        http, PUBLIC_URL, keys.signer, api.plane.keys.signing_key_id, keys, SystemClock(), runnable(), tasks
    )
    made = await admin.post("/v1/workers:join-token", {"target": target})
    await link.enrol(made.body["token"], "w", keys.signing_key, keys.sealing_key)
    return link


# ---- Kafka


@asynccontextmanager
async def by_kafka(address: str, broker: Broker | None = None) -> AsyncIterator[Way]:
    """On a broker that does not belong to the test, unless it is given."""
    kafka, tasks = settings_of(address), Tasks()
    pools = {name: f"pol_{secrets.token_hex(6)}" for name in (HERE, ELSEWHERE)}
    for pool in pools.values():
        await asyncio.to_thread(topics.make_hints, kafka, hints_topic(pool))
    sender = HintSender(kafka, tasks)
    tasks.spawn(sender.run(), "hints")

    async def hearing(pool: str, member: str) -> Hints:
        return KafkaHints(kafka, member)

    async def remove() -> None:
        assert broker is not None
        await asyncio.to_thread(broker.kill)

    async def restore() -> None:
        assert broker is not None
        await asyncio.to_thread(broker.start)

    way = Way(pools, sender.tell, hearing, remove, restore, broker.freeze if broker else None)
    try:
        yield way
    finally:
        if broker is not None and broker.process is not None:
            broker.thaw()
        for listener in way.listeners:
            await listener.hints.close()
        await tasks.close()
        await sender.close()


# ---- the twin


@asynccontextmanager
async def in_memory() -> AsyncIterator[Way]:
    kafka = MemoryKafka(Faults(Choices(1, {}), others=0.0))

    async def hearing(pool: str, member: str) -> Hints:
        return MemoryHints(kafka, member)

    async def be(up: bool) -> None:
        kafka.be(up=up)

    yield Way(
        {name: f"pol_{name}" for name in (HERE, ELSEWHERE)},
        kafka.tell,
        hearing,
        lambda: be(False),
        lambda: be(True),
        lambda: kafka.be(hangs=True),
    )

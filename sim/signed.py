"""The worker protocol as it really travels: real HTTP requests, real signatures, the real application and desk, without sockets.

Below the desk's dispatch stands the twin of the database. What the desk reads by queries of its own (whose key it is, the window of
call numbers, whether a lease lives) is asked of the twin too; the rules about it are production code. On the way requests are
altered and repeated elsewhere, and answers are altered: nothing of that may be believed (P13).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any, cast

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import ASGIApp, Message

from sim.hosts import Host
from sim.loop import SimLoop
from sim.marks import declare, sometimes
from sim.twins.faults import SLOW
from sim.twins.store import MemoryStore
from sim.twins.wire import Unreachable, Wire
from sim.world import World
from spectrum.api import worker as protocol
from spectrum.api.app import create_app
from spectrum.control.calls import Calls, _Used
from spectrum.control.desk import Desk, Visit
from spectrum.control.workers import KnownWorker
from spectrum.core.errors import Problem
from spectrum.core.ids import LeaseId, OrganizationId, PoolId, WorkerId
from spectrum.core.jobs.holding import lease_ended
from spectrum.core.signing import Call, CallWindow, Signer, call_signature
from spectrum.ports import Clock, Spawner, Tasks
from spectrum.settings import Tuning
from spectrum.telemetry import Metrics
from spectrum.transports import wire as protocol_wire
from spectrum.transports.poll import PollLink
from spectrum.transports.protocol import Incarnation, Look, Sighting

PUBLIC_URL = "http://cell.example"
ALTERED, REPEATED, FORGED = "http altered", "http repeated elsewhere", "http answer altered"

FOUND_OUT = declare("an altered call was refused", "its signature covers all that a call says")
REPLAYED = declare("a call's number was used already", "what is overheard must be worth nothing")
UNBELIEVED = declare("an altered answer was not believed", "a worker acts on what the cell has signed alone")


def signer_of(name: str) -> Signer:
    """The key of somebody in the simulation, the same in every run."""
    return Signer.of(Ed25519PrivateKey.from_private_bytes(blake2b(name.encode(), digest_size=32).digest()))


CELL = signer_of("the cell")


@dataclass(frozen=True, slots=True)
class Heard:
    """A call that was admitted: whose it was taken for, and what it said. Its number was used up under the lease."""

    worker_id: WorkerId
    lease_id: str | None
    number: int
    target: str
    body: bytes


@dataclass
class Travelled:
    """What was really sent and answered, and what was taken for it: what P13 is judged by."""

    sent: set[tuple[WorkerId, str, bytes]] = field(default_factory=set)
    heard: list[Heard] = field(default_factory=list)
    answered: set[tuple[str, int, bytes]] = field(default_factory=set)  # to the call with this signature
    believed: list[tuple[str, int, bytes]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Raw:
    """A request or an answer on the wire."""

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    path: bytes = b""
    query: bytes = b""
    status: int = 0


# ---- the cell's side


@dataclass
class Registry:
    """Whose key it is (in the place of `control.workers.Workers`)."""

    known: dict[str, KnownWorker] = field(default_factory=dict)

    def enrol(self, worker_id: WorkerId, organization_id: OrganizationId, pool_id: PoolId) -> None:
        worker = KnownWorker(worker_id, organization_id, pool_id, b"", 1, False)
        self.known[signer_of(worker_id).key_id] = worker

    async def by_key(self, key_id: str) -> KnownWorker:
        if (worker := self.known.get(key_id)) is None:
            raise Problem("forbidden", "No worker has this key.")
        return worker


@dataclass
class Windows(Calls):
    """The real admission of calls; the rows of its windows are in the twin."""

    store: MemoryStore = field(kw_only=True)
    travelled: Travelled = field(kw_only=True)

    async def admit(self, call: Call, lease_id: str | None) -> KnownWorker:
        try:
            worker = await super().admit(call, lease_id)
        except Problem as problem:
            sometimes(FOUND_OUT, problem.slug == "signature-invalid")
            sometimes(REPLAYED, problem.slug == "signature-replayed" and "used already" in problem.detail)
            raise
        number = int(call.headers["signature-input"].partition('nonce="')[2].partition('"')[0])
        self.travelled.heard.append(Heard(worker.id, lease_id, number, call.target, call.body))
        SimLoop.current().changed()
        return worker

    async def _move(self, batch: Sequence[_Used]) -> list[bool | Exception]:
        return await self.store.ask(lambda: self._move_rows(batch))

    def _move_rows(self, batch: Sequence[_Used]) -> list[bool | Exception]:
        database = self.store.database
        wanted = {used.lease_id for used in batch}
        leases = {lease_id: lease for lease_id, lease in database.leases.items() if lease_id in wanted}
        rows = {str(lease_id): {"worker_id": lease.worker_id} for lease_id, lease in leases.items()}
        windows = {lease_id: database.windows.get(lease_id, CallWindow()) for lease_id in rows}
        free = [self._accept(used, rows, windows) for used in batch]
        database.windows |= windows
        return free


@dataclass
class SimDesk(Desk):
    """The real desk; whether a lease lives is asked of the twin."""

    store: MemoryStore = field(kw_only=True)

    async def _start(self, call: Call) -> Incarnation:
        worker = await self.calls.admit(call, None)
        asked: protocol_wire.Start = protocol_wire.decode(protocol_wire.Start, call.body)
        lease = await self.dispatch.start(Visit(worker, LeaseId(""), call.body).caller(asked.operations), asked.boot)
        hints = self.hints(worker.pool_id)
        return Incarnation(lease.id, lease.incarnation, self.tuning.lease, self.tuning.heartbeat, hints)

    async def _living(self, visit: Visit) -> datetime:
        database = self.store.database
        lease, now = await self.store.ask(lambda: (database.leases.get(visit.lease_id), database.now()))
        if lease is None or not lease.live or lease.worker_id != visit.worker.id:
            raise lease_ended(visit.lease_id)
        return now


@dataclass
class Looks:
    """What is due to be looked at, and what was seen (in the place of `control.watch.Watch`)."""

    plane: Any
    every: float

    async def due(self, pool_id: PoolId, room: int, now: datetime) -> tuple[Look, ...]:
        looks: tuple[Look, ...] = self.plane.looks(room)
        return looks

    async def pause(self, pool_id: PoolId, now: datetime) -> float:
        return self.every

    async def seen(self, pool_id: PoolId, actor: str, sightings: Sequence[Sighting]) -> None:
        await self.plane.seen(actor, sightings)


class NoStreams:
    """Nobody reads logs in a simulation."""

    async def open(self, pool_id: PoolId, worker_id: WorkerId, room: int, now: datetime) -> tuple[()]:
        return ()


def application(
    plane: Any, store: MemoryStore, registry: Registry, travelled: Travelled, tuning: Tuning, every: float
) -> ASGIApp:
    """The API of one copy, of which only the worker protocol is asked for."""
    host: Host = plane.host
    tasks: Spawner = plane.tasks
    clock: Clock = host.clock
    calls = Windows(cast(Any, registry), cast(Any, None), clock, tasks, store=store, travelled=travelled)
    desk = SimDesk(
        workers=cast(Any, registry),
        changes=cast(Any, None),
        calls=calls,
        dispatch=plane.dispatch,
        wakeups=plane.wakeups,
        watch=cast(Any, Looks(plane, every)),
        streams=cast(Any, NoStreams()),
        keys=cast(Any, None),
        clock=clock,
        tuning=tuning,
        public_url=PUBLIC_URL,
        store=store,
    )
    services = SimpleNamespace(desk=desk, clock=clock, entropy=host.entropy, metrics=Metrics())
    return create_app(cast(Any, services), PUBLIC_URL, routers=(protocol.router,), signer=CELL)


async def answer(app: ASGIApp, request: Raw, travelled: Travelled) -> Raw:
    """What the application answers to a request."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": request.path.decode(),
        "raw_path": request.path,
        "query_string": request.query,
        "root_path": "",
        "headers": list(request.headers),
        "client": ("worker", 1),
        "server": ("cell", 80),
    }
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Message) -> None:
        said.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in said[1:])
    signature = call_signature({name.decode(): value.decode() for name, value in request.headers})
    if signature is not None:
        travelled.answered.add((signature.member, said[0]["status"], body))
    return Raw(tuple(said[0]["headers"]), body, status=said[0]["status"])


# ---- the worker's side


@dataclass
class WireTransport(httpx2.AsyncBaseTransport):
    """Carries requests over the wire's twin to any copy, past somebody who listens and alters."""

    world: World
    wire: Wire
    addresses: tuple[str, ...]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        headers = tuple((name.lower(), value) for name, value in request.headers.raw)
        sent = Raw(headers, await request.aread(), url.raw_path.partition(b"?")[0], url.query)
        address = self.world.faults.one_of("link address", self.addresses)
        if self.world.faults.strikes(REPEATED):
            self.world.loop.outside(self._repeat(sent), "an eavesdropper")
        if self.world.faults.strikes(ALTERED):
            sent = replace(sent, body=_altered(sent.body))
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                came: Raw = await self.wire.send(address, ("http", sent))
        except TimeoutError as error:
            raise httpx2.ReadTimeout("no answer in time", request=request) from error
        except Unreachable as error:
            raise httpx2.ConnectError(str(error), request=request) from error
        if self.world.faults.strikes(FORGED):
            came = replace(came, body=_altered(came.body))
        return httpx2.Response(came.status, headers=list(came.headers), content=came.body)

    async def _repeat(self, sent: Raw) -> None:
        """What was overheard is sent to every copy, a while later."""
        await asyncio.sleep(self.world.faults.one_of(f"{REPEATED} after", SLOW))
        for address in self.addresses:
            try:
                await self.wire.send(address, ("http", sent))
            except Unreachable as error:
                self.world.loop.tell(f"a repeated call came to {error}", "an eavesdropper")


def _altered(body: bytes) -> bytes:
    """A digit of it is another one; where there is none, it has one."""
    digits = [place for place, byte in enumerate(body) if chr(byte).isdigit()]
    if not digits:
        return body + b"0"
    place = digits[-1]
    return body[:place] + str((body[place] - 47) % 10).encode() + body[place + 1 :]


@dataclass
class WatchedLink(PollLink):
    """The real link, with note taken of what it sends and believes."""

    worker_id: WorkerId = field(kw_only=True)
    travelled: Travelled = field(kw_only=True)

    def _signed(self, path: str, query: str, body: bytes) -> Call:
        call = super()._signed(path, query, body)
        self.travelled.sent.add((self.worker_id, call.target, call.body))
        return call

    def _checked(self, call: Call, response: httpx2.Response, what: str) -> bytes:
        signature = call_signature(call.headers)
        try:
            body = super()._checked(call, response, what)
        except Problem:
            self._believe(signature.member if signature else "", response)
            raise
        except Exception as error:
            sometimes(UNBELIEVED, "not signed by the cell" in str(error))
            raise
        self._believe(signature.member if signature else "", response)
        return body

    def _believe(self, member: str, response: httpx2.Response) -> None:
        self.travelled.believed.append((member, response.status_code, response.content))
        SimLoop.current().changed()


def link(
    world: World,
    wire: Wire,
    addresses: tuple[str, ...],
    worker_id: WorkerId,
    clock: Clock,
    operations: Mapping[str, Sequence[int]],
    travelled: Travelled,
) -> PollLink:
    """A worker's link over HTTP."""
    client = httpx2.AsyncClient(
        transport=WireTransport(world, wire, addresses), base_url=PUBLIC_URL, trust_env=False, headers={}
    )
    return WatchedLink(
        client,
        PUBLIC_URL,
        signer_of(worker_id),
        CELL.key_id,
        cast(Any, None),
        clock,
        operations,
        Tasks(),
        worker_id=worker_id,
        travelled=travelled,
    )

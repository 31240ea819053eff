"""An instance that really runs, a worker that really watches it, and copies of the control plane on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import uvicorn

from sim.system import outline
from spectrum.core.access import TOKEN_ENTROPY, make_token
from spectrum.core.product.outline import EndpointOutline, ServiceOutline
from spectrum.core.product.release import TargetKind
from spectrum.operations import CATALOG
from spectrum.ports import SystemClock, Tasks
from spectrum.server import ControlPlane
from spectrum.transports.poll import PollLink
from spectrum.transports.protocol import Incarnation
from spectrum.worker.keys import load_or_create as worker_keys
from spectrum.worker.loop import Worker
from spectrum.worker.main import runnable
from spectrum.worker.rendering import ReleaseRenderer
from spectrum.worker.spool import DiskSpool
from tests.api.support import ENTROPY, PUBLIC_URL, Caller, control_plane
from tests.conformance.hand import Hand
from tests.conformance.harness import process_harness
from tests.db.rows import Rows, insert_row, make_id, rows_of
from tests.postgres import Database

DEADLINE = 30.0
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
CLOCK = SystemClock()
TABLES = ("organizations", "products", "releases", "pools", "targets", "instances", "placements", "watches")


@dataclass
class Copy:
    """One copy of the control plane on a socket of its own."""

    plane: ControlPlane
    url: str


@dataclass
class Scene:
    """Two copies over one database, an instance on a process target, and its organization's administrator."""

    folder: Path
    admin: asyncpg.Connection[asyncpg.Record]
    copies: list[Copy]
    hand: Hand
    rows: Rows
    stack: AsyncExitStack
    tasks: Tasks
    callers: dict[tuple[str, int], Caller] = field(default_factory=dict)

    @property
    def target_url(self) -> str:
        return str(self.rows["targets"]["url"])

    async def caller(self, organization: str = "acme", copy: int = 0) -> Caller:
        """An administrator of the organization, at one of the copies."""
        if (organization, copy) not in self.callers:
            token = make_token(ENTROPY.token(TOKEN_ENTROPY))
            await self.copies[copy].plane.identity.bootstrap(organization, token)
            http = await self.stack.enter_async_context(httpx2.AsyncClient(base_url=self.copies[copy].url))
            self.callers[organization, copy] = Caller(http, token.text)
        return self.callers[organization, copy]

    async def link(self, copy: int = 0) -> tuple[PollLink, Incarnation]:
        """A worker that has joined the pool, in its first incarnation; it does nothing by itself."""
        keys = worker_keys(self.folder / f"{make_id('wrk')}.key", ENTROPY)
        at = self.copies[copy]
        http = await self.stack.enter_async_context(httpx2.AsyncClient(base_url=at.url))
        link = PollLink(
            http, PUBLIC_URL, keys.signer, at.plane.keys.signing_key_id, keys, CLOCK, runnable(), self.tasks
        )
        made = await (await self.caller(copy=copy)).post("/v1/workers:join-token", {"target": "local"})
        await link.enrol(made.body["token"], "w", keys.signing_key, keys.sealing_key)
        return link, await link.start(make_id("lea"))

    async def worker(self, copy: int = 0) -> Worker:
        """A whole worker at work on the instance's target."""
        link, _ = await self.link(copy)
        outside = await self.stack.enter_async_context(httpx2.AsyncClient())
        providers = {self.target_url: self.hand.provider}
        spool = DiskSpool(self.folder / "spool")
        renderer = ReleaseRenderer(link, outside)
        worker = Worker(link, providers, CATALOG, renderer, CLOCK, ENTROPY, self.tasks, spool)
        self.tasks.spawn(worker.run(), "worker")
        return worker

    async def instance(self) -> dict[str, Any]:
        row = await self.admin.fetchrow("SELECT * FROM instances WHERE id = $1", self.hand.instance)
        assert row is not None
        return dict(row)

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The instance's row once it is as wanted; looked at whenever a copy has committed something about it."""
        async with asyncio.timeout(DEADLINE):
            while not wanted(row := await self.instance()):
                waits = [copy.plane.wakeups.wait(self.hand.instance, 0.5) for copy in self.copies]
                await asyncio.gather(*waits)
        return row


@asynccontextmanager
async def scene(database: Database, folder: Path) -> AsyncIterator[Scene]:
    tasks = Tasks()
    async with AsyncExitStack() as stack, process_harness() as harness:
        hand = Hand(harness)
        await hand.web()
        await hand.until("web/container", lambda seen: seen.health.value == "healthy")
        admin = await asyncpg.connect(database.admin_url)
        stack.push_async_callback(admin.close)
        rows = _rows(hand)
        for table in TABLES:
            await insert_row(admin, table, rows[table])
        copies = [await _copy(stack, database, folder) for _ in range(2)]
        stack.push_async_callback(tasks.close)
        yield Scene(folder, admin, copies, hand, rows, stack, tasks)


def _rows(hand: Hand) -> Rows:
    rows = rows_of("acme")
    made = replace(
        outline(),
        kind=TargetKind.PROCESS,
        services=(ServiceOutline("web", (), (), True, 60.0, 5.0, False),),
        endpoints=(EndpointOutline("api", "web", 80, True),),
    )
    rows["releases"]["outline"] = json.dumps({"process": made.as_json()})
    rows["targets"]["url"] = f"process://{hand.harness.provider.folder}"  # type: ignore[attr-defined]
    spec = {"product": "hello", "version": "1", "release_id": rows["releases"]["id"], "plan": "small"}
    text = json.dumps({**spec, "parameters": {}, "desired_state": "running"})
    service = {"name": "web", "state": "running", "health": "healthy", "restarts": 0, "ports": {}}
    rows["instances"].update(
        id=hand.instance,
        lifecycle="running",
        counter=hand.fence,
        requested=text,
        accepted=text,
        accepted_generation=1,
        services=json.dumps([service]),
    )
    for table in ("placements", "watches"):
        rows[table]["instance_id"] = hand.instance
    rows["watches"]["look_at"] = LONG_AGO
    return rows


async def _copy(stack: AsyncExitStack, database: Database, folder: Path) -> Copy:
    plane = await control_plane(stack, database, folder)
    plane.watch.interval = 0.2
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(plane.app(), lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
    serving = Tasks()
    task = serving.spawn(server.serve([listener]), "http")

    async def stop() -> None:
        server.should_exit = True
        await task

    stack.push_async_callback(stop)
    return Copy(plane, f"http://127.0.0.1:{listener.getsockname()[1]}")

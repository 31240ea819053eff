"""A whole API for tests: the real application over real PostgreSQL, reached in-process, and a caller that speaks to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from spectrum.api.app import create_app
from spectrum.api.services import Services
from spectrum.control.identity import Identity
from spectrum.control.secrets import CellKeys, load_or_create
from spectrum.control.workers import Workers
from spectrum.core.access import TOKEN_ENTROPY, TokenText, make_token
from spectrum.db.pools import Role, open_pool
from spectrum.ports import SystemEntropy
from spectrum.server import ControlPlane
from spectrum.settings import ServerSettings
from tests.canaries import Canaries
from tests.postgres import Database

PUBLIC_URL = "http://127.0.0.1:8420"
ENTROPY = SystemEntropy()


@dataclass(frozen=True)
class Answered:
    """What came back."""

    status: int
    body: Any
    headers: httpx2.Headers

    @property
    def slug(self) -> str:
        return str(self.body["type"]).removeprefix("urn:spectrum:problem:")


@dataclass
class Caller:
    """Someone with a token. Every change gets a key of its own unless the test gives one."""

    http: httpx2.AsyncClient
    token: str | None = None
    keys: int = field(default=0)

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> Answered:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            sent.setdefault("authorization", f"Bearer {self.token}")
        if method not in ("GET", "HEAD"):
            self.keys += 1
            sent["idempotency-key"] = key or f"{id(self)}-{self.keys}"
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        if content is not None:
            sent.setdefault("content-type", "application/json")
        response = await self.http.request(method, path, content=content, headers=sent)
        return Answered(response.status_code, response.json() if response.content else None, response.headers)

    async def get(self, path: str, **headers: str) -> Answered:
        return await self.call("GET", path, **headers)

    async def post(self, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> Answered:
        return await self.call("POST", path, body, key=key, **headers)

    async def put(self, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> Answered:
        return await self.call("PUT", path, body, key=key, **headers)

    async def delete(self, path: str, *, key: str | None = None, **headers: str) -> Answered:
        return await self.call("DELETE", path, key=key, **headers)


@dataclass
class Api:
    """The application with what stands behind it."""

    services: Services
    identity: Identity
    workers: Workers
    keys: CellKeys
    database: Database
    http: httpx2.AsyncClient
    plane: ControlPlane
    canaries: Canaries

    async def as_admin(self, statement: str, *arguments: Any) -> list[Any]:
        """Arrange or look at what no caller can; past row-level security."""
        connection = await asyncpg.connect(self.database.admin_url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    @asynccontextmanager
    async def holding(self, statement: str) -> AsyncIterator[None]:
        """Meanwhile, somebody else's transaction that did this is open."""
        connection = await asyncpg.connect(self.database.admin_url)
        try:
            async with connection.transaction():
                await connection.execute(statement)
                yield
        finally:
            await connection.close()

    def caller(self, token: TokenText | str | None) -> Caller:
        return Caller(self.http, token.text if isinstance(token, TokenText) else token)

    async def administrator(self, organization: str = "acme") -> Caller:
        """An administrator of the organization, which is made if it is missing."""
        token = make_token(ENTROPY.token(TOKEN_ENTROPY))
        self.canaries.plant(token.text, "the bootstrap token")
        await self.identity.bootstrap(organization, token)
        return self.caller(token)


async def control_plane(stack: AsyncExitStack, database: Database, folder: Path, **settings: Any) -> ControlPlane:
    """A copy of the control plane; copies with one folder share the cell's keys. It ends with the stack."""
    pools = {}
    for role in (Role.API, Role.ENGINE, Role.SYSTEM):
        pools[role] = await open_pool(database.urls[role], role, "test", size=4)
        stack.push_async_callback(pools[role].close)
    keys = load_or_create(folder / "master.key", ENTROPY)
    plane = ControlPlane(ServerSettings(public_url=PUBLIC_URL, **settings), keys, pools)
    stack.push_async_callback(plane.close)
    return plane


@asynccontextmanager
async def serving(
    database: Database, folder: Path, canaries: Canaries | None = None, **settings: Any
) -> AsyncIterator[Api]:
    async with AsyncExitStack() as stack:
        plane = await control_plane(stack, database, folder, **settings)
        services, identity, workers = plane.services(), plane.identity, plane.workers
        transport = httpx2.ASGITransport(create_app(services, PUBLIC_URL), raise_app_exceptions=False)
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url=PUBLIC_URL))
        yield Api(services, identity, workers, plane.keys, database, http, plane, canaries or Canaries())

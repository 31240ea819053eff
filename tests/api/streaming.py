"""Copies of the control plane on real sockets, a log that grows by hand, and clients that follow it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
import uvicorn

from spectrum.core.access import TOKEN_ENTROPY, make_token
from spectrum.ports import Tasks
from spectrum.server import Connection, ControlPlane
from tests.api.support import ENTROPY, control_plane
from tests.db.rows import make_id
from tests.postgres import Database

DEADLINE = 120.0  # seconds, on a machine that does much else
END = b"\r\n\r\n"
TYPE = "io.spectrum.worker.lost.v1"

_DATA = '{"worker_id": "wrk_00000000-0000-7000-8000-000000000001"}'
_TELL = """
INSERT INTO events (id, organization_id, epoch, subject, sequence, type, data, recorded_at)
SELECT id, $1, 1, $3, $4 + n, $5, CASE $6 WHEN '' THEN $7::jsonb ELSE jsonb_build_object('padding', $6::text) END, clock_timestamp()
FROM unnest($2::text[]) WITH ORDINALITY AS new (id, n)
"""


@dataclass
class Copy:
    """One copy of the control plane. `stop` ends it as SIGTERM does."""

    plane: ControlPlane
    port: int
    server: uvicorn.Server
    serving: asyncio.Task[None]

    async def stop(self) -> None:
        self.plane.let_go()
        self.server.should_exit = True
        await self.serving


@dataclass
class Message:
    """One server-sent event; a heartbeat has no data."""

    id: int
    data: dict[str, Any] | None


@dataclass
class Client:
    """Somebody who reads a stream, message by message, over a socket of its own."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int
    head: str
    position: int = 0
    _left: bytes = b""

    async def problem(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(await self.reader.readexactly(int(self.header("content-length"))))
        return body

    def header(self, name: str) -> str:
        found = [line.partition(":")[2].strip() for line in self.head.splitlines() if line.lower().startswith(name)]
        return found[0] if found else ""

    async def messages(self) -> AsyncIterator[Message]:
        """Until the server ends the stream in good order. Raises `ConnectionError` where it is cut."""
        while (text := await self._message()) is not None:
            fields = dict(line.split(": ", 1) for line in text.decode().splitlines())
            self.position = int(fields["id"])
            yield Message(self.position, json.loads(fields["data"]) if "data" in fields else None)

    async def events(self, count: int) -> list[dict[str, Any]]:
        """The next so many events."""
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(DEADLINE):
            async for message in self.messages():
                if message.data is not None:
                    found.append(message.data)
                if len(found) == count:
                    return found
        raise AssertionError(f"the stream ended after {len(found)} of {count} events")

    async def positions(self, count: int) -> list[int]:
        return [event["position"] for event in await self.events(count)]

    async def heartbeat(self) -> int:
        async with asyncio.timeout(DEADLINE):
            return await anext(message.id async for message in self.messages() if message.data is None)

    async def rest(self) -> list[Message]:
        async with asyncio.timeout(DEADLINE):
            return [message async for message in self.messages()]

    async def _message(self) -> bytes | None:
        while b"\n\n" not in self._left:
            try:
                size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
                part = (await self.reader.readexactly(size + 2))[:-2]
            except asyncio.IncompleteReadError as error:
                raise ConnectionError("the stream was cut off") from error
            if not part:
                return None
            self._left += part
        text, self._left = self._left.split(b"\n\n", 1)
        return text

    def stall(self) -> None:
        """Read no more."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def close(self) -> None:
        self.writer.close()


@dataclass
class Scene:
    """`organizations` and `tokens` by name. `told` counts what was told of each subject."""

    admin: asyncpg.Connection[asyncpg.Record]
    copies: list[Copy]
    stack: AsyncExitStack
    organizations: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)

    async def organization(self, name: str) -> str:
        if name not in self.organizations:
            token = make_token(ENTROPY.token(TOKEN_ENTROPY))
            made = await self.copies[0].plane.identity.bootstrap(name, token)
            self.organizations[name], self.tokens[name] = made.id, token.text
        return self.organizations[name]

    async def tell(
        self, count: int = 1, name: str = "acme", subject: str = "ins_a", type_: str = "test.told.v1", size: int = 0
    ) -> None:
        """So many events, which have no position yet."""
        first = self.told.get(subject, 0)
        self.told[subject] = first + count
        ids = [make_id("evt") for _ in range(count)]
        await self.admin.execute(_TELL, await self.organization(name), ids, subject, first, type_, "x" * size, _DATA)
        for copy in self.copies:
            copy.plane.sequencer.nudge()

    async def placed(self, count: int) -> None:
        """Return once so many events have their positions."""
        async with asyncio.timeout(DEADLINE):
            while await self.admin.fetchval("SELECT count(position) FROM events") < count:
                pass

    async def asked(self, path: str = "", name: str = "acme", copy: int = 0, **headers: str) -> Client:
        """Ask for a stream, whatever the answer is."""
        await self.organization(name)
        # What the kernel keeps for a client that does not read is to be little.
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self.copies[copy].port))
        reader, writer = await asyncio.open_connection(sock=made, limit=256 * 1024)
        self.stack.callback(writer.close)
        sent = {"authorization": f"Bearer {self.tokens[name]}", **headers}
        lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in sent.items())
        writer.write(f"GET /v1/stream{path} HTTP/1.1\r\nhost: here\r\n{lines}\r\n".encode())
        async with asyncio.timeout(DEADLINE):
            head = (await reader.readuntil(END)).decode()
        return Client(reader, writer, int(head.split()[1]), head)

    async def following(self, path: str = "", name: str = "acme", copy: int = 0, **headers: str) -> Client:
        """A client whose stream has begun: what is told from here on arrives at it."""
        client = await self.asked(path, name, copy, **headers)
        assert client.status == 200, client.head
        await client.heartbeat()
        return client

    async def refused(self, path: str = "", name: str = "acme", copy: int = 0, **headers: str) -> tuple[int, str, str]:
        """Status, slug and detail of the problem."""
        client = await self.asked(path, name, copy, **headers)
        problem = await client.problem()
        client.close()
        return client.status, str(problem["type"]).removeprefix("urn:spectrum:problem:"), str(problem["detail"])

    def limit(self, **limits: Any) -> None:
        for copy in self.copies:
            copy.plane.tail.limits = replace(copy.plane.tail.limits, **limits)


@asynccontextmanager
async def streaming(database: Database, folder: Path, copies: int = 1) -> AsyncIterator[Scene]:
    """Only the first copy gives positions to events."""
    async with AsyncExitStack() as stack:
        admin = await asyncpg.connect(database.admin_url)
        stack.push_async_callback(admin.close)
        made = [await _copy(stack, database, folder, number) for number in range(copies)]
        for each in made:
            await each.plane.notices.listening.wait()
        scene = Scene(admin, made, stack)
        scene.limit(stall=2 * DEADLINE)  # nobody is cut off because the machine does much else
        yield scene


async def _copy(stack: AsyncExitStack, database: Database, folder: Path, number: int) -> Copy:
    plane = await control_plane(stack, database, folder, rate_limit=0)
    plane.begin(frozenset({"api", "sequencer"} if number == 0 else {"api"}))
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        plane.app(), http=Connection, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
    tasks = Tasks()
    copy = Copy(plane, listener.getsockname()[1], server, tasks.spawn(server.serve([listener]), "http"))
    stack.push_async_callback(copy.stop)
    return copy


def sequences(events: Sequence[dict[str, Any]]) -> list[int]:
    return [int(event["sequence"]) for event in events]

"""A TCP proxy before PostgreSQL that does to a connection what a network does, at exactly the message that a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

COMMIT = b"Q\x00\x00\x00\x0cCOMMIT;\x00"  # as the driver sends it: a simple query
SIZE = 1 << 16


@dataclass
class Link:
    """One connection through the proxy. `deaf`: what the server says goes nowhere."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    deaf: bool = False
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def deliver(self, said: bytes) -> None:
        self.server.write(said)
        await self.server.drain()

    async def deliver_and_swallow_the_answer(self, said: bytes) -> None:
        """The server does what it is told; its answer is lost, and then the connection."""
        self.heard.clear()
        self.deaf = True
        await self.deliver(said)
        await self.heard.wait()
        self.cut()

    def cut(self) -> None:
        self.cut_client()
        self.server.transport.abort()

    def cut_client(self) -> None:
        """The client sees its connection break; the server does not know it yet."""
        self.client.transport.abort()


Treatment = Callable[[Link, bytes], Awaitable[None]]


async def forward(link: Link, said: bytes) -> None:
    await link.deliver(said)


@dataclass
class Proxy:
    """`treat` is what becomes of a client's bytes; they arrive as the driver wrote them."""

    host: str
    port: int
    treat: Treatment = forward
    _links: list[Link] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def at_commit(self, treat: Treatment, *, times: int = 1) -> None:
        """Treat the next COMMITs like this, and everything else as it should be."""
        left = times

        async def watching(link: Link, said: bytes) -> None:
            nonlocal left
            if said == COMMIT and left:
                left -= 1
                await treat(link, said)
            else:
                await link.deliver(said)

        self.treat = watching

    def cut_at(self, number: int) -> None:
        """Cut the connection of the `number`-th message from now, counted from 0."""
        left = number

        async def counting(link: Link, said: bytes) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                link.cut()
            else:
                await link.deliver(said)

        self.treat = counting

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            answers, server = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, server)
        self._links.append(link)
        back = asyncio.create_task(self._answers(link, answers))
        try:
            while said := await reader.read(SIZE):
                await self.treat(link, said)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            await back

    async def _answers(self, link: Link, answers: asyncio.StreamReader) -> None:
        try:
            while said := await answers.read(SIZE):
                link.heard.set()
                if not link.deaf:
                    link.client.write(said)
                    await link.client.drain()
        except OSError:
            pass
        finally:
            link.heard.set()
            link.client.transport.abort()
            link.server.transport.abort()

    async def close(self) -> None:
        for link in self._links:
            link.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server of this URL, and the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    proxy = Proxy(parts.hostname, parts.port)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    credentials = parts.netloc.rpartition("@")[0]
    try:
        yield proxy, urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))
    finally:
        server.close()
        await proxy.close()

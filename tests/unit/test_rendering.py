"""What a worker takes from an instance that it asks."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from spectrum.worker.rendering import answer_of

pytestmark = pytest.mark.anyio

PIECE = bytes(64 * 1024)
ENOUGH = 64 * 1024 * 1024  # bytes: more than a machine keeps on the way between two of its programs


async def test_an_instance_that_talks_without_end_is_not_listened_to() -> None:
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        try:
            while sent < ENOUGH:
                writer.write(PIECE)
                await writer.drain()
                sent += len(PIECE)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, httpx2.AsyncClient() as http:
        answer = await answer_of(http, f"http://127.0.0.1:{port}/health")

    assert answer.status == 200
    assert sent < ENOUGH

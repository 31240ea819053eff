"""The load of `bench/jobs.py` as a process of its own: callers that each submit a job over REST and wait for its end.

It reads orders from standard input, one JSON object a line, and answers each with one. Every caller has an instance of its own and
a connection that is kept; the client is as small as can be, since it shares the machine with what is measured.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvloop

END = b"\r\n\r\n"
AGAIN_SECONDS = 0.2


@dataclass
class Caller:
    """One kept connection to the API."""

    host: str
    port: int
    token: str
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    refused: int = 0

    async def connect(self) -> None:
        """Anew: the server ends what was idle for some seconds."""
        if self.writer is not None:
            self.writer.close()
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)

    async def ended(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The job that a POST submits, once it has ended."""
        job = await self._answered("POST", path, body)
        while not job["done"]:
            job = await self._answered("GET", f"/v1/jobs/{job['id']}?wait=60s")
        return job

    async def _answered(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What is answered 503 is sent again under the same key. Raises RuntimeError for whatever is no job."""
        key = secrets.token_hex(12)
        while (found := await self._sent(method, path, key, body)) is None:
            self.refused += 1
            await asyncio.sleep(AGAIN_SECONDS)
        return found

    async def _sent(self, method: str, path: str, key: str, body: Mapping[str, Any] | None) -> dict[str, Any] | None:
        assert self.reader is not None and self.writer is not None
        content = json.dumps(body).encode() if body is not None else b""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\nauthorization: Bearer {self.token}\r\n"
            f"idempotency-key: {key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        )
        self.writer.write(head.encode() + content)
        answer = (await self.reader.readuntil(END)).decode("latin-1").lower()
        length = int(answer.partition("content-length:")[2].partition("\r\n")[0])
        text = await self.reader.readexactly(length)
        if " 503 " in answer.partition("\r\n")[0]:
            return None
        if " 20" not in answer.partition("\r\n")[0]:
            raise RuntimeError(f"{method} {path} was answered {answer.partition(chr(13))[0]}: {text[:500]!r}")
        found: dict[str, Any] = json.loads(text)
        return found


@dataclass
class Load:
    """Callers, and the instances `bench-0`, `bench-1` … that they work on."""

    url: str
    token: str
    callers: list[Caller] = field(default_factory=list)
    refused: int = 0  # answers by now that said: try again

    async def prepare(self, count: int, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Have so many callers, and an instance for each."""
        parts = urlsplit(self.url)
        for _ in range(count):
            self.callers.append(Caller(parts.hostname or "", parts.port or 80, self.token))
        for first in range(0, count, 64):
            await asyncio.gather(*(self._create(n, spec) for n in range(first, min(first + 64, count))))
        return {"made": count}

    async def _create(self, number: int, spec: Mapping[str, Any]) -> None:
        body = {"name": f"bench-{number}", **spec}
        await self.callers[number].connect()
        _must_have_succeeded(await self.callers[number].ended("/v1/instances?wait=60s", body))

    async def run(self, in_flight: int, warm: float, seconds: float) -> dict[str, Any]:
        """Keep `in_flight` jobs under way. Jobs that ended in the `seconds` after `warm` count."""
        await asyncio.gather(*(caller.connect() for caller in self.callers[:in_flight]))
        start = time.time() + warm
        ended: list[tuple[float, float]] = []
        await asyncio.gather(*(self._go_round(number, start + seconds, ended) for number in range(in_flight)))
        within = sorted(took for at, took in ended if start <= at <= start + seconds)
        refused, first = sum(caller.refused for caller in self.callers), self.refused
        self.refused = refused
        return {
            "from": start,
            "until": start + seconds,
            "took": within,
            "all": len(ended),
            "refused": refused - first,
        }

    async def pace(self, rate: float, seconds: float) -> dict[str, Any]:
        """Submit so many jobs a second, whatever becomes of those before; a job for which no instance is free is put off."""
        self.refused = sum(caller.refused for caller in self.callers)  # while they were made
        began, idle = time.time(), asyncio.Queue[int]()
        for number in range(len(self.callers)):
            idle.put_nowait(number)
        took: list[float] = []
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + number / rate - time.time()))
                group.create_task(self._one(await idle.get(), idle, took))
        refused, first = sum(caller.refused for caller in self.callers), self.refused
        self.refused = refused
        return {"took": sorted(took), "seconds": time.time() - began, "refused": refused - first}

    async def _one(self, number: int, idle: asyncio.Queue[int], took: list[float]) -> None:
        asked = time.time()
        caller = self.callers[number]
        await caller.connect()  # the server ends what was idle for some seconds
        _must_have_succeeded(await caller.ended(f"/v1/instances/bench-{number}:restart?wait=60s"))
        took.append(time.time() - asked)
        idle.put_nowait(number)

    async def _go_round(self, number: int, until: float, ended: list[tuple[float, float]]) -> None:
        path = f"/v1/instances/bench-{number}:restart?wait=60s"
        while (asked := time.time()) < until:
            _must_have_succeeded(await self.callers[number].ended(path))
            ended.append((time.time(), time.time() - asked))


def _must_have_succeeded(job: Mapping[str, Any]) -> None:
    if job["state"] != "succeeded":
        raise RuntimeError(f"job {job['id']} is {job['state']}: {job['error']}")


async def main(url: str, token: str) -> None:
    load = Load(url, token)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        answer = await getattr(load, order.pop("do"))(**order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.stdin.readline().strip()))

"""What many clients of /v1/stream cost, some of whom do not read: `python -m bench.streams`; 1 where a promise was broken.

One server, its PostgreSQL, and a process of clients (`bench/followers.py`) share the machine. Events are written by hand, as fast
as wished, and get their positions from the server's sequencer. Measured is the resident memory of the server: before the load, at
its highest, and afterwards. Clients that stall are cut off meanwhile; at the end they read again, come back, and must have seen
everything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import psutil

from spectrum.api.stream import BUFFER_BYTES
from spectrum.control.tail import Limits
from spectrum.core.access import TOKEN_ENTROPY, make_token
from spectrum.db.embedded import Embedded
from spectrum.ports import SystemClock, SystemEntropy, new_id

REPOSITORY = Path(__file__).parents[1]
START_SECONDS = 300.0
SAMPLE_SECONDS = 0.2
BATCH = 50  # events that are written at once
ELSEWHERE_BYTES = 32 * 1024 * 1024  # what a server under load may take besides
MIB = 1024 * 1024

CLOCK, ENTROPY = SystemClock(), SystemEntropy()

_ORGANIZATION = "INSERT INTO organizations (id, name) VALUES ($1, $2)"
_TOKEN = """
INSERT INTO tokens (id, organization_id, name, prefix, hash, scopes, created_by) VALUES ($1, $2, 'soak', $3, $4, '{admin}', 'soak')
"""
_TELL = """
INSERT INTO events (id, organization_id, epoch, subject, sequence, type, data, recorded_at)
SELECT new.id, $1, cell.epoch, $2, $3 + n, 'io.spectrum.job.failed.v1', $4::jsonb, clock_timestamp()
FROM unnest($5::text[]) WITH ORDINALITY AS new (id, n), cell
"""
_TOLD = """
SELECT organization_id, array_agg(position ORDER BY position) AS positions FROM events
WHERE type = 'io.spectrum.job.failed.v1' AND position IS NOT NULL GROUP BY organization_id
"""


@dataclass(frozen=True)
class Wish:
    """How much of what. `events` is for each organization, `size` in bytes, `rate` how many a second; 0 is as fast as can be."""

    clients: int = 2000
    stalled: int = 200
    restless: int = 200
    organizations: int = 10
    events: int = 1250
    size: int = 2000
    rate: int = 200
    seed: int = 1


@dataclass
class Tally:
    """What came of it. Memory in bytes."""

    wish: Wish
    before: int = 0
    idle: int = 0
    peak: int = 0
    after: int = 0
    seconds: float = 0.0
    dropped: int = 0
    judged: Mapping[str, Any] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """What the clients' share may come to: the window, and for each what is on its way."""
        limits = Limits()
        return limits.window + self.wish.clients * (BUFFER_BYTES + limits.chunk) + ELSEWHERE_BYTES

    @property
    def unread(self) -> int:
        """What would be kept for the stalled ones if it were kept."""
        return self.wish.stalled * self.wish.events * self.wish.size

    def broken(self) -> list[str]:
        """Which promises were, in words."""
        broken = [
            f"{self.judged[what]} {what}"
            for what in ("missed", "doubled", "disordered", "foreign")
            if self.judged[what]
        ]
        # On a machine that does much else one that reads may be cut off too: then it comes back, and must have seen everything.
        if self.dropped < self.wish.stalled:
            broken.append(f"{self.dropped} clients were cut off, not {self.wish.stalled}")
        if self.judged["refused"]:
            broken.append(f"refused: {self.judged['refused']}")
        if self.peak - self.idle > self.most:
            broken.append(f"the server took {self.peak - self.idle} bytes more under load, above {self.most}")
        return broken

    def lines(self) -> list[str]:
        wish, lost = self.wish, self.judged["lost"]
        return [
            f"{wish.clients} clients of {wish.organizations} organizations; {wish.stalled} read nothing, {wish.restless} cut their"
            f" connection again and again",
            f"{wish.organizations * wish.events} events of about {wish.size} bytes in {self.seconds:.0f} s,"
            f" {self.judged['events']} times told",
            f"missed {self.judged['missed']}, doubled {self.judged['doubled']}, out of order {self.judged['disordered']},"
            f" of others {self.judged['foreign']}",
            f"cut off because they did not read: {self.dropped}; connections that ended: {lost}",
            f"resident memory of the server, MiB: {self.before / MIB:.0f} without clients, {self.idle / MIB:.0f} with all of them,"
            f" {self.peak / MIB:.0f} at most under load, {self.after / MIB:.0f} at the end",
            f"more under load, MiB: {(self.peak - self.idle) / MIB:.0f}; allowed {self.most / MIB:.0f};"
            f" what the stalled ones did not read: {self.unread / MIB:.0f}",
        ]


@dataclass
class Stage:
    """The processes. `tokens` by organization."""

    url: str
    server: psutil.Process
    clients: asyncio.subprocess.Process
    database: asyncpg.Connection[asyncpg.Record]
    tokens: dict[str, str] = field(default_factory=dict)

    async def order(self, **what: Any) -> dict[str, Any]:
        """Have the clients do something, and wait for what came of it."""
        assert self.clients.stdin is not None and self.clients.stdout is not None
        self.clients.stdin.write(json.dumps(what).encode() + b"\n")
        line = await self.clients.stdout.readline()
        if not line:
            raise RuntimeError("the clients ended; what they said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def join(self, count: int) -> None:
        """Have so many organizations."""
        for number in range(count):
            organization, token = _id("org"), make_token(ENTROPY.token(TOKEN_ENTROPY))
            await self.database.execute(_ORGANIZATION, organization, f"soak-{number}")
            await self.database.execute(_TOKEN, _id("tok"), organization, token.prefix, token.hash)
            self.tokens[organization] = token.text

    async def tell(self, wish: Wish) -> None:
        """Write the events, the organizations by turns, at the pace that is wished."""
        job, subject = _id("job"), {organization: _id("ins") for organization in self.tokens}
        data = {
            "job_id": job,
            "operation": "create",
            "generation": 1,
            "reason": None,
            "residue": ["x" * (wish.size - 500)],
        }
        began, written = time.monotonic(), 0
        for first in range(0, wish.events, BATCH):
            count = min(BATCH, wish.events - first)
            for organization in self.tokens:
                ids = [_id("evt") for _ in range(count)]
                await self.database.execute(_TELL, organization, subject[organization], first, json.dumps(data), ids)
                written += count
                if wish.rate:
                    await asyncio.sleep(began + written / wish.rate - time.monotonic())

    async def metric(self, name: str) -> float:
        async with httpx2.AsyncClient(timeout=START_SECONDS) as http:
            text = (await http.get(f"{self.url}/metrics")).text
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def soak(wish: Wish, folder: Path, database_url: str) -> Tally:
    """Play it all on a PostgreSQL that is empty. `folder` is the server's home."""
    tally = Tally(wish)
    async with _staged(folder, database_url) as stage:
        await stage.join(wish.organizations)
        tally.before = stage.server.memory_info().rss
        kinds = {
            "steady": wish.clients - wish.stalled - wish.restless,
            "restless": wish.restless,
            "stalled": wish.stalled,
        }
        for kind, count in kinds.items():
            await stage.order(do="follow", kind=kind, count=count, tokens=stage.tokens, seed=wish.seed)
        tally.idle = stage.server.memory_info().rss
        began = time.monotonic()
        await _with_memory(_load(stage, wish), stage, tally)
        tally.seconds = time.monotonic() - began
        tally.dropped = round(await stage.metric("spectrum_streams_dropped_total"))
        await _with_memory(stage.order(do="catch_up", told=_counts(stage, wish), stalled=True), stage, tally)
        told = {row["organization_id"]: list(row["positions"]) for row in await stage.database.fetch(_TOLD)}
        tally.judged = await stage.order(do="judge", told=told)
        tally.after = stage.server.memory_info().rss
    return tally


async def _load(stage: Stage, wish: Wish) -> None:
    """Until all who read have seen all, and those who do not were cut off."""
    await stage.tell(wish)
    await stage.order(do="catch_up", told=_counts(stage, wish), stalled=False)
    while await stage.metric("spectrum_streams_dropped_total") < wish.stalled:  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(SAMPLE_SECONDS)


async def _with_memory(work: Any, stage: Stage, tally: Tally) -> None:
    """Do it, and see meanwhile how much memory the server takes."""
    working = asyncio.ensure_future(work)
    while not working.done():
        tally.peak = max(tally.peak, stage.server.memory_info().rss)
        await asyncio.wait({working}, timeout=SAMPLE_SECONDS)
    await working


def _counts(stage: Stage, wish: Wish) -> dict[str, int]:
    return dict.fromkeys(stage.tokens, wish.events)


def _id(prefix: str) -> str:
    return new_id(prefix, CLOCK.now(), ENTROPY)


@asynccontextmanager
async def _staged(folder: Path, database_url: str) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SPECTRUM_")}
        environment = {
            **kept,
            "SPECTRUM_HOME": str(folder),
            "SPECTRUM_LISTEN": f"127.0.0.1:{port}",
            "SPECTRUM_DATABASE_URL": database_url,
            "SPECTRUM_RATE_LIMIT": "0",  # one token for all clients of an organization
        }
        command = (sys.executable, "-m", "spectrum.cli", "server")
        log = stack.enter_context((folder / "server.log").open("wb"))
        server = await asyncio.create_subprocess_exec(*command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
        stack.push_async_callback(_end, server)
        await _until_ready(url, server, folder / "server.log")
        clients = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.followers", url),
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=64 * MIB,
        )
        stack.push_async_callback(_end, clients)
        database = await asyncpg.connect(f"{database_url.rpartition('/')[0]}/spectrum")
        stack.push_async_callback(database.close)
        yield Stage(url, psutil.Process(server.pid), clients, database)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


async def _until_ready(url: str, server: asyncio.subprocess.Process, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    async with httpx2.AsyncClient() as http:
        while True:
            try:
                if (await http.get(f"{url}/readyz")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            if server.returncode is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not come: see {log}")
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.streams", description=__doc__)
    for name, value in vars(Wish()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    wish = Wish(**vars(parser.parse_args()))
    _allow_connections(wish.clients + 100)
    folder = Path(tempfile.mkdtemp(prefix="spectrum-streams-"))
    folder.chmod(0o755)
    embedded = Embedded(folder / "database")
    try:
        tally = asyncio.run(soak(wish, folder, embedded.start().url()))
    except Exception:
        print(f"logs: {folder}", file=sys.stderr)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        embedded.remove()
    shutil.rmtree(folder)
    print("\n".join(tally.lines()))
    for each in tally.broken():
        print(f"broken: {each}", file=sys.stderr)
    return 1 if tally.broken() else 0


def _allow_connections(count: int) -> None:
    """The clients inherit it. Raises `ValueError` where this account may not have so many open files."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != resource.RLIM_INFINITY and now < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))


if __name__ == "__main__":
    sys.exit(main())

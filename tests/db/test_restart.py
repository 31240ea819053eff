"""PostgreSQL crashes and comes back in the middle of the work: everybody is answered, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import psutil
import pytest

from spectrum.core.errors import Problem
from spectrum.core.jobs.commands import Answer, Holding, Repeated, Report
from spectrum.core.jobs.model import Lease
from spectrum.core.jobs.store import Asked, Keyed, Unavailable
from spectrum.core.jobs.table import JobState
from spectrum.db.bootstrap import bootstrap, derive_passwords, role_urls
from spectrum.db.embedded import Embedded, Server
from tests.db.ground import Ground, ground, run_to_the_end
from tests.postgres import Database, chosen_binaries

pytestmark = pytest.mark.anyio

T = TypeVar("T")

PATIENCE = 120.0
VENDORS = 5
EACH = 8  # instances that a vendor creates, one after the other
NAME = "spectrum"
SECRET = secrets.token_bytes(32)


class Cell:
    """A durable PostgreSQL of the test's own, and what can happen to it."""

    def __init__(self, embedded: Embedded, server: Server) -> None:
        self.embedded = embedded
        self.server = server

    def database(self) -> Database:
        admin_url = self.server.url(NAME)
        return Database(NAME, admin_url, role_urls(admin_url, NAME, derive_passwords(SECRET)))

    async def restart_at_once(self) -> None:
        """An immediate shutdown, no goodbye and no checkpoint; then a start with recovery."""
        postmaster = psutil.Process(self.server.pid)
        postmaster.send_signal(signal.SIGQUIT)
        await asyncio.to_thread(postmaster.wait, 30)
        self.server = await asyncio.to_thread(self.embedded.start)

    async def crash_a_backend(self) -> None:
        """PostgreSQL ends all its backends and recovers, under the same postmaster."""
        admin = await asyncpg.connect(self.server.url(NAME))
        pid = await admin.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = 'test engine' LIMIT 1")
        psutil.Process(pid).kill()
        with contextlib.suppress(Exception):  # it hears of it like everybody else
            await admin.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the server's account reaches; pytest's own are private."""
    made = Path(tempfile.mkdtemp(prefix="spectrum-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def cell(folder: Path) -> AsyncIterator[Cell]:
    embedded = Embedded(folder / "postgres", dies_with_parent=True, binaries=chosen_binaries())
    made = Cell(embedded, await asyncio.to_thread(embedded.start))
    try:
        await bootstrap(made.server.url(), NAME, derive_passwords(SECRET), ahead_days=0)
        yield made
    finally:
        await asyncio.to_thread(embedded.remove)


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """As clients do: ask again as long as the answer is `unavailable`. Any other error fails the test."""
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(0.01)
        except Problem as problem:
            if problem.slug != "unavailable":
                raise
            await asyncio.sleep(0.01)


def _respond(answer: Answer) -> Repeated:
    return Repeated(202, "/", {"id": answer.job.id if answer.job else ""})


async def create(here: Ground, name: str) -> str:
    """The id of the job that answers; every try is a request of its own under one key."""
    key = Keyed(here.organization, "POST", "/v1/instances", secrets.token_hex(8), name, _respond)
    answer = await insist(lambda: here.engine.execute(Asked(here.create(name), key, name=name)))
    return str(answer.body["id"] if isinstance(answer, Repeated) else _respond(answer).body["id"])


async def _reported(here: Ground, report: Report) -> Holding:
    return await insist(lambda: here.dispatch.report(report))


async def work(here: Ground, count: int) -> list[Holding]:
    """A worker that claims and runs so many jobs, one after the other."""
    lease = await insist(lambda: here.dispatch.start(here.caller, "boot-1"))
    ended: list[Holding] = []
    claims = 0
    while len(ended) < count:
        claims += 1
        for held in await _claimed(here, lease, claims):
            ended.append(await run_to_the_end(here, held, lease, lambda news: _reported(here, news)))
    return ended


async def _claimed(here: Ground, lease: Lease, number: int) -> list[Holding]:
    return await insist(
        lambda: here.dispatch.claim(here.caller, lease.id, lease.incarnation, number, 1, holds_others=False)
    )


@pytest.mark.parametrize("crash", [Cell.restart_at_once, Cell.crash_a_backend])
async def test_a_crash_of_postgresql_under_load_costs_time_and_nothing_else(
    cell: Cell, crash: Callable[[Cell], Awaitable[None]]
) -> None:
    answered: dict[str, str] = {}
    several = asyncio.Condition()

    async def vend(here: Ground, vendor: int) -> None:
        for number in range(EACH):
            name = f"i{vendor}-{number}"
            answered[name] = await create(here, name)
            async with several:
                several.notify_all()

    async def crash_twice() -> None:
        for _ in range(2):
            enough = len(answered) + VENDORS * EACH // 4
            async with several:
                await several.wait_for(lambda: len(answered) >= enough)  # noqa: B023 - it is over before the next round
            await crash(cell)

    async with ground(cell.database()) as here, asyncio.timeout(PATIENCE):
        *_, ended = await asyncio.gather(
            crash_twice(), *(vend(here, vendor) for vendor in range(VENDORS)), work(here, VENDORS)
        )

    admin = await asyncpg.connect(cell.server.url(NAME))
    jobs = {
        r["name"]: r["id"]
        for r in await admin.fetch("SELECT i.name, j.id FROM jobs j JOIN instances i ON i.id = instance_id")
    }
    assert jobs == answered
    assert len(jobs) == VENDORS * EACH == await admin.fetchval("SELECT count(*) FROM jobs")
    assert await admin.fetchval("SELECT count(*) FROM audit WHERE action = 'job.submitted'") == VENDORS * EACH
    assert isinstance(ended, list)
    assert {held.job.state for held in ended} == {JobState.SUCCEEDED}
    gaps = await admin.fetchval(
        "SELECT count(*) FROM (SELECT subject FROM events GROUP BY subject HAVING max(sequence) <> count(*)) g"
    )
    assert gaps == 0
    doubled: Any = await admin.fetch(
        "SELECT step_id FROM attempts WHERE outcome = 'done' GROUP BY step_id HAVING count(*) > 1"
    )
    assert doubled == []
    await admin.close()

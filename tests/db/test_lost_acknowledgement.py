"""The connection breaks where it hurts most, around COMMIT: every caller is answered correctly, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import pytest

from spectrum.control.fold import Folding
from spectrum.core.errors import Problem
from spectrum.core.ids import LeaseId
from spectrum.core.jobs.commands import Answer, Repeated, Submitted
from spectrum.core.jobs.model import Lease
from spectrum.core.jobs.store import Asked, Batch, Keyed, Lapsed, Settlement, Unavailable, Uncertain
from spectrum.db.pools import Role
from spectrum.operations import CATALOG
from tests.db.ground import Ground, ground
from tests.db.proxy import Link, Proxy, proxied
from tests.db.rows import make_id
from tests.postgres import Database

pytestmark = pytest.mark.anyio

PATIENCE = 30.0
MESSAGES = 40  # more than any call of the store needs


@dataclass
class Here:
    """A control plane whose engine reaches PostgreSQL through a proxy; its settling does not."""

    ground: Ground
    proxy: Proxy


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Here]:
    async with proxied(database.urls[Role.ENGINE]) as (proxy, url), ground(database, url) as made:
        yield Here(made, proxy)


async def lose_the_answer(link: Link, said: bytes) -> None:
    await link.deliver_and_swallow_the_answer(said)


async def lose_the_request(link: Link, said: bytes) -> None:
    link.cut()


async def terminate(here: Here, link: Link, said: bytes) -> None:
    """Somebody ends the backend while it waits for the COMMIT, which then finds nobody."""
    # A connection of its own: the test goes on with its own one before this is over.
    admin = await asyncpg.connect(here.ground.database.admin_url)
    try:
        await admin.fetch(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND usename = $1 AND state = 'idle in transaction'",
            Role.ENGINE,
        )
    finally:
        await admin.close()
    await link.deliver(said)


async def check_applied_once(here: Here, answer: Answer | Repeated) -> None:
    assert isinstance(answer, Submitted)
    admin = here.ground.admin
    assert [row["id"] for row in await admin.fetch("SELECT id FROM jobs")] == [answer.job.id]
    assert await admin.fetchval("SELECT count(*) FROM audit WHERE action = 'job.submitted'") == 1
    sequences = [row["sequence"] for row in await admin.fetch("SELECT sequence FROM events ORDER BY 1")]
    assert sequences == list(range(1, len(sequences) + 1))
    assert answer.instance.event_sequence == len(sequences)


@pytest.mark.parametrize("treat", [lose_the_answer, lose_the_request])
async def test_a_command_is_answered_and_applied_once_when_its_commit_is_cut_off(
    here: Here, treat: Callable[[Link, bytes], Awaitable[None]]
) -> None:
    here.proxy.at_commit(treat)

    answer = await here.ground.engine.execute(here.ground.create())

    await check_applied_once(here, answer)


async def test_a_commit_that_lands_after_its_caller_lost_the_connection_is_waited_for(here: Here) -> None:
    asked_about = asyncio.Event()

    async def land_late(link: Link, said: bytes) -> None:
        link.cut_client()
        await asked_about.wait()
        await link.deliver(said)

    here.proxy.at_commit(land_late)
    store = here.ground.store
    read = store.settle

    async def settle(transaction: str) -> object:
        asked_about.set()
        return await read(transaction)

    store.settle = settle  # type: ignore[method-assign, assignment]

    answer = await here.ground.engine.execute(here.ground.create())

    await check_applied_once(here, answer)


async def test_a_command_whose_backend_is_terminated_before_its_commit_is_applied_once(here: Here) -> None:
    here.proxy.at_commit(lambda link, said: terminate(here, link, said))

    answer = await here.ground.engine.execute(here.ground.create())

    await check_applied_once(here, answer)


async def test_a_transaction_from_before_a_recovery_is_never_taken_for_committed(here: Here) -> None:
    """A transaction id that was not written down before a crash is given out again, to somebody whose commit is not ours."""
    here.proxy.at_commit(lose_the_answer)
    with pytest.raises(Uncertain) as caught:
        asked = (Asked(here.ground.create()),)
        await here.ground.store.transact(Batch(asked, Folding(asked, CATALOG)))
    transaction, _, run = caught.value.transaction.partition(" since ")

    assert await here.ground.store.settle(f"{transaction} since {run}") is Settlement.COMMITTED
    assert await here.ground.store.settle(f"{transaction} since {run} and a recovery") is Settlement.ABORTED
    assert await here.ground.store.settle(f"{int(transaction) + 10**6} since another {run}") is Settlement.ABORTED


async def test_many_commands_survive_one_lost_commit_after_the_other(here: Here) -> None:
    here.proxy.at_commit(lose_the_answer, times=5)
    requests = [Asked(here.ground.create(f"i{n}"), _keyed(here, f"k{n}"), name=f"i{n}") for n in range(60)]

    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*(here.ground.engine.execute(asked) for asked in requests))

    assert len(answers) == 60
    names = [row["name"] for row in await here.ground.admin.fetch("SELECT name FROM instances")]
    assert sorted(names) == sorted(f"i{n}" for n in range(60))
    assert await here.ground.admin.fetchval("SELECT count(*) FROM audit WHERE action = 'job.submitted'") == 60


def _keyed(here: Here, key: str) -> Keyed:
    return Keyed(here.ground.organization, "POST", "/v1/instances", key, "d", lambda answer: Repeated(202, "/", {}))


def _lease(here: Here) -> Lease:
    caller, now = here.ground.caller, datetime.now(UTC)
    lease_id = LeaseId(make_id("lea"))
    return Lease(lease_id, caller.worker_id, caller.organization_id, caller.pool_id, 0, now, now)


async def test_a_start_whose_answer_was_lost_opens_one_lease(here: Here) -> None:
    here.proxy.at_commit(lose_the_answer)
    with pytest.raises(Unavailable):
        await here.ground.store.open_lease(_lease(here), "boot-1")

    lease, _ = await here.ground.store.open_lease(_lease(here), "boot-1")

    assert lease.incarnation == 1
    assert await here.ground.admin.fetchval("SELECT count(*) FROM leases") == 1


async def check_no_raw_error(here: Here, call: Callable[[], Awaitable[object]]) -> None:
    """Cut the connection at the first message of the call, at the second, and so on until the call needs no more of them."""
    broken = 0
    for number in range(MESSAGES):
        here.proxy.cut_at(number)
        try:
            async with asyncio.timeout(PATIENCE):
                await call()
        except Unavailable:
            broken += 1
        except Problem as problem:
            assert problem.slug == "unavailable"
            broken += 1
    assert 0 < broken < MESSAGES


async def test_a_connection_cut_at_any_message_of_the_lease_lane_is_told_as_unavailable(here: Here) -> None:
    store, organization = here.ground.store, here.ground.organization
    lease, _ = await store.open_lease(_lease(here), "boot-0")
    lapsed = Lapsed(lease.id, lease.worker_id, organization)
    boots = iter(range(1, 10 * MESSAGES))

    await check_no_raw_error(here, lambda: store.beat(lease.id, organization, 1, 1))
    await check_no_raw_error(here, lambda: store.end_lease(lapsed, "test", None))
    await check_no_raw_error(here, lambda: store.open_lease(_lease(here), f"boot-{next(boots)}"))


async def test_a_command_whose_connection_is_cut_at_any_message_is_answered_or_told_to_try_again(here: Here) -> None:
    names = iter(range(10 * MESSAGES))
    answered: list[str] = []

    async def create() -> None:
        name = f"i{next(names)}"
        await here.ground.engine.execute(here.ground.create(name))
        answered.append(name)

    await check_no_raw_error(here, create)

    stored = {row["name"] for row in await here.ground.admin.fetch("SELECT name FROM instances")}
    assert stored == set(answered)


async def test_a_read_of_the_system_whose_connection_is_cut_is_told_as_unavailable(database: Database) -> None:
    async with (
        proxied(database.urls[Role.SYSTEM]) as (proxy, url),
        ground(database, system_url=url) as made,
    ):
        here = Here(made, proxy)
        await check_no_raw_error(here, lambda: made.store.due(10))
        await check_no_raw_error(here, lambda: made.store.tick())
        await check_no_raw_error(here, lambda: made.store.lapsed(15.0, 10))

"""Statements that write several rows, and meet another that would take the same rows in another order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from spectrum.db.pools import Role
from spectrum.db.sql import query
from tests.db.rows import Rows, insert_row, make_id, rows_of
from tests.postgres import Database
from tests.waiting import until

pytestmark = pytest.mark.anyio

ROWS = 40
BY_INDEX = "SET enable_seqscan = off; SET enable_bitmapscan = off"
BY_TABLE = "SET enable_indexscan = off; SET enable_bitmapscan = off"
# In the table's order the first to be over are the last rows.
_KEYS = """
INSERT INTO idempotency_keys (organization_id, method, path, key, request_digest, status, ciphertext, key_id,
                              created_at, expires_at, ciphertext_expires_at)
SELECT $1, 'POST', '/', n::text, 'd', 202, 'sealed', 'k1',
       now(), now() - n * interval '1 second', now() - ($2 - n) * interval '1 second'
FROM generate_series(1, $2) AS n
"""
_REQUESTS = """
INSERT INTO worker_requests (id, organization_id, pool_id, target_id, instance_id, kind, actor, created_at, expires_at)
SELECT id, $1, $2, $3, $4, 'logs', 'tester', now(), now() - n * interval '1 second'
FROM unnest($5::text[]) WITH ORDINALITY AS u (id, n)
"""


@asynccontextmanager
async def sessions(database: Database, role: Role, *settings: str) -> AsyncIterator[list[Any]]:
    """One connection for each of the settings."""
    async with AsyncExitStack() as stack:
        made: list[Any] = []
        for each in settings:
            made.append(await asyncpg.connect(database.urls[role]))
            stack.push_async_callback(made[-1].close)
            await made[-1].execute(each)
        yield made


async def meet(admin: Any, hold: str, who: Sequence[tuple[Any, str, Sequence[Any]]]) -> None:
    """Several start while somebody holds a row in their way, each as far as it gets; then that one lets go."""

    async def stands() -> bool:
        waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
        return tasks[-1].done() or await admin.fetchval(waits, session.get_server_pid())

    tasks: list[asyncio.Task[Any]] = []
    async with admin.transaction():
        assert await admin.fetch(hold)
        for session, text, arguments in who:
            tasks.append(asyncio.create_task(session.execute(text, *arguments)))
            await until(stands)
    await asyncio.gather(*tasks)


@pytest.fixture
async def admin(database: Database) -> AsyncIterator[Any]:
    connection: Any = await asyncpg.connect(database.admin_url)
    yield connection
    await connection.close()


@pytest.fixture
async def rows(admin: Any) -> Rows:
    """An organization with an instance and all that it hangs on."""
    made = rows_of("acme-corp")
    for table in ("organizations", "products", "releases", "pools", "targets", "instances"):
        await insert_row(admin, table, made[table])
    return made


HELD_KEY = f"SELECT FROM idempotency_keys WHERE key = '{ROWS // 2}' FOR UPDATE"
EXPIRE_KEYS = (query("keys_expire"), (1000,))
EXPIRE_CIPHERTEXTS = (query("ciphertexts_expire"), ())


@pytest.mark.parametrize("others", [(BY_INDEX, *EXPIRE_CIPHERTEXTS), (BY_TABLE, *EXPIRE_KEYS)])
async def test_what_removes_old_answers_waits_for_nobody_who_waits_for_it(
    database: Database, admin: Any, rows: Rows, others: tuple[str, str, Sequence[Any]]
) -> None:
    await admin.execute(_KEYS, rows["organizations"]["id"], ROWS)
    how, text, arguments = others
    async with sessions(database, Role.SYSTEM, BY_INDEX, how) as (first, second):
        await meet(admin, HELD_KEY, [(first, *EXPIRE_KEYS), (second, text, arguments)])
    assert await admin.fetchval("SELECT count(*) FROM idempotency_keys") == 0


async def test_old_requests_are_removed_by_one_at_a_time(database: Database, admin: Any, rows: Rows) -> None:
    ids = [make_id("req") for _ in range(ROWS)]
    about = [rows[table]["id"] for table in ("organizations", "pools", "targets", "instances")]
    await admin.execute(_REQUESTS, *about, ids)
    now = await admin.fetchval("SELECT now()")
    held = f"SELECT FROM worker_requests WHERE id = '{ids[ROWS // 2]}' FOR UPDATE"
    async with sessions(database, Role.SYSTEM, BY_INDEX, BY_TABLE) as both:
        await meet(admin, held, [(session, query("requests_forget"), (now,)) for session in both])
    assert await admin.fetchval("SELECT count(*) FROM worker_requests") == 0


HOUR = timedelta(hours=1)


async def test_two_flushes_that_close_the_same_breakers_count_their_time_once_whatever_their_order(
    database: Database, admin: Any, rows: Rows
) -> None:
    organization, now = rows["organizations"]["id"], await admin.fetchval("SELECT now()")
    targets = await _open_breakers(admin, rows, now - HOUR)
    held = f"SELECT FROM breakers WHERE target_id = '{targets[0]}' FOR UPDATE"
    scope = f"SELECT set_config('app.organizations', '{{{organization}}}', false)"
    async with sessions(database, Role.ENGINE, scope, scope) as (first, second):
        orders = [(first, targets), (second, targets[::-1])]
        await meet(admin, held, [(one, query("breakers_keep"), _closed(ids, organization, now)) for one, ids in orders])
    down = await admin.fetch("SELECT down_total FROM targets WHERE id = ANY ($1)", targets)
    assert [row["down_total"] for row in down] == [HOUR] * len(targets)


async def _open_breakers(admin: Any, rows: Rows, opened_at: datetime) -> list[str]:
    """Of two targets; returns their ids, in order."""
    other = rows["targets"] | {"id": make_id("tgt"), "name": "other", "url": "memory://other"}
    await insert_row(admin, "targets", other)
    for target in (rows["targets"], other):
        breaker = {"target_id": target["id"], "organization_id": target["organization_id"], "call_kind": "provider"}
        await insert_row(admin, "breakers", breaker | {"state": "open", "opened_at": opened_at})
    return sorted((rows["targets"]["id"], other["id"]))


def _closed(targets: Sequence[str], organization: str, now: datetime) -> tuple[Any, ...]:
    """What a flush says of breakers that it found open, and closes."""
    count = len(targets)
    return (
        targets,
        [organization] * count,
        ["closed"] * count,
        [0] * count,
        [1] * count,
        [None] * count,
        [None] * count,
        [None] * count,
        [1] * count,
        now,
    )

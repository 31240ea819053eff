"""Pools: a role's timeouts on every connection, a scope that ends with its transaction, cached statements that stay right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from spectrum.core.errors import Problem
from spectrum.db.pools import TIMEOUTS, Connection, Pool, Role, Timeouts, open_pool, scoped, transaction
from tests.db.rows import Rows, insert, rows_of
from tests.postgres import Database

pytestmark = pytest.mark.anyio

SHORT = Timeouts(statement=0.2, lock=0.2, idle_in_transaction=0.2, transaction=0.4)


@pytest.fixture
async def organizations(database: Database) -> tuple[Rows, Rows]:
    both = rows_of("acme"), rows_of("beta")
    admin = await asyncpg.connect(database.admin_url)
    try:
        for rows in both:
            await insert(admin, rows)
    finally:
        await admin.close()
    return both


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(database.urls[Role.ENGINE], Role.ENGINE, "test engine", size=1)
    yield pool
    await pool.close()


@pytest.fixture
async def short_pool(database: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(database.urls[Role.SYSTEM], Role.SYSTEM, "test system", size=1, timeouts=SHORT)
    yield pool
    pool.terminate()


@pytest.mark.parametrize("role", list(Role))
async def test_every_role_has_its_timeouts_also_on_a_reused_connection(database: Database, role: Role) -> None:
    pool = await open_pool(database.urls[role], role, "test", size=1)
    try:
        for _ in range(2):
            async with transaction(pool) as connection:
                names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
                found = [await _milliseconds(connection, name) for name in names]
                assert await connection.fetchval("SHOW application_name") == "test"
    finally:
        await pool.close()
    expected = TIMEOUTS[role]
    assert found == [round(each * 1000) for each in (expected.statement, expected.lock, expected.idle_in_transaction)]


async def _milliseconds(connection: Connection, name: str) -> int:
    value = await connection.fetchval("SELECT setting FROM pg_settings WHERE name = $1", name)
    return int(value)


async def test_a_statement_that_takes_too_long_is_ended(short_pool: Pool) -> None:
    with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
        async with transaction(short_pool) as connection:
            await connection.execute("SELECT pg_sleep(30)")


async def test_a_transaction_that_takes_too_long_is_ended(short_pool: Pool) -> None:
    async with transaction(short_pool) as connection:
        version = connection.get_server_version().major
    if version < 17:
        pytest.skip("PostgreSQL before 17 has no transaction_timeout: run the tests on a newer one")

    async def in_small_steps() -> None:
        async with transaction(short_pool) as connection:
            while True:
                await connection.execute("SELECT pg_sleep(0.05)")

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await asyncio.wait_for(in_small_steps(), 20)


async def test_a_lock_is_waited_for_only_so_long(short_pool: Pool, database: Database) -> None:
    holder = await asyncpg.connect(database.admin_url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE cursors")
            with pytest.raises(asyncpg.LockNotAvailableError):
                async with transaction(short_pool) as connection:
                    await connection.execute("SET LOCAL statement_timeout = 0")
                    await connection.execute("SELECT 1 FROM cursors FOR UPDATE")
    finally:
        await holder.close()


async def test_a_scope_ends_with_its_transaction(pool: Pool, organizations: tuple[Rows, Rows]) -> None:
    async with scoped(pool, [organizations[0].organization_id]) as connection:
        assert await connection.fetchval("SELECT count(*) FROM instances") == 1
    async with transaction(pool) as connection:
        assert await connection.fetchval("SELECT count(*) FROM instances") == 0


async def test_a_cached_statement_sees_the_scope_of_now(pool: Pool, organizations: tuple[Rows, Rows]) -> None:
    """Often enough for PostgreSQL to settle on a generic plan."""
    for _ in range(8):
        for rows in organizations:
            async with scoped(pool, [rows.organization_id]) as connection:
                found = await connection.fetch("SELECT id FROM instances WHERE name = $1", "acme")
                assert [row["id"] for row in found] == [rows["instances"]["id"]]


async def test_a_failed_transaction_is_undone_and_its_scope_with_it(
    pool: Pool, organizations: tuple[Rows, Rows]
) -> None:
    own = organizations[0]
    with pytest.raises(RuntimeError, match="on purpose"):
        async with scoped(pool, [own.organization_id]) as connection:
            await connection.execute("UPDATE instances SET version = 99")
            raise RuntimeError("on purpose")
    async with scoped(pool, [own.organization_id]) as connection:
        assert await connection.fetchval("SELECT version FROM instances") == 1


async def test_a_changed_table_costs_one_transaction_at_most(
    pool: Pool, database: Database, organizations: tuple[Rows, Rows]
) -> None:
    """What a migration under a running system does to cached statements."""
    read = "SELECT * FROM instances"
    async with scoped(pool, [organizations[0].organization_id]) as connection:
        await connection.fetch(read)
    admin = await asyncpg.connect(database.admin_url)
    try:
        await admin.execute("ALTER TABLE instances ADD COLUMN tried text")
    finally:
        await admin.close()
    failures = 0
    for _ in range(3):
        try:
            async with scoped(pool, [organizations[0].organization_id]) as connection:
                await connection.fetch(read)
        except asyncpg.InvalidCachedStatementError:
            failures += 1
    assert failures <= 1


async def test_no_connection_to_spare_is_told_as_unavailable(pool: Pool) -> None:
    async with transaction(pool):
        with pytest.raises(Problem) as problem:
            async with transaction(pool, wait=0.01):
                pass
    assert problem.value.slug == "unavailable"


async def test_json_comes_and_goes_as_values(pool: Pool, organizations: tuple[Rows, Rows]) -> None:
    async with scoped(pool, [organizations[0].organization_id]) as connection:
        await connection.execute("UPDATE instances SET labels = $1", {"tier": "gold"})
        await connection.execute(
            "UPDATE instances i SET facts = new.facts FROM unnest($1::jsonb[]) AS new (facts)",
            [{"ports": {"web/80": 1}}],
        )
        row = await connection.fetchrow("SELECT labels, facts FROM instances")
    assert row is not None
    assert (row["labels"], row["facts"]) == ({"tier": "gold"}, {"ports": {"web/80": 1}})

"""Partitions of what grows: made ahead, and what is known by its id lies in its week."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from spectrum.db.pools import Role
from spectrum.db.upkeep import make_partitions
from tests.db.rows import Rows, insert, make_id, rows_of
from tests.postgres import Database

pytestmark = pytest.mark.anyio

OLD = datetime(2020, 1, 8, 12, 0, 0, 0, UTC)  # in the week that begins on the 6th


@pytest.fixture
async def admin(database: Database) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database.admin_url)
    await connection.execute("SELECT make_partitions($1, $1)", OLD)
    yield connection
    await connection.close()


@pytest.fixture
async def system(database: Database) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database.urls[Role.SYSTEM])
    yield connection
    await connection.close()


async def partitions(connection: Any) -> set[str]:
    rows = await connection.fetch("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")
    return {row["relname"] for row in rows}


async def add_old_rows(admin: Any) -> Rows:
    rows = rows_of("acme")
    rows["events"]["id"] = make_id("evt", OLD)
    rows["audit"]["id"] = make_id("aud", OLD)
    rows["jobs"]["id"] = make_id("job", OLD)
    rows["steps"]["job_id"] = rows["attempts"]["job_id"] = rows["jobs"]["id"]
    await insert(admin, rows)
    return rows


async def test_the_coming_weeks_are_made_ahead_once(database: Database, system: Any, admin: Any) -> None:
    assert await make_partitions(system, days=21) == 9
    assert await make_partitions(system, days=21) == 0


async def test_a_row_lies_in_the_week_of_its_id(admin: Any) -> None:
    await add_old_rows(admin)
    for table in ("events", "audit", "attempts"):
        assert await admin.fetchval(f"SELECT tableoid::regclass::text FROM {table}") == f"{table}_20200106"


async def test_a_row_from_a_wrong_clock_is_kept_and_its_week_stays_where_it_is(admin: Any, system: Any) -> None:
    far = datetime(2031, 3, 5, tzinfo=UTC)
    rows = rows_of("acme")
    rows["events"]["id"] = make_id("evt", far)
    await insert(admin, rows)
    await admin.execute("SELECT make_partitions($1, $1)", far)
    assert await admin.fetchval("SELECT tableoid::regclass::text FROM events") == "events_default"
    assert {"audit_20310303", "attempts_20310303"} <= await partitions(admin)
    assert "events_20310303" not in await partitions(admin)


@pytest.mark.parametrize("role", [Role.API, Role.ENGINE])
async def test_only_the_system_makes_them(database: Database, role: Role) -> None:
    connection = await asyncpg.connect(database.urls[role])
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await make_partitions(connection)
    finally:
        await connection.close()


async def test_the_promises_hold_in_a_new_partition_too(admin: Any) -> None:
    await add_old_rows(admin)
    await admin.execute("UPDATE events SET position = 1")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await admin.execute("UPDATE events SET position = 2")
    forced = await admin.fetchval("SELECT relforcerowsecurity FROM pg_class WHERE relname = 'events_20200106'")
    assert forced

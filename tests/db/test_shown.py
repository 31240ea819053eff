"""What people page through is found by an index, however much there is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from spectrum.db.pools import Role
from spectrum.db.sql import query
from tests.db.ground import Ground, ground
from tests.postgres import Database

pytestmark = pytest.mark.anyio

MANY = 4_000


@pytest.fixture
async def full(database: Database) -> AsyncIterator[Ground]:
    """One instance with its job, and many more beside them."""
    async with ground(database) as here:
        asked = here.create("acme-0")
        await here.engine.execute(asked)
        await here.admin.execute(
            "INSERT INTO instances SELECT (jsonb_populate_record(i, jsonb_build_object('active_job_id', null, 'name', 'acme-' || n,"
            " 'id', overlay(i.id placing lpad(to_hex(n), 8, '0') from 5 for 8)))).* FROM instances i, generate_series(1, $1) AS n",
            MANY,
        )
        await here.admin.execute(
            "INSERT INTO jobs SELECT (jsonb_populate_record(j, jsonb_build_object('subject_id', i.id, 'instance_id', i.id,"
            " 'id', 'job' || substr(i.id, 4)))).* FROM jobs j, instances i WHERE i.id <> j.instance_id"
        )
        await here.admin.execute("ANALYZE")
        yield here


async def plan_of(here: Ground, name: str, *arguments: Any) -> dict[str, Any]:
    """How the API's role reads it, with the rows that each node really gave."""
    connection = await asyncpg.connect(here.database.urls[Role.API])
    try:
        async with connection.transaction():
            await connection.execute(query("scope_set"), [here.organization])
            text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query(name)}", *arguments)
    finally:
        await connection.close()
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def read(plan: dict[str, Any], table: str) -> float:
    """How many rows of a table were looked at."""
    own = 0.0
    if plan.get("Relation Name") == table:
        own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return own + sum(read(inner, table) for inner in plan.get("Plans", ()))


async def test_a_page_of_instances_reads_a_page(full: Ground) -> None:
    middle = await full.admin.fetchval("SELECT id FROM instances ORDER BY id OFFSET $1 LIMIT 1", MANY // 2)
    nothing = [None] * 7
    plan = await plan_of(full, "instance_list", full.organization, middle, 51, *nothing, "{}", "")
    assert plan["Actual Rows"] == 51
    assert read(plan, "instances") <= 60


async def test_one_instance_is_found_by_name_or_id_at_once(full: Ground) -> None:
    for sought in ("acme-77", await full.admin.fetchval("SELECT id FROM instances WHERE name = 'acme-77'")):
        plan = await plan_of(full, "instances_find", full.organization, [sought])
        assert plan["Actual Rows"] == 1
        assert read(plan, "instances") <= 2


async def test_a_page_of_jobs_reads_a_page(full: Ground) -> None:
    middle = await full.admin.fetchval("SELECT id FROM jobs ORDER BY id OFFSET $1 LIMIT 1", MANY // 2)
    plan = await plan_of(full, "job_list", full.organization, middle, 51, None, None)
    assert plan["Actual Rows"] == 51
    assert read(plan, "jobs") <= 60


async def test_the_jobs_of_one_instance_are_found_without_the_others(full: Ground) -> None:
    instance = await full.admin.fetchval("SELECT id FROM instances WHERE name = 'acme-77'")
    plan = await plan_of(full, "job_list_of_instance", full.organization, "~", 51, None, None, instance)
    assert plan["Actual Rows"] == 1
    assert read(plan, "jobs") <= 2

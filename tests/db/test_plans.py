"""Every query that is asked often finds its rows by an index, however much history there is: its plan is pinned on 100,000 rows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from spectrum.db.pools import SET_SCOPE, Role
from spectrum.db.sql import query
from tests import golden
from tests.db.crowd import LARGE, MANY, SOME, Crowd, crowd
from tests.postgres import Database, PostgresServer, fresh_database

pytestmark = pytest.mark.anyio

API, ENGINE, SYSTEM = Role.API, Role.ENGINE, Role.SYSTEM
PINNED_ON = 18  # other versions of PostgreSQL may choose other nodes; none may read a large table as a whole
LATER = datetime(2100, 1, 1, tzinfo=UTC)
SOON = datetime.now(UTC)
NO_FILTER: tuple[Any, ...] = (None, None, None, None, None, None, None, {}, "")

Arguments = Callable[[Crowd], tuple[Any, ...]]


def ids(prefix: str, *numbers: int) -> Arguments:
    return lambda made: ([made(prefix, number) for number in numbers],)


def one(prefix: str, number: int, *rest: Any) -> Arguments:
    return lambda made: (made(prefix, number), *rest)


# Who asks, and with what; arrays that are not given hold one null. The organization is the one that has a fifth of everything.
HOT: dict[str, tuple[Role, Arguments]] = {
    # a claim, a heartbeat, a worker's call
    "jobs_claimable": (SYSTEM, one("pol", 3, ["create"], [1], 10, True)),
    "lease_for_update": (ENGINE, one("lea", SOME)),
    "lease_renew": (ENGINE, one("lea", SOME, 1)),
    "lease_state": (ENGINE, one("lea", SOME)),
    "lease_by_boot": (ENGINE, one("wrk", 1, "b1")),
    "lease_lives": (ENGINE, one("lea", SOME, "w")),
    "lease_end": (ENGINE, one("lea", SOME, "lapsed", 15.0, 1.0)),
    "leases_supersede": (ENGINE, one("wrk", 1)),
    "jobs_owned": (SYSTEM, one("lea", SOME)),
    "jobs_owned_by_ended": (SYSTEM, one("wrk", 1)),
    "windows_lock": (ENGINE, ids("lea", SOME, SOME - 1)),
    "windows_move": (ENGINE, ids("lea", SOME)),
    "worker_by_key": (SYSTEM, lambda made: (b"0" * 32,)),
    # a flush of the engine
    "keys_remembered": (ENGINE, lambda made: ([made("org", 1)], ["POST"], ["/v1/instances"], ["k2"])),
    "names_taken": (ENGINE, lambda made: ([made("org", 1)], ["i2"])),
    "instances_lock": (ENGINE, ids("ins", 2, 4)),
    "instances_exist": (ENGINE, ids("ins", 2, 4)),
    "instances_placed": (ENGINE, ids("ins", 2, 4)),
    "jobs_of_instances": (ENGINE, ids("ins", 2, 4)),
    "jobs_ended": (ENGINE, lambda made: ([made("ins", 2)], [made("job", 2)])),
    "steps_of_jobs": (ENGINE, ids("job", 2, 4)),
    "effects_of_instances": (ENGINE, ids("ins", 2, 4)),
    "outlines": (ENGINE, ids("rel", 2)),
    "surroundings": (ENGINE, lambda made: ([made("tgt", 1)], [made("org", 1)], 1.0)),
    "instances_update": (ENGINE, ids("ins", 2)),
    "instances_move": (ENGINE, ids("ins", 2)),
    "jobs_update": (ENGINE, ids("job", 2)),
    "jobs_move": (ENGINE, ids("job", 2)),
    "steps_update": (ENGINE, ids("stp", 2)),
    "attempts_close": (ENGINE, lambda made: ([made("job", 2)], [made("stp", 4)], [1])),
    "effects_delete": (ENGINE, ids("plc", 2)),
    "secrets_delete": (ENGINE, ids("ins", 2)),
    # the sweeper, the sequencer, looks at instances, upkeep
    "leases_lapsed": (SYSTEM, lambda made: (15.0, 100, 1.0)),
    "instances_due": (SYSTEM, lambda made: (100, 1.0)),
    "instances_purgeable": (SYSTEM, lambda made: (100,)),
    "log_new": (SYSTEM, lambda made: ("10:10:", 1000)),
    "log_place": (SYSTEM, lambda made: ([made("evt", MANY)], MANY)),
    "log_waits": (SYSTEM, lambda made: ()),
    "log_read": (SYSTEM, lambda made: (50_000, 1000)),
    "log_reader_begin": (SYSTEM, lambda made: ("another",)),
    "measures_readers": (SYSTEM, lambda made: ()),
    "measures_jobs": (SYSTEM, lambda made: ()),
    "measures_fleet": (SYSTEM, lambda made: ()),
    "audit_waits": (SYSTEM, lambda made: ()),
    "watches_due": (SYSTEM, one("pol", 3, SOON, 10, LATER)),
    "watches_next": (SYSTEM, one("pol", 3)),
    "looks": (ENGINE, lambda made: ([made("ins", 2)], SOON)),
    "instances_of_pool": (ENGINE, lambda made: ([made("ins", 2)], made("pol", 3))),
    "workers_living": (API, lambda made: (made("pol", 3), made("tgt", 3))),
    "requests_open": (SYSTEM, one("pol", 3, SOON, 10)),
    "request_lock": (ENGINE, one("req", 2)),
    "request_owner": (SYSTEM, one("req", 2)),
    "chunks_read": (API, one("req", 2, 0)),
    "requests_forget": (SYSTEM, lambda made: (datetime(2020, 1, 1, tzinfo=UTC),)),
    "keys_expire": (SYSTEM, lambda made: (100,)),
    "ciphertexts_expire": (SYSTEM, lambda made: ()),
    # every request, and what people look at
    "tokens_by_hash": (SYSTEM, lambda made: ([b"0" * 32],)),
    "changes_find": (API, one("org", 1, ["POST"], ["/v1/instances"], ["k2"])),
    "instances_find": (API, one("org", 1, ["i2"])),
    "instance_list": (API, lambda made: (made("org", 1), made("ins", 50_000), 51, *NO_FILTER)),
    "jobs_find": (API, lambda made: (made("org", 1), [made("job", 2)])),
    "job_list": (API, lambda made: (made("org", 1), "~", 51, None, None)),
    "job_list_of_instance": (API, lambda made: (made("org", 1), "~", 51, None, None, made("ins", 2))),
    "attempts_of_jobs": (API, ids("job", 2, 4)),
    "job_obstacle": (API, lambda made: (made("org", 1), made("job", 2))),
    "event_list": (API, one("org", 1, 50_000, 51, None)),
    "audit_list": (API, lambda made: (made("org", 1), made("aud", 50_000), 51, None, None, None)),
    "audit_chain": (API, one("org", 1, 50_000, 51, None, None, None)),
    "token_list": (API, lambda made: (made("org", 1), "", 51)),
    "organization_list": (API, lambda made: ("", 51)),
    "product_list": (API, one("org", 1, "", 51, None)),
    "release_list": (API, one("org", 1, "p1", "", 51)),
    "release_find": (API, one("org", 1, "p1", "1.101")),
    "release_choice": (API, one("org", 1, "p1", None)),
    "target_list": (API, lambda made: ("", 51)),
    "worker_list": (API, lambda made: ("", 51, None)),
    "target_hold": (API, lambda made: (made("tgt", 1), made("org", 1))),
    "target_instances": (API, one("tgt", 1)),
}
FILTERED: dict[str, tuple[Role, str, Arguments]] = {
    "instances of a rare product": (
        API,
        "instance_list",
        lambda made: (made("org", 1), "", 51, "rare", *NO_FILTER[1:]),
    ),
    "instances of a release": (
        API,
        "instance_list",
        lambda made: (made("org", 1), "", 51, None, "1.101", *NO_FILTER[2:]),
    ),
    "instances on a target": (
        API,
        "instance_list",
        lambda made: (made("org", 1), "", 51, None, None, None, "local", *NO_FILTER[4:]),
    ),
    "jobs in a rare state": (API, "job_list", lambda made: (made("org", 1), "~", 51, "cancelling", None)),
    "jobs of a rare operation": (API, "job_list", lambda made: (made("org", 1), "~", 51, None, "purge")),
    "events of an instance": (API, "event_list", lambda made: (made("org", 1), 0, 51, made("ins", 2))),
    "audit of an instance": (API, "audit_list", lambda made: (made("org", 1), "", 51, made("ins", 2), None, None)),
    "jobs of a small organization": (API, "job_list", lambda made: (made("org", 8), "~", 51, None, None)),
    "events from the start": (API, "event_list", lambda made: (made("org", 8), 0, 51, None)),
}
LISTS = ("instance_list", "job_list", "job_list_of_instance", "event_list", "audit_list", "token_list")


@dataclass
class Planner:
    """Asks PostgreSQL how it would do something, as a role, within the scope of one organization."""

    database: Database
    made: Crowd
    large: frozenset[str]

    async def plan(self, role: Role, name: str, arguments: Arguments, generic: bool = False) -> list[str]:
        connection = await asyncpg.connect(self.database.urls[role], server_settings={"jit": "off"})
        try:
            await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
            async with connection.transaction():
                if role is not SYSTEM:
                    await connection.execute(SET_SCOPE, [self.made("org", 1), self.made("org", 8)])
                statement = await connection.prepare(query(name))
                count, given = len(statement.get_parameters()), arguments(self.made)
                if generic:
                    await connection.execute(
                        f"SET LOCAL plan_cache_mode = force_generic_plan; PREPARE it AS {query(name)}"
                    )
                    nulls = f"({', '.join(['NULL'] * count)})" if count else ""
                    found = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE it{nulls}")
                else:
                    filled = (*given, *[[None]] * (count - len(given)))
                    found = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {query(name)}", *filled)
        finally:
            await connection.close()
        nodes = json.loads(found) if isinstance(found, str) else found
        return sorted({*self._scans(nodes[0]["Plan"])})

    def _scans(self, node: dict[str, Any]) -> Iterator[str]:
        kind, table = node["Node Type"], node.get("Relation Name", "")
        if "Sort" in kind and [*self._scans(node["Plans"][0])]:
            yield "Sort"
        if kind == "Bitmap Index Scan" or (table in self.large and kind != "ModifyTable"):
            index = _whole(node.get("Index Name", ""))
            yield " ".join((kind, *([f"on {_whole(table)}"] if table else []), *([f"by {index}"] if index else [])))
        for inner in node.get("Plans", ()):
            yield from self._scans(inner)


def _whole(name: str) -> str:
    """The name without its partition."""
    return re.sub(r"_(default|\d{8})(?=_|$)", "", name)


@pytest.fixture(scope="module")
def planner(postgres: PostgresServer) -> Iterator[Planner]:
    with fresh_database(postgres) as database:
        yield asyncio.run(_planner(database))


async def _planner(database: Database) -> Planner:
    admin = await asyncpg.connect(database.admin_url)
    try:
        made = await crowd(admin)
        counted = await admin.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND reltuples > $1",
            LARGE,
        )
    finally:
        await admin.close()
    return Planner(database, made, frozenset(row["relname"] for row in counted))


async def test_every_table_that_grows_is_large_here(planner: Planner) -> None:
    assert {"instances", "jobs", "steps", "attempts", "events", "audit", "leases", "idempotency_keys"} <= {
        _whole(table) for table in planner.large
    }


async def test_no_hot_query_reads_a_large_table_as_a_whole(planner: Planner) -> None:
    plans = {name: await planner.plan(role, name, given) for name, (role, given) in HOT.items()}
    filtered = {name: await planner.plan(role, text, given) for name, (role, text, given) in FILTERED.items()}
    assert [(name, scan) for name, scans in {**plans, **filtered}.items() for scan in scans if "Seq Scan" in scan] == []
    if await _version(planner) == PINNED_ON:
        golden.check("plans.txt", _told(plans) + "\n" + _told(filtered))


async def test_a_page_of_a_list_is_read_in_its_order_and_not_sorted(planner: Planner) -> None:
    plans = {name: await planner.plan(HOT[name][0], name, HOT[name][1]) for name in LISTS}
    assert [name for name, scans in plans.items() if "Sort" in scans] == []


async def test_a_plan_that_serves_every_argument_reads_no_large_table_as_a_whole(planner: Planner) -> None:
    """PostgreSQL may come to prefer it for a statement that was run often."""
    plans = {name: await planner.plan(role, name, given, generic=True) for name, (role, given) in HOT.items()}
    assert [(name, scan) for name, scans in plans.items() for scan in scans if "Seq Scan" in scan] == []


async def _version(planner: Planner) -> int:
    connection = await asyncpg.connect(planner.database.admin_url)
    try:
        return connection.get_server_version().major
    finally:
        await connection.close()


def _told(plans: dict[str, list[str]]) -> str:
    return "".join(
        "\n    ".join((name, *(scan for scan in scans if scan != "Sort"))) + "\n" for name, scans in plans.items()
    )

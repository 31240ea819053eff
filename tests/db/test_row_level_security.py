"""P11: no organization reads or changes another's rows, even if a query forgets to ask; and what each role may do at all."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from spectrum.core.ids import PLATFORM
from spectrum.db.pools import SET_SCOPE, Role
from tests.db.rows import Rows, bytes32, insert, insert_row, make_id, platform_rows, rows_of
from tests.postgres import Database, PostgresServer, fresh_database

pytestmark = pytest.mark.anyio

OWN = "own"
OTHER = "other"
BOTH = "both"
UNSET = "unset"

READ_BY_ALL = ("pools", "targets", "workers", "breakers", "brakes")
CELL_TABLES = ("cell", "cursors", "leader_terms", "alembic_version")
OWNED = tuple(rows_of("sample").by_table)
SCOPED_ROLES = (Role.OWNER, Role.API, Role.ENGINE)


@dataclass
class World:
    database: Database
    own: Rows
    other: Rows
    platform: Rows
    connections: dict[Role, asyncpg.Connection[asyncpg.Record]]

    def scope(self, name: str) -> list[str] | None:
        own, other = self.own.organization_id, self.other.organization_id
        return {OWN: [own], OTHER: [other], BOTH: [own, other], UNSET: None}[name]

    @asynccontextmanager
    async def as_role(self, role: Role, scope: list[str] | None) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        connection = self.connections[role]
        transaction = connection.transaction()
        await transaction.start()
        try:
            if scope is not None:
                await connection.execute(SET_SCOPE, scope)
            yield connection
        finally:
            await transaction.rollback()


@pytest.fixture(scope="module")
def module_database(postgres: PostgresServer) -> Iterator[Database]:
    """Shared by this module: every test rolls back what it did."""
    with fresh_database(postgres) as made:
        yield made


@pytest.fixture(scope="module")
async def world(module_database: Database) -> AsyncIterator[World]:
    connections = {role: await asyncpg.connect(module_database.urls[role]) for role in Role}
    world = World(module_database, rows_of("acme"), rows_of("beta"), platform_rows(), connections)
    admin = await asyncpg.connect(module_database.admin_url)
    try:
        for rows in (world.own, world.other, world.platform):
            await insert(admin, rows)
        await admin.execute("INSERT INTO cursors (consumer, epoch, position, updated_at) VALUES ('c', 1, 0, now())")
        await admin.execute(
            "INSERT INTO leader_terms (name, term, holder, acquired_at, expires_at) VALUES ('s', 1, 'h', now(), now())"
        )
    finally:
        await admin.close()
    yield world
    for connection in connections.values():
        await connection.close()


def _column(table: str) -> str:
    return "id" if table == "organizations" else "organization_id"


async def test_every_table_is_under_forced_row_level_security(world: World) -> None:
    async with world.as_role(Role.SYSTEM, None) as connection:
        rows = await connection.fetch(
            "SELECT relname, relrowsecurity AND relforcerowsecurity AS forced FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        )
    assert [row["relname"] for row in rows if not row["forced"]] == []
    assert len(rows) > 30


async def test_every_table_is_covered_by_these_tests(world: World) -> None:
    async with world.as_role(Role.SYSTEM, None) as connection:
        rows = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        )
    assert {row["relname"] for row in rows} == {*OWNED, *CELL_TABLES}


async def test_no_role_is_superuser_or_passes_row_level_security(world: World) -> None:
    async with world.as_role(Role.SYSTEM, None) as connection:
        rows = await connection.fetch(
            "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = ANY ($1)",
            list(Role),
        )
    assert {row["rolname"]: tuple(row)[1:] for row in rows} == {role.value: (False,) * 4 for role in Role}


@pytest.mark.parametrize("role", SCOPED_ROLES)
@pytest.mark.parametrize("scope", [OWN, OTHER, BOTH, UNSET])
@pytest.mark.parametrize("table", OWNED)
async def test_a_query_that_forgets_to_filter_sees_its_scope_alone(
    world: World, role: Role, scope: str, table: str
) -> None:
    column = _column(table)
    async with world.as_role(role, world.scope(scope)) as connection:
        try:
            seen = {row[0] for row in await connection.fetch(f"SELECT {column} FROM {table}")}
        except asyncpg.InsufficientPrivilegeError:
            assert (role, table) in {(Role.ENGINE, "tokens"), (Role.ENGINE, "audit_heads")}
            return
    expected = set(world.scope(scope) or [])
    if scope != UNSET and role is not Role.OWNER and table in READ_BY_ALL:
        expected.add(PLATFORM)
    assert seen == expected


@pytest.mark.parametrize("role", SCOPED_ROLES)
@pytest.mark.parametrize("table", OWNED)
async def test_a_change_that_forgets_to_filter_changes_its_scope_alone(world: World, role: Role, table: str) -> None:
    async with world.as_role(role, world.scope(OWN)) as connection:
        columns = await _updatable(connection, role, table)
        if not columns:
            return
        column = columns[0]
        status = await connection.execute(f"UPDATE {table} SET {column} = {column}")
    assert status == ("UPDATE 0" if table == "organizations" else "UPDATE 1")


async def _updatable(connection: Any, role: Role, table: str) -> list[str]:
    rows = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped "
        "AND has_column_privilege($2, attrelid, attnum, 'UPDATE') AND has_column_privilege($2, attrelid, attnum, 'SELECT') "
        "ORDER BY attnum",
        table,
        role.value,
    )
    return [row["attname"] for row in rows]


@pytest.mark.parametrize("role", SCOPED_ROLES)
@pytest.mark.parametrize("table", OWNED)
async def test_a_row_can_not_be_written_for_another_organization(world: World, role: Role, table: str) -> None:
    async with world.as_role(role, world.scope(OWN)) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await insert_row(connection, table, world.other[table])


@pytest.mark.parametrize("role", [Role.API, Role.ENGINE])
@pytest.mark.parametrize("table", READ_BY_ALL)
async def test_what_the_platform_shares_is_not_changed_by_an_organization(world: World, role: Role, table: str) -> None:
    async with world.as_role(role, world.scope(OWN)) as connection:
        columns = await _updatable(connection, role, table)
        if columns:
            status = await connection.execute(
                f"UPDATE {table} SET {columns[0]} = {columns[0]} WHERE organization_id = $1", PLATFORM
            )
            assert status == "UPDATE 0"


@pytest.mark.parametrize("table", READ_BY_ALL)
async def test_what_the_platform_shares_is_written_under_its_scope(world: World, table: str) -> None:
    async with world.as_role(Role.ENGINE, [PLATFORM]) as connection:
        columns = await _updatable(connection, Role.ENGINE, table)
        if columns:
            status = await connection.execute(f"UPDATE {table} SET {columns[0]} = {columns[0]}")
            assert status == "UPDATE 1"


@pytest.mark.parametrize("table", ["join_tokens", "leases", "artifacts"])
async def test_what_the_platform_keeps_to_itself_is_not_read_by_an_organization(world: World, table: str) -> None:
    async with world.as_role(Role.ENGINE, world.scope(OWN)) as connection:
        assert await connection.fetch(f"SELECT 1 FROM {table} WHERE organization_id = $1", PLATFORM) == []


@pytest.mark.parametrize("table", ["cell", "cursors", "leader_terms"])
async def test_the_owner_sees_the_cell_under_the_platform_s_scope_alone(world: World, table: str) -> None:
    async with world.as_role(Role.OWNER, world.scope(OWN)) as connection:
        assert await connection.fetch(f"SELECT 1 FROM {table}") == []
    async with world.as_role(Role.OWNER, [PLATFORM]) as connection:
        assert len(await connection.fetch(f"SELECT 1 FROM {table}")) == 1


@pytest.mark.parametrize("role", [Role.API, Role.ENGINE])
async def test_the_epoch_is_read_with_a_scope_and_written_by_neither(world: World, role: Role) -> None:
    async with world.as_role(role, None) as connection:
        assert await connection.fetchval("SELECT epoch FROM cell") is None
    async with world.as_role(role, world.scope(OWN)) as connection:
        assert await connection.fetchval("SELECT epoch FROM cell") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE cell SET epoch = 2")


@pytest.mark.parametrize("role", [Role.API, Role.ENGINE])
@pytest.mark.parametrize("table", ["events", "audit"])
@pytest.mark.parametrize("verb", ["DELETE FROM {}", "UPDATE {} SET recorded_at = now()", "TRUNCATE {}"])
async def test_events_and_audit_can_only_be_added_to(world: World, role: Role, table: str, verb: str) -> None:
    async with world.as_role(role, world.scope(OWN)) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(verb.format(table))


async def test_a_partition_is_closed_to_everybody_but_through_its_table(world: World) -> None:
    for role in (Role.API, Role.ENGINE, Role.SYSTEM):
        async with world.as_role(role, world.scope(OWN)) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch("SELECT * FROM events_default")
    async with world.as_role(Role.OWNER, world.scope(OWN)) as connection:
        assert await connection.fetch("SELECT * FROM events_default") == []


# ---- the system


async def test_the_system_reads_whole_rows_of_events_and_audit_of_all(world: World) -> None:
    everybody = {world.own.organization_id, world.other.organization_id}
    async with world.as_role(Role.SYSTEM, None) as connection:
        for table in ("events", "audit", "audit_heads"):
            assert {row["organization_id"] for row in await connection.fetch(f"SELECT * FROM {table}")} == everybody


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("instances", "requested"),
        ("instances", "accepted"),
        ("instances", "outputs"),
        ("instances", "name"),
        ("instances", "labels"),
        ("jobs", "parameters"),
        ("jobs", "spec"),
        ("jobs", "failure"),
        ("steps", "arguments"),
        ("steps", "output"),
        ("attempts", "failure"),
        ("secrets", "ciphertext"),
        ("secrets", "name"),
        ("idempotency_keys", "body"),
        ("idempotency_keys", "ciphertext"),
        ("idempotency_keys", "key"),
        ("tokens", "name"),
        ("targets", "url"),
        ("organizations", "name"),
        ("worker_requests", "parameters"),
        ("request_chunks", "lines"),
        ("blobs", "url"),
        ("products", "name"),
        ("releases", "document"),
        ("quotas", "used"),
    ],
)
async def test_the_system_does_not_read_what_customers_entrust(world: World, table: str, column: str) -> None:
    async with world.as_role(Role.SYSTEM, None) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(f"SELECT {column} FROM {table}")


async def test_the_system_finds_ids_and_states_of_all_organizations(world: World) -> None:
    everybody = {world.own.organization_id, world.other.organization_id}
    async with world.as_role(Role.SYSTEM, None) as connection:
        for table, column in (("jobs", "state"), ("instances", "lifecycle"), ("tokens", "hash"), ("steps", "deadline")):
            rows = await connection.fetch(f"SELECT organization_id, {column} FROM {table}")
            assert {row["organization_id"] for row in rows} == everybody


@pytest.mark.parametrize("table", [name for name in OWNED if name not in ("events", "audit", "audit_heads")])
async def test_the_system_changes_no_row_of_an_organization(world: World, table: str) -> None:
    allowed = {
        "tokens": {"last_used_at", "spent_until"},
        "idempotency_keys": {"ciphertext", "key_id"},
        "watches": {"look_at"},
    }
    async with world.as_role(Role.SYSTEM, None) as connection:
        rows = await connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 "
            "AND has_column_privilege('spectrum_system', attrelid, attnum, 'UPDATE')",
            table,
        )
    assert {row["attname"] for row in rows} == allowed.get(table, set())


async def test_the_system_gives_an_event_its_position_once(world: World) -> None:
    async with world.as_role(Role.SYSTEM, None) as connection:
        event = world.own["events"]["id"]
        await connection.execute("UPDATE events SET position = 1 WHERE id = $1", event)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await connection.execute("UPDATE events SET position = 2 WHERE id = $1", event)


async def test_the_system_does_not_rewrite_an_event(world: World) -> None:
    async with world.as_role(Role.SYSTEM, None) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE events SET data = '{}'")


async def test_an_audit_row_is_sealed_once(world: World) -> None:
    seal = "UPDATE audit SET seal_number = $2, seal_previous = '', seal_hash = $3, sealed_at = now() WHERE id = $1"
    async with world.as_role(Role.SYSTEM, None) as connection:
        row = world.own["audit"]["id"]
        await connection.execute(seal, row, 1, bytes32())
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await connection.execute(seal, row, 2, bytes32())


# ---- references and attempts


async def test_a_row_can_not_refer_to_another_organization_s(world: World) -> None:
    stranger = {**world.own["secrets"], "name": "stolen", "instance_id": world.other["instances"]["id"]}
    async with world.as_role(Role.ENGINE, world.scope(OWN)) as connection:
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await insert_row(connection, "secrets", stranger)


async def test_the_api_reads_no_ciphertext_and_no_hash(world: World) -> None:
    for table, column in (("secrets", "ciphertext"), ("tokens", "hash"), ("join_tokens", "hash")):
        async with world.as_role(Role.API, world.scope(OWN)) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT {column} FROM {table}")


async def test_an_attempt_gets_one_outcome(world: World) -> None:
    end = "UPDATE attempts SET outcome = $2, outcome_at = now() WHERE step_id = $1"
    step = world.own["steps"]["id"]
    async with world.as_role(Role.ENGINE, world.scope(OWN)) as connection:
        assert await connection.execute(end, step, "done") == "UPDATE 1"
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await connection.execute(end, step, "error")


async def test_an_attempt_s_intent_is_never_rewritten(world: World) -> None:
    async with world.as_role(Role.ENGINE, world.scope(OWN)) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE attempts SET token = 9")


@pytest.mark.parametrize(("scope", "expected"), [(OWN, 1), (BOTH, 2)])
async def test_a_batch_over_several_organizations_updates_all_of_them(world: World, scope: str, expected: int) -> None:
    both = [world.own["instances"]["id"], world.other["instances"]["id"]]
    async with world.as_role(Role.ENGINE, world.scope(scope)) as connection:
        status = await connection.execute(
            "UPDATE instances i SET version = i.version + 1 FROM unnest($1::text[]) AS wanted (id) WHERE i.id = wanted.id",
            both,
        )
    assert status == f"UPDATE {expected}"


async def test_the_scope_is_read_once_per_statement_and_ids_are_still_looked_up(world: World) -> None:
    async with world.as_role(Role.ENGINE, world.scope(BOTH)) as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        for table in ("instances", "jobs", "steps"):
            rows = await connection.fetch(f"EXPLAIN SELECT * FROM {table} WHERE id = $1", world.own[table]["id"])
            plan = "\n".join(row[0] for row in rows)
            assert "InitPlan 1" in plan, plan
            assert "InitPlan 2" not in plan, plan
            assert re.search(r"Index Cond: .*\bid = ", plan), plan


async def test_only_the_platform_makes_organizations(world: World) -> None:
    row = {"id": make_id("org"), "name": "gamma"}
    async with world.as_role(Role.API, world.scope(OWN)) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await insert_row(connection, "organizations", row)
    async with world.as_role(Role.API, [PLATFORM]) as connection:
        await insert_row(connection, "organizations", row)
        assert await connection.fetchval("SELECT count(*) FROM organizations WHERE id = $1", row["id"]) == 1

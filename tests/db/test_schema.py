"""The schema: the same by migrations as by schema.sql, taken away and made again, and kept to the words of the core's tables."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import asyncpg
import pytest

from spectrum.core import ids
from spectrum.core.jobs import table
from spectrum.db import migrations
from spectrum.db.bootstrap import make_database
from spectrum.db.embedded_place import wheel_binaries
from spectrum.db.pools import Role
from tests.db.rows import LATER, NOW, insert, insert_row, make_id, rows_of
from tests.postgres import Database, PostgresServer

pytestmark = pytest.mark.anyio

SCHEMA = Path(migrations.FOLDER.parent / "schema.sql").read_text(encoding="utf-8")


# pg_dump lists a policy's roles in the order in which they happen to lie in the catalog.
_POLICY_ROLES = re.compile(r"(?<= TO )spectrum_\w+(?:, spectrum_\w+)+(?= USING| WITH|;)")


def dump(database: Database) -> list[str]:
    """The structure as pg_dump tells it, without comments and its random restrict key."""
    done = subprocess.run(
        [str(wheel_binaries() / "pg_dump"), "--schema-only", "--dbname", database.admin_url],
        capture_output=True,
        text=True,
        check=True,
    )
    noise = ("--", "\\restrict", "\\unrestrict")
    lines = (line for line in done.stdout.splitlines() if line and not line.startswith(noise))
    return [_POLICY_ROLES.sub(lambda found: ", ".join(sorted(found[0].split(", "))), line) for line in lines]


async def make_empty(postgres: PostgresServer, database: Database) -> None:
    admin = await asyncpg.connect(postgres.admin_url)
    try:
        await make_database(admin, database.name)
    finally:
        await admin.close()


async def run_as_owner(database: Database, script: str) -> None:
    owner = await asyncpg.connect(database.urls[Role.OWNER])
    try:
        async with owner.transaction():
            await owner.execute(script)
    finally:
        await owner.close()


async def test_the_schema_file_and_the_migrations_make_the_same(
    postgres: PostgresServer, absent_database: Database
) -> None:
    await make_empty(postgres, absent_database)
    await migrations.migrate(absent_database.urls[Role.OWNER])
    migrated = dump(absent_database)
    await migrations.downgrade(absent_database.urls[Role.OWNER], "base")
    await run_as_owner(absent_database, "DROP TABLE alembic_version")
    await run_as_owner(absent_database, SCHEMA)
    assert dump(absent_database) == migrated
    assert len(migrated) > 500


async def test_down_to_nothing_and_up_again_makes_the_same(postgres: PostgresServer, absent_database: Database) -> None:
    await make_empty(postgres, absent_database)
    owner = absent_database.urls[Role.OWNER]
    await migrations.migrate(owner)
    first = dump(absent_database)
    await migrations.downgrade(owner, "base")
    left = [line for line in dump(absent_database) if line.startswith("CREATE ")]
    assert left == ["CREATE TABLE public.alembic_version ("]
    await migrations.migrate(owner)
    assert dump(absent_database) == first


async def test_migrating_twice_changes_nothing(database: Database) -> None:
    before = dump(database)
    await migrations.migrate(database.urls[Role.OWNER])
    assert dump(database) == before


async def test_a_migration_gives_up_soon_behind_a_lock_and_leaves_nothing_half_done(database: Database) -> None:
    await migrations.downgrade(database.urls[Role.OWNER], "0001")
    before = dump(database)
    holder = await asyncpg.connect(database.admin_url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE jobs IN ACCESS SHARE MODE")
            with pytest.raises(migrations.MigrationBlocked):
                await migrations.downgrade(database.urls[Role.OWNER], "base")
    finally:
        await holder.close()
    assert dump(database) == before


async def test_a_database_of_a_newer_version_is_left_as_it_is(database: Database) -> None:
    """The version before runs on the schema of the version after."""
    await run_as_owner(database, "UPDATE alembic_version SET version_num = '9999'")
    before = dump(database)
    await migrations.migrate(database.urls[Role.OWNER])
    assert dump(database) == before


def test_every_migration_has_both_ways() -> None:
    folder = migrations.FOLDER / "versions"
    steps = {path.stem for path in folder.glob("*.py")}
    assert steps
    assert {path.name for path in folder.glob("*.sql")} == {
        f"{step}.{way}.sql" for step in steps for way in ("up", "down")
    }
    assert migrations.head() == max(step.partition("_")[0] for step in steps)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("jobs_state", table.JobState),
        ("jobs_waiting_for", table.WaitsFor),
        ("steps_state", table.StepState),
        ("steps_phase", table.Phase),
        ("steps_wants", table.Wants),
        ("attempts_phase", table.Phase),
        ("attempts_cause", table.Cause),
        ("instances_lifecycle", table.Lifecycle),
        ("instances_hold", table.Hold),
        ("instances_health", table.Health),
        ("instances_desired_state", table.Desired),
        ("jobs_finished_has_its_time", table.TERMINAL),
    ],
)
async def test_the_words_of_a_check_are_the_words_of_the_core(
    database: Database, constraint: str, words: Iterable[StrEnum]
) -> None:
    admin = await asyncpg.connect(database.admin_url)
    try:
        text = await admin.fetchval(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1 AND coninhcount = 0", constraint
        )
    finally:
        await admin.close()
    assert set(re.findall(r"'([a-z_]+)'", text)) == {word.value for word in words}


async def test_the_owner_fits_the_state_as_the_table_says(database: Database) -> None:
    """Which states may have an owner, and which must, read out of the constraint by trying every state."""
    rows = rows_of("acme")
    owner = {"lease_id": None, "worker_id": None, "incarnation": 1, "claim_number": 1}
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    admin = await asyncpg.connect(database.admin_url)
    try:
        await insert(admin, rows)
        owner |= {"lease_id": rows["leases"]["id"], "worker_id": rows["workers"]["id"]}
        for state in table.JobState:
            for owned in (True, False):
                if await _accepted(admin, _job(rows["jobs"], state) | (owner if owned else {})):
                    seen[owned].add(state.value)
    finally:
        await admin.close()
    assert seen[True] == {state.value for state in table.OWNABLE}
    assert seen[False] == {state.value for state in table.JobState} - {"running", "cancelling"}


def _job(like: dict[str, object], state: table.JobState) -> dict[str, object]:
    """A job in a state, complete but for its owner; its subject is not an instance, so that it is in nobody's way."""
    subject = make_id("tgt")
    job = like | {"id": make_id("job"), "subject_type": "target", "subject_id": subject, "instance_id": None}
    job |= {"state": state.value, "unwind_deadline": LATER}
    if state.terminal:
        job |= {"finished_at": NOW}
    if state is table.JobState.WAITING:
        waiting = {"for": "queue", "holder": "", "since": NOW, "until": LATER, "unblock": ""}
        job |= {f"waiting_{name}": value for name, value in waiting.items()}
    return job


async def _accepted(connection: asyncpg.Connection[asyncpg.Record], job: dict[str, object]) -> bool:
    try:
        await insert_row(connection, "jobs", job)
    except asyncpg.CheckViolationError:
        return False
    return True


@pytest.mark.parametrize(
    ("state", "changes", "constraint"),
    [
        ("succeeded", {"finished_at": None}, "jobs_finished_has_its_time"),
        ("ready", {"finished_at": NOW}, "jobs_finished_has_its_time"),
        ("unwinding", {"unwind_deadline": None}, "jobs_unwinding_has_a_deadline"),
        ("waiting", {"waiting_until": None}, "jobs_waiting_is_told_in_full"),
        (
            "waiting",
            {f"waiting_{name}": None for name in ("for", "holder", "since", "until", "unblock")},
            "jobs_waiting_is_told",
        ),
        ("ready", {"incarnation": 1}, "jobs_owned_as_a_whole"),
        ("ready", {"fence": 2**53}, "jobs_fence_check"),
        ("ready", {"subject_type": "instance"}, "jobs_instance_is_the_subject"),
    ],
)
async def test_a_job_that_breaks_a_promise_is_refused(
    database: Database, state: str, changes: dict[str, object], constraint: str
) -> None:
    rows = rows_of("acme")
    admin = await asyncpg.connect(database.admin_url)
    try:
        await insert(admin, rows)
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await insert_row(admin, "jobs", _job(rows["jobs"], table.JobState(state)) | changes)
    finally:
        await admin.close()
    assert refused.value.constraint_name == constraint


async def test_two_active_jobs_of_one_subject_are_refused_at_the_end_of_the_transaction(database: Database) -> None:
    rows = rows_of("acme")
    admin = await asyncpg.connect(database.admin_url)
    try:
        await insert(admin, rows)
        second = rows["jobs"] | {"id": make_id("job"), "number": 2}
        with pytest.raises(asyncpg.ExclusionViolationError):
            async with admin.transaction():
                await insert_row(admin, "jobs", second)
        async with (
            admin.transaction()
        ):  # in one transaction, and in this order, the first may end after the second began
            await insert_row(admin, "jobs", second)
            end = "UPDATE jobs SET state = 'succeeded', finished_at = created_at WHERE id = $1"
            await admin.execute(end, rows["jobs"]["id"])
    finally:
        await admin.close()


async def test_a_slot_wants_one_effect_present(database: Database) -> None:
    rows = rows_of("acme")
    admin = await asyncpg.connect(database.admin_url)
    try:
        await insert(admin, rows)
        with pytest.raises(asyncpg.ExclusionViolationError):
            await insert_row(admin, "effects", rows["effects"] | {"effect_key": "web.container.1.2"})
    finally:
        await admin.close()


async def test_a_name_is_free_again_after_the_purge(database: Database) -> None:
    rows = rows_of("acme")
    again = rows["instances"] | {"id": make_id("ins")}
    admin = await asyncpg.connect(database.admin_url)
    try:
        await insert(admin, rows)
        with pytest.raises(asyncpg.UniqueViolationError):
            await insert_row(admin, "instances", again)
        await admin.execute("UPDATE instances SET lifecycle = 'purged', purged_at = created_at")
        await insert_row(admin, "instances", again)
    finally:
        await admin.close()


async def test_a_quota_is_never_exceeded_whoever_forgets_to_ask(database: Database) -> None:
    rows = rows_of("acme")
    admin = await asyncpg.connect(database.admin_url)
    try:
        await insert(admin, rows)
        with pytest.raises(asyncpg.CheckViolationError, match="quotas_never_exceeded"):
            await admin.execute("UPDATE quotas SET used = used + 10")
    finally:
        await admin.close()


@pytest.mark.parametrize(
    "text", ["", "ins_1", make_id("ins"), make_id("job"), make_id("ins").upper(), make_id("ins") + "\n"]
)
async def test_the_database_and_the_core_agree_on_what_an_id_is(database: Database, text: str) -> None:
    admin = await asyncpg.connect(database.admin_url)
    try:
        assert await admin.fetchval("SELECT is_id($1, 'ins')", text) == ids.is_id("ins", text)
    finally:
        await admin.close()


async def test_every_id_is_ordered_by_its_bytes(database: Database) -> None:
    admin = await asyncpg.connect(database.admin_url)
    try:
        rows = await admin.fetch(
            "SELECT attrelid::regclass::text || '.' || attname AS name FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
            "JOIN pg_collation l ON l.oid = attcollation WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
            "AND attname ~ '^(id|[a-z_]+_id|subject)$' AND attname !~ '^(command|request|key|signing_key)_id$' AND collname <> 'C'"
        )
    finally:
        await admin.close()
    assert [row["name"] for row in rows] == []

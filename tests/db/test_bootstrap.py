"""From an empty PostgreSQL to a cell: repeatable, side by side, under a new epoch where the database is not the one it was."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from spectrum.core import ids
from spectrum.db.bootstrap import (
    BootstrapError,
    SigningKey,
    bootstrap,
    derive_passwords,
    make_database,
    role_urls,
    settle_epoch,
)
from spectrum.db.embedded import Embedded, Server
from spectrum.db.pools import SET_SCOPE, Role
from tests.postgres import Database, PostgresServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database.urls[Role.OWNER])
    yield connection
    await connection.close()


async def test_an_empty_server_becomes_a_cell_and_stays_the_same_one(
    postgres: PostgresServer, absent_database: Database
) -> None:
    first = await bootstrap(postgres.admin_url, absent_database.name, postgres.passwords)
    again = await bootstrap(postgres.admin_url, absent_database.name, postgres.passwords)
    assert ids.is_id("cel", first.id)
    assert (first.epoch, first.raised) == (1, False)
    assert again == first
    for role in Role:
        connection = await asyncpg.connect(absent_database.urls[role])
        assert await connection.fetchval("SELECT current_user") == role
        await connection.close()


async def test_several_copies_that_start_at_once_agree(postgres: PostgresServer, absent_database: Database) -> None:
    starts = (bootstrap(postgres.admin_url, absent_database.name, postgres.passwords) for _ in range(4))
    cells = await asyncio.gather(*starts)
    assert len({cell.id for cell in cells}) == 1
    assert {cell.epoch for cell in cells} == {1}


async def test_a_new_epoch_can_be_asked_for(owner: Any) -> None:
    before = await settle_epoch(owner)
    after = await settle_epoch(owner, new_epoch=True)
    assert after.epoch == before.epoch + 1
    assert after.raised
    assert await settle_epoch(owner) == before.__class__(before.id, after.epoch, False)


@pytest.mark.parametrize(
    "change", ["system_identifier = 'another'", "timeline = timeline + 1", "database_oid = database_oid + 1"]
)
async def test_another_postgresql_than_before_raises_the_epoch_once(owner: Any, change: str) -> None:
    before = await settle_epoch(owner)
    async with owner.transaction():
        await owner.execute(SET_SCOPE, [ids.PLATFORM])
        await owner.execute(f"UPDATE cell SET {change}")
    after = await settle_epoch(owner)
    assert (after.epoch, after.raised) == (before.epoch + 1, True)
    assert (await settle_epoch(owner)).raised is False


async def test_a_copied_database_starts_under_an_epoch_of_its_own(
    postgres: PostgresServer, absent_database: Database
) -> None:
    """The cell of the template was adopted under another database: a copy must not give out its fences again."""
    admin = await asyncpg.connect(postgres.admin_url)
    try:
        await make_database(admin, absent_database.name, "spectrum_template")
    finally:
        await admin.close()
    cell = await bootstrap(postgres.admin_url, absent_database.name, postgres.passwords)
    assert (cell.epoch, cell.raised) == (2, True)


async def test_two_copies_raise_the_epoch_of_a_restored_database_once(database: Database, owner: Any) -> None:
    before = await settle_epoch(owner)
    async with owner.transaction():
        await owner.execute(SET_SCOPE, [ids.PLATFORM])
        await owner.execute("UPDATE cell SET timeline = timeline + 1")
    second = await asyncpg.connect(database.urls[Role.OWNER])
    try:
        cells = await asyncio.gather(settle_epoch(owner), settle_epoch(second))
    finally:
        await second.close()
    assert {cell.epoch for cell in cells} == {before.epoch + 1}
    assert sorted(cell.raised for cell in cells) == [False, True]


async def test_the_cell_s_public_key_is_kept(owner: Any) -> None:
    await settle_epoch(owner, signing_key=SigningKey("key-1", bytes(range(32))))
    await settle_epoch(owner)
    async with owner.transaction():
        await owner.execute(SET_SCOPE, [ids.PLATFORM])
        row = await owner.fetchrow("SELECT signing_key_id, signing_public_key FROM cell")
    assert tuple(row) == ("key-1", bytes(range(32)))


async def test_a_wrong_password_opens_nothing(database: Database) -> None:
    url = role_urls(database.admin_url, database.name, derive_passwords(b"another secret"))[Role.API]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url)


def test_passwords_differ_by_role_and_secret() -> None:
    one, two = derive_passwords(b"one"), derive_passwords(b"two")
    assert len({*one.values(), *two.values()}) == 8
    assert derive_passwords(b"one") == one


def test_urls_keep_host_port_and_options() -> None:
    url = role_urls("postgres://admin:x@db.example:6543/postgres?sslmode=require", "my cell", {Role.API: "p/w"})
    assert url[Role.API] == "postgresql://spectrum_api:p%2Fw@db.example:6543/my%20cell?sslmode=require"


# ---- with a server of its own: what these do to roles would disturb the others


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    embedded = Embedded(tmp_path, durable=False, dies_with_parent=True)
    yield embedded.start()
    embedded.remove()


async def test_an_admin_that_is_no_superuser_is_enough(own_server: Server) -> None:
    admin = await asyncpg.connect(own_server.url())
    try:
        await admin.execute("CREATE ROLE keeper LOGIN CREATEROLE CREATEDB PASSWORD 'k'")
    finally:
        await admin.close()
    url = own_server.url(user="keeper", password="k")
    first = await bootstrap(url, "modest", derive_passwords(b"m"))
    assert (await bootstrap(url, "modest", derive_passwords(b"m"))).id == first.id
    connection = await asyncpg.connect(role_urls(url, "modest", derive_passwords(b"m"))[Role.SYSTEM])
    assert await connection.fetchval("SELECT epoch FROM cell") == 1
    await connection.close()


async def test_a_role_that_passes_row_level_security_is_refused(own_server: Server) -> None:
    admin = await asyncpg.connect(own_server.url())
    try:
        await bootstrap(own_server.url(), "strict", derive_passwords(b"s"))
        await admin.execute("ALTER ROLE spectrum_api BYPASSRLS")
        with pytest.raises(BootstrapError, match="ALTER ROLE spectrum_api NOSUPERUSER NOBYPASSRLS"):
            await bootstrap(own_server.url(), "strict", derive_passwords(b"s"))
        await admin.execute("ALTER ROLE spectrum_api NOBYPASSRLS")
    finally:
        await admin.close()


async def test_an_admin_that_may_not_make_roles_is_told_what_it_lacks(own_server: Server) -> None:
    admin = await asyncpg.connect(own_server.url())
    try:
        await admin.execute("CREATE ROLE guest LOGIN PASSWORD 'g'")
    finally:
        await admin.close()
    with pytest.raises(BootstrapError, match="CREATEROLE and CREATEDB"):
        await bootstrap(own_server.url(user="guest", password="g"), "never", derive_passwords(b"g"))


async def test_a_database_that_does_not_answer_is_told_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(BootstrapError, match=f"127.0.0.1:{port}/postgres can't be entered") as refused:
        await bootstrap(f"postgresql://admin:hidden@127.0.0.1:{port}/postgres", "never", derive_passwords(b"x"))
    assert "hidden" not in str(refused.value)


async def test_a_database_that_takes_a_connection_and_says_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrum.db.bootstrap.CONNECT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(BootstrapError, match=r"\(no answer\)"):
        port = silent.getsockname()[1]
        await bootstrap(f"postgresql://admin@127.0.0.1:{port}/postgres", "never", derive_passwords(b"x"))


async def test_no_password_reaches_the_server_s_log(own_server: Server) -> None:
    admin = await asyncpg.connect(own_server.url())
    try:
        await admin.execute("ALTER ROLE postgres SET log_statement = 'all'")
        passwords = derive_passwords(b"logged")
        await bootstrap(own_server.url(), "logged", passwords)
        log = await admin.fetchval("SELECT setting FROM pg_settings WHERE name = 'data_directory'")
    finally:
        await admin.close()
    text = (Path(log).parent / "postgres.log").read_text()
    assert "ALTER ROLE" in text or "CREATE ROLE" in text
    assert not [role for role, password in passwords.items() if password in text]


def test_only_the_path_differs_between_a_database_and_its_server(database: Database, postgres: PostgresServer) -> None:
    parts = urlsplit(database.admin_url)
    assert urlunsplit(parts._replace(path=urlsplit(postgres.admin_url).path)) == postgres.admin_url

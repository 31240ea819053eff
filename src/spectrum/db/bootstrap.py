"""From an empty PostgreSQL to a cell: roles, database, schema, partitions, epoch.

Every start runs it; several copies may run it at once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from spectrum.core import ids
from spectrum.core.errors import SpectrumError
from spectrum.db.migrations import MigrationBlocked, migrate
from spectrum.db.pools import SET_SCOPE, Connection, Role
from spectrum.db.sql import query
from spectrum.db.upkeep import AHEAD_DAYS, make_partitions

OLDEST_VERSION = 15
CONNECT_SECONDS = 10.0
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds between the tries of a migration
_LOCK = "select pg_advisory_lock(hashtext('spectrum.bootstrap'))"
_IDENTITY = query("cell_identity")
_FOR_UPDATE = query("cell_for_update")
_CREATE = query("cell_create")
_RAISE = query("cell_raise_epoch")
_SIGNING_KEY = query("cell_signing_key")


class BootstrapError(SpectrumError):
    """The PostgreSQL that was given can't be made a cell. One sentence, with the remedy."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Which cell this is, and under which epoch it gives out fences."""

    id: ids.CellId
    epoch: int
    raised: bool  # by this start: the database was restored, promoted or copied, or the epoch was asked for


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The public half of the key with which the cell signs its answers (Ed25519, 32 bytes)."""

    id: str
    public: bytes


def derive_passwords(secret: bytes) -> Mapping[Role, str]:
    """The roles' passwords from one secret that all copies share, so that none of them has to be stored or sent."""
    return {role: hmac.new(secret, f"password of {role}".encode(), hashlib.sha256).hexdigest() for role in Role}


def role_urls(admin_url: str, database: str, passwords: Mapping[Role, str]) -> Mapping[Role, str]:
    """Where each role connects to: the admin's host, port and options, the role's own name and password."""
    return {role: _with(admin_url, database, role.value, password) for role, password in passwords.items()}


def _with(url: str, database: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{host}"
    return urlunsplit(("postgresql", netloc, "/" + quote(database, safe=""), parts.query, ""))


async def bootstrap(
    admin_url: str,
    database: str,
    passwords: Mapping[Role, str],
    *,
    new_epoch: bool = False,
    signing_key: SigningKey | None = None,
    ahead_days: int = AHEAD_DAYS,
) -> Cell:
    """Make or complete everything. `admin_url` names a role that may create roles and databases, and any database it may enter.

    `new_epoch` raises the epoch whatever was found. Partitions are made `ahead_days` ahead.

    Raises `BootstrapError`.
    """
    urls = role_urls(admin_url, database, passwords)
    async with _connected(admin_url) as admin:
        _refuse_old(admin)
        await admin.execute(_LOCK)  # falls with the connection; held over all that follows
        try:
            await _make_roles(admin, passwords)
            await make_database(admin, database)
        except asyncpg.InsufficientPrivilegeError as error:
            raise BootstrapError(
                f"This database user may not do what a first start needs ({error}): name a superuser, "
                "or one with CREATEROLE and CREATEDB, in SPECTRUM_DATABASE_URL."
            ) from error
        await _migrate(urls[Role.OWNER])
        async with _connected(urls[Role.SYSTEM]) as system:
            await make_partitions(system, ahead_days)
        async with _connected(urls[Role.OWNER]) as owner:
            return await settle_epoch(owner, new_epoch=new_epoch, signing_key=signing_key)


async def make_database(admin: Connection, database: str, template: str = "template0") -> None:
    """A database of `spectrum_owner`'s that only our roles may enter: empty and in the C text order, or a copy of `template`."""
    if not await admin.fetchval("select count(*) from pg_database where datname = $1", database):
        options = " ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'" if template == "template0" else " STRATEGY file_copy"
        owner = quoted(Role.OWNER)
        await admin.execute(f"CREATE DATABASE {quoted(database)} OWNER {owner} TEMPLATE {quoted(template)}{options}")
    everybody = ", ".join(quoted(role) for role in Role)
    await admin.execute(f"REVOKE ALL ON DATABASE {quoted(database)} FROM PUBLIC")
    await admin.execute(f"GRANT CONNECT ON DATABASE {quoted(database)} TO {everybody}")


async def settle_epoch(owner: Connection, *, new_epoch: bool = False, signing_key: SigningKey | None = None) -> Cell:
    """Compare PostgreSQL's identity with the stored one and raise the epoch where it is another. Raises `BootstrapError`."""
    async with owner.transaction():
        await owner.execute(SET_SCOPE, [ids.PLATFORM])
        now = await _one(owner, _IDENTITY)
        if now["in_recovery"]:
            raise BootstrapError("This PostgreSQL is a standby in recovery: name the primary in SPECTRUM_DATABASE_URL.")
        identity = (now["system_identifier"], now["timeline"], now["database_oid"])
        cell_id = ids.make("cel", datetime.now(UTC), secrets.token_bytes(ids.ENTROPY_BYTES))
        await owner.execute(_CREATE, cell_id, *identity)
        row = await _one(owner, _FOR_UPDATE)
        stored = (row["system_identifier"], row["timeline"], row["database_oid"])
        raised = new_epoch or stored != identity
        epoch = await owner.fetchval(_RAISE, *identity) if raised else row["epoch"]
        if signing_key is not None:
            await owner.execute(_SIGNING_KEY, signing_key.id, signing_key.public)
    return Cell(ids.CellId(row["id"]), epoch, raised)


async def _one(connection: Connection, statement: str) -> asyncpg.Record:
    row = await connection.fetchrow(statement)
    if row is None:
        raise BootstrapError("The cell's row is hidden or gone: restore the database from its last backup.")
    return row


async def _migrate(url: str) -> None:
    """A running system holds its tables for moments: the next try finds a gap."""
    for pause in _PAUSES:
        try:
            return await migrate(url)
        except MigrationBlocked:
            await asyncio.sleep(pause)
    raise BootstrapError("The database was too busy to be migrated: end its long transactions and start again.")


def _refuse_old(admin: Connection) -> None:
    version = admin.get_server_version()
    if version.major < OLDEST_VERSION:
        raise BootstrapError(
            f"This is PostgreSQL {version.major}.{version.minor}; SPECTRUM needs {OLDEST_VERSION} or later: "
            "upgrade it or name another one in SPECTRUM_DATABASE_URL."
        )


async def _make_roles(admin: Connection, passwords: Mapping[Role, str]) -> None:
    known = {
        row["rolname"]: row for row in await admin.fetch("select * from pg_roles where rolname = any($1)", list(Role))
    }
    for role in Role:
        if role.value in known and (known[role.value]["rolsuper"] or known[role.value]["rolbypassrls"]):
            raise BootstrapError(
                f"The role {role} is a superuser or passes row-level security, which would open every organization to it: "
                f"run ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS."
            )
        verb = "ALTER" if role.value in known else "CREATE"
        verifier = scram_verifier(passwords[role], secrets.token_bytes(16))
        await admin.execute(f"{verb} ROLE {quoted(role)} LOGIN PASSWORD '{verifier}'")
    if not await admin.fetchval("select rolsuper from pg_roles where rolname = current_user"):
        await admin.execute(f"GRANT {quoted(Role.OWNER)} TO CURRENT_USER")  # to give it a database


def scram_verifier(password: str, salt: bytes, iterations: int = 4096) -> str:
    """What PostgreSQL stores instead of the password (RFC 5803), made here so that the password is in no log of the server."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    text = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${iterations}:{text[0]}${text[1]}:{text[2]}"


def quoted(name: str) -> str:
    """An SQL identifier, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        where = url.rpartition("@")[2]
        raise BootstrapError(
            f"PostgreSQL at {where} can't be entered ({str(error) or 'no answer'}): start it or correct SPECTRUM_DATABASE_URL."
        ) from error
    try:
        yield connection
    finally:
        await connection.close()

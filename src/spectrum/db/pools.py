"""Connection pools: one per role, each with its own timeouts, and transactions that see the organizations they were opened for.

asyncpg keeps prepared statements per connection. That is safe with row-level security: a plan reads the scope when it runs,
and a pool never changes its role. After a migration asyncpg prepares anew; the transaction that met the change is run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import asyncpg
from pydantic_core import from_json, to_json

from spectrum.core.errors import Problem
from spectrum.db.losses import is_loss
from spectrum.db.sql import query

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

Pooled: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

SET_SCOPE = query("scope_set")
ACQUIRE_SECONDS = 1.0
_TRANSACTION_TIMEOUT_SINCE = 17


class Role(StrEnum):
    """Who connects. None is superuser, none passes row-level security (DESIGN §3.18)."""

    OWNER = "spectrum_owner"  # migrates
    API = "spectrum_api"  # one organization per transaction
    ENGINE = "spectrum_engine"  # the organizations of its batch
    SYSTEM = "spectrum_system"  # all organizations; ids, states, deadlines, hashes, positions


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Upper bounds of PostgreSQL's own, in seconds; 0 is none."""

    statement: float
    lock: float
    idle_in_transaction: float
    transaction: float  # PostgreSQL 17 and later

    def settings(self, version: int) -> dict[str, str]:
        values = {
            "statement_timeout": self.statement,
            "lock_timeout": self.lock,
            "idle_in_transaction_session_timeout": self.idle_in_transaction,
        }
        if version >= _TRANSACTION_TIMEOUT_SINCE:
            values["transaction_timeout"] = self.transaction
        return {name: str(round(seconds * 1000)) for name, seconds in values.items()}


TIMEOUTS = {
    Role.OWNER: Timeouts(statement=0, lock=1, idle_in_transaction=60, transaction=0),
    Role.API: Timeouts(statement=5, lock=2, idle_in_transaction=10, transaction=15),
    Role.ENGINE: Timeouts(statement=10, lock=2, idle_in_transaction=10, transaction=30),
    Role.SYSTEM: Timeouts(statement=30, lock=2, idle_in_transaction=10, transaction=60),
}


async def open_pool(url: str, role: Role, application: str, size: int = 8, timeouts: Timeouts | None = None) -> Pool:
    """A pool of at most `size` connections. `application` is what PostgreSQL shows as the connection's name.

    Raises what asyncpg raises when the first connection can't be made.
    """
    limits = timeouts or TIMEOUTS[role]
    # Settings are the role's from the start, so that none is ever SET in a session: the version is asked first.
    probe = await asyncpg.connect(url, timeout=10)
    try:
        version = probe.get_server_version().major
    finally:
        await probe.close()
    settings = limits.settings(version) | {"application_name": application, "jit": "off", "timezone": "UTC"}
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        timeout=10,
        command_timeout=limits.statement + 5 if limits.statement else None,
        server_settings=settings,
        init=_prepare_connection,
        reset=_leave_as_it_is,
    )


async def _prepare_connection(connection: Any) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_as_json, decoder=from_json)


def _as_json(value: Any) -> str:
    return to_json(value).decode()


async def _leave_as_it_is(connection: Any) -> None:
    """What is set here ends with its transaction, and the driver rolls back one that is open: RESET ALL would change nothing."""


@asynccontextmanager
async def scoped(pool: Pool, organizations: Iterable[str]) -> AsyncIterator[Connection]:
    """A transaction that sees and changes the rows of these organizations and of no other; it commits at the end.

    Raises `Problem("unavailable")` when no connection gets free within `ACQUIRE_SECONDS`.
    """
    async with transaction(pool) as connection:
        await connection.execute(SET_SCOPE, list(organizations))
        yield connection


@asynccontextmanager
async def transaction(pool: Pool, wait: float = ACQUIRE_SECONDS) -> AsyncIterator[Connection]:
    """A transaction without a scope: of `spectrum_system`, or of something that sets its scope itself."""
    connection = await acquired(pool, wait)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await give_back(pool, connection)


async def acquired(pool: Pool, wait: float = ACQUIRE_SECONDS) -> Pooled:
    """A connection, to be given back. Raises `Problem("unavailable")` when none gets free within `wait` seconds."""
    try:
        return await pool.acquire(timeout=wait)
    except TimeoutError as error:
        raise Problem("unavailable", "The database has no connection to spare: try again in a second.") from error


async def give_back(pool: Pool, connection: Pooled) -> None:
    """Return a connection to its pool. One that turns out to be dead is dropped: that says nothing about what was done on it."""
    try:
        await asyncio.shield(pool.release(connection))
    except Exception as error:
        if not is_loss(error):
            raise


def drop(connection: Pooled) -> None:
    """Cut a connection of which nobody knows any more what it is doing."""
    with suppress(asyncpg.InterfaceError):  # the driver has done it already
        connection.terminate()

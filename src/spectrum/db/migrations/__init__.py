"""Migrations: Alembic keeps the order, plain SQL files say what changes, asyncpg is the one driver.

A migration is a Python file with its place in the chain and two SQL files beside it, up and down (docs/database.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from spectrum.core.errors import SpectrumError

FOLDER = Path(__file__).parent
LOCK_TIMEOUT = "1s"  # a migration waits no longer behind a running system, and is tried again
_LOCK_NOT_AVAILABLE = "55P03"


class MigrationBlocked(SpectrumError):
    """Something else holds a table that the migration has to change. Nothing was done; try again."""


def run_script(name: str) -> None:
    """Run a whole SQL file in the migration's transaction, many statements at once."""
    connection = op.get_bind()
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    script = (FOLDER / "versions" / name).read_text(encoding="utf-8")
    driver: Any = connection.connection.dbapi_connection
    driver.run_async(lambda raw: raw.execute(script))


def head() -> str | None:
    """The newest revision that this code knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def migrate(dsn: str, revision: str = "head") -> None:
    """Bring the database up to a revision, as its owner (`dsn`: postgresql://…). Each migration is one transaction.

    A database that a newer version has migrated is left as it is: this version runs on it, by expand and contract.
    Raises `MigrationBlocked`.
    """

    def up(config: Config, found: str | None) -> None:
        if found is None or found in _known(config):
            command.upgrade(config, revision)

    await _run(dsn, up)


async def downgrade(dsn: str, revision: str) -> None:
    """Bring the database back to a revision; `base` takes everything away.

    Raises `MigrationBlocked`.
    """
    await _run(dsn, lambda config, found: command.downgrade(config, revision))


def _known(config: Config) -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


async def _run(dsn: str, action: Callable[[Config, str | None], None]) -> None:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool)

    def inside(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        found = MigrationContext.configure(connection).get_current_revision()
        connection.commit()
        action(config, found)

    try:
        async with engine.connect() as connection:
            await connection.run_sync(inside)
            await connection.commit()
    except (DBAPIError, asyncpg.PostgresError) as error:
        if getattr(getattr(error, "orig", error), "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise MigrationBlocked("Another connection holds a table that a migration changes: try again.") from error
        raise
    finally:
        await engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config

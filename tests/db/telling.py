"""Events written by hand into a database with one organization, and copies of what keeps its log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from spectrum.db.leading import Leading
from spectrum.db.log import EventLog
from spectrum.db.log_reader import LogReader
from spectrum.db.pools import Pool, Role, open_pool
from tests.db.rows import NOW, Rows, insert_row, make_id, rows_of
from tests.postgres import Database


@dataclass
class Log:
    """A database with one organization; `system` is what sequencers and relays use."""

    database: Database
    admin: Any
    system: Pool
    rows: Rows

    async def session(self) -> Any:
        return await asyncpg.connect(self.database.admin_url)

    async def begun(self) -> tuple[Any, Any]:
        """A session of its own, and the transaction that is open in it."""
        session = await self.session()
        transaction = session.transaction()
        await transaction.start()
        return session, transaction

    async def tell(self, session: Any, subject: str, sequence: int, at: datetime = NOW, epoch: int = 1) -> None:
        what = {"type": "test.told.v1", "data": "{}", "recorded_at": at, "epoch": epoch}
        organization = self.rows.organization_id
        event = {"id": make_id("evt"), "organization_id": organization, "subject": subject, "sequence": sequence}
        await insert_row(session, "events", event | what)

    async def grow(self, first: int, count: int, subjects: int) -> None:
        """Events with positions from `first` on; the subjects take turns."""
        numbers = list(range(first, first + count))
        await self.admin.execute(
            """
            INSERT INTO events (id, organization_id, epoch, position, subject, sequence, type, data, recorded_at)
            SELECT id, $1, 1, n, 'ins_' || n % $4, (n - 1) / $4 + 1, 'test.told.v1', '{}', clock_timestamp()
            FROM unnest($2::text[], $3::bigint[]) AS new (id, n)
            """,
            self.rows.organization_id,
            [make_id("evt") for _ in numbers],
            numbers,
            subjects,
        )

    def reader(self, name: str = "a", pool: Pool | None = None) -> LogReader:
        system = pool or self.system
        return LogReader(system, Leading(system, "relay", name, 3600.0, 0.0), "relay")

    async def log(self) -> list[tuple[int | None, str, int]]:
        rows = await self.admin.fetch("SELECT position, subject, sequence FROM events ORDER BY position")
        return [tuple(row) for row in rows]

    def copy(self, name: str, pool: Pool | None = None) -> EventLog:
        system = pool or self.system
        return EventLog(system, Leading(system, "sequencer", name, 3600.0, 0.0))


@asynccontextmanager
async def written_log(database: Database) -> AsyncIterator[Log]:
    admin = await asyncpg.connect(database.admin_url)
    system = await open_pool(database.urls[Role.SYSTEM], Role.SYSTEM, "test system")
    rows = rows_of("acme")
    await insert_row(admin, "organizations", rows["organizations"])
    yield Log(database, admin, system, rows)
    await system.close()
    await admin.close()

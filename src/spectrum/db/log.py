"""The log as the sequencer keeps it: what has no position yet gets the next ones, in one transaction with the cursor.

New events are found by the difference of two snapshots (research: PgQ): neither an open transaction nor two that commit in another
order than they began hide an event or turn the order of a subject around.
"""

from __future__ import annotations

from dataclasses import dataclass

from spectrum.core.log import Unplaced, in_order
from spectrum.db.leading import Leading
from spectrum.db.losses import answerable
from spectrum.db.pools import Connection, Pool, transaction
from spectrum.db.sql import query

CONSUMER = "sequencer"

_CURSOR = query("log_cursor")
_CURSOR_BEGIN = query("log_cursor_begin")
_CURSOR_MOVE = query("log_cursor_move")
_NEW = query("log_new")
_PLACE = query("log_place")
_WAITS = query("log_waits")


@dataclass(frozen=True, slots=True)
class Placed:
    """How many events got a position, and whether more are there already."""

    count: int
    more: bool


@dataclass(frozen=True, slots=True)
class EventLog:
    """The log of a cell, as `spectrum_system`. Methods raise `Unavailable` where PostgreSQL does not answer."""

    system: Pool
    leading: Leading

    async def waits(self) -> bool:
        """Whether any event has no position yet."""
        with answerable():
            return bool(await self.system.fetchval(_WAITS))

    async def place(self, term: int, limit: int) -> Placed:
        """Give positions to about `limit` new events. Raises `LeadLost`."""
        with answerable():
            async with transaction(self.system) as connection:
                await self.leading.hold(connection, term)
                return await _place(connection, term, limit)


async def _place(connection: Connection, term: int, limit: int) -> Placed:
    position, snapshot = await _cursor(connection)
    rows = await connection.fetch(_NEW, snapshot, limit)
    if not rows and snapshot is not None:
        # A database that was restored by hand keeps its epoch, and its snapshots hide what nobody has read.
        snapshot = None
        rows = await connection.fetch(_NEW, snapshot, limit)
    if not rows:
        return Placed(0, more=False)
    events = in_order([Unplaced(r["id"], r["subject"], r["sequence"], r["recorded_at"]) for r in rows])
    await connection.execute(_PLACE, [event.id for event in events], position)
    more = rows[0]["found"] == limit
    # Where more is there, the next round begins from the same snapshot: what has its position by then is passed over.
    until = snapshot if more else rows[0]["snapshot"]
    await connection.execute(_CURSOR_MOVE, CONSUMER, position + len(events), until, term)
    return Placed(len(events), more)


async def _cursor(connection: Connection) -> tuple[int, str | None]:
    """The last position, and the snapshot that was read last: none at the very first start, and none of an older epoch."""
    row = await connection.fetchrow(_CURSOR, CONSUMER)
    if row is None:
        await connection.execute(_CURSOR_BEGIN, CONSUMER)
        return await _cursor(connection)
    # Of a restored database the ids of old transactions mean nothing: what has no position is read whatever they are.
    return row["position"], row["snapshot"] if row["of_this_epoch"] else None

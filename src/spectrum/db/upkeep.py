"""What keeps the database going over the weeks: partitions made ahead of time, and dropped when nobody needs them."""

from __future__ import annotations

from datetime import datetime

from spectrum.db.pools import Connection
from spectrum.db.sql import query

AHEAD_DAYS = 28
_MAKE = query("partitions_make")
_DROP = query("partitions_drop")


async def make_partitions(system: Connection, days: int = AHEAD_DAYS) -> int:
    """Make what is missing of the partitions of the next `days`, as `spectrum_system`. Returns how many were made."""
    made: int = await system.fetchval(_MAKE, days)
    return made


async def drop_partitions(system: Connection, before: datetime) -> tuple[str, ...]:
    """Drop the partitions that ended before a moment, as `spectrum_system`; returns their names.

    One that a consumer of the log, the sealer or an unfinished job still needs stays, however old it is.
    """
    return tuple(row["name"] for row in await system.fetch(_DROP, before))

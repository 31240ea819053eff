"""What keeps the database going over the weeks: partitions made ahead, and the end of what has had its time."""

from __future__ import annotations

from dataclasses import dataclass

from spectrum.db.losses import answerable
from spectrum.db.pools import Connection, Pool, transaction
from spectrum.db.sql import query

AHEAD_DAYS = 28
_MAKE = query("partitions_make")
_KEYS_EXPIRE = query("keys_expire")
_CIPHERTEXTS_EXPIRE = query("ciphertexts_expire")


async def make_partitions(system: Connection, days: int = AHEAD_DAYS) -> int:
    """Make what is missing of the partitions of the next `days`, as `spectrum_system`. Returns how many were made."""
    made: int = await system.fetchval(_MAKE, days)
    return made


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """The same for whoever has a pool of `spectrum_system`. Methods raise `Unavailable` where PostgreSQL does not answer."""

    system: Pool

    async def make_partitions(self) -> int:
        """Returns how many were missing."""
        with answerable():
            async with transaction(self.system) as connection:
                return await make_partitions(connection)

    async def expire_keys(self, limit: int) -> int:
        """Remove about `limit` idempotency keys that are over, the oldest first. Returns how many."""
        with answerable():
            return _affected(await self.system.execute(_KEYS_EXPIRE, limit))

    async def expire_ciphertexts(self) -> int:
        """Remove remembered answers with a secret whose time is over. Returns how many."""
        with answerable():
            return _affected(await self.system.execute(_CIPHERTEXTS_EXPIRE))


def _affected(status: str) -> int:
    """The number at the end of what PostgreSQL says of a statement that is done."""
    return int(status.rpartition(" ")[2])

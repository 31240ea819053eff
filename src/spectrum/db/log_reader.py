"""Reading the log by position: what a consumer has not had yet, and a cursor that moves once it has it (DESIGN §3.19)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spectrum.core.errors import SpectrumError
from spectrum.db.leading import Leading
from spectrum.db.losses import answerable
from spectrum.db.pools import Pool, transaction
from spectrum.db.sql import query
from spectrum.db.visits import Row

_CURSOR = query("log_reader_cursor")
_BEGIN = query("log_reader_begin")
_READ = query("log_read")
_MOVE = query("log_reader_move")


class LogGap(SpectrumError):
    """The log does not go on where it has to: what is missing was taken out by hand, or is damaged. Nothing is skipped."""


@dataclass(frozen=True, slots=True)
class LogReader:
    """One consumer of a cell's log, such as the relay, as `spectrum_system`; only who leads it reads, and moves its cursor.

    Methods raise `LeadLost`, and `Unavailable` where PostgreSQL does not answer.
    """

    system: Pool
    leading: Leading
    consumer: str

    async def next(self, term: int, limit: int) -> Sequence[Row]:
        """At most `limit` events after the cursor, in the order of their positions, without a gap. Raises `LogGap`."""
        with answerable():
            async with transaction(self.system) as connection:
                await self.leading.hold(connection, term)
                position = await connection.fetchval(_CURSOR, self.consumer)
                if position is None:
                    position = await connection.fetchval(_BEGIN, self.consumer)
                rows = await connection.fetch(_READ, position, limit)
        for expected, row in enumerate(rows, position + 1):
            if row["position"] != expected:
                raise LogGap(
                    f"The log has no event at position {expected}, which {self.consumer} comes to next, but one at"
                    f" {row['position']}. Restore what is missing of the table events; or, where it is lost for good, set the"
                    f" position of {self.consumer} in the table cursors to {row['position'] - 1}."
                )
        return rows

    async def advance(self, term: int, position: int) -> None:
        """Everything up to this position has been dealt with."""
        with answerable():
            async with transaction(self.system) as connection:
                await self.leading.hold(connection, term)
                await connection.execute(_MOVE, self.consumer, position, term)

"""The audit chains as the sealer keeps them: records that have no seal yet get theirs, in one transaction with the heads.

A record waits as long as it has no seal, whatever its id: one whose transaction commits late gets the next number then. So the
order of a chain is the order in which records were sealed, nearly that of time, and what was sealed never changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter

import structlog

from spectrum.core.audit import Head, Record, Seal, is_genuine, seal, sign_head
from spectrum.core.signing import Signer, genuine
from spectrum.db.leading import Leading
from spectrum.db.losses import answerable
from spectrum.db.pools import Connection, Pool, transaction
from spectrum.db.rows import Column, Row, arrays
from spectrum.db.sql import query

_WAITS = query("audit_waits")
_UNSEALED = query("audit_unsealed")
_ENDS = query("audit_ends")
_SEAL = query("audit_seal")
_HEADS_MOVE = query("audit_heads_move")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How many records were sealed, and which organization was the last to be looked at."""

    count: int
    last: str


@dataclass(frozen=True, slots=True)
class AuditChains:
    """The audit chains of a cell, as `spectrum_system`. Methods raise `Unavailable` where PostgreSQL does not answer."""

    system: Pool
    leading: Leading
    signer: Signer

    async def waits(self) -> bool:
        """Whether any record is not sealed yet."""
        with answerable():
            return await self.system.fetchval(_WAITS) is not None

    async def seal(self, term: int, limit: int, after: str = "") -> Progress:
        """Seal up to `limit` records, of the organizations that come after `after` first. Raises `LeadLost`."""
        with answerable():
            async with transaction(self.system) as connection:
                await self.leading.hold(connection, term)
                return await self._seal(connection, limit, after)

    async def _seal(self, connection: Connection, limit: int, after: str) -> Progress:
        rows = await connection.fetch(_UNSEALED, after, limit) or await connection.fetch(_UNSEALED, "", limit)
        if not rows:
            return Progress(0, "")
        now: datetime = rows[0]["now"]
        records = [record_of(row) for row in rows]
        ends = await _ends(connection, sorted({record.organization_id for record in records}))
        sealed: list[tuple[Record, Seal]] = []
        heads: list[Head] = []
        for organization, group in groupby(records, key=lambda record: record.organization_id):
            if organization in ends:
                chained = list(_chained(group, ends[organization], now))
                heads.append(sign_head(organization, chained[-1][1], self.signer.key_id, self.signer.key.sign))
                sealed += chained
        await _write(connection, sealed, heads, now)
        return Progress(len(sealed), records[-1].organization_id)


def _chained(records: Iterable[Record], end: Seal | Head | None, now: datetime) -> Iterable[tuple[Record, Seal]]:
    for record in records:
        end = seal(record, end, now)
        yield record, end


async def _ends(connection: Connection, organizations: Sequence[str]) -> dict[str, Seal | Head | None]:
    """Where each chain ends; None where it has not begun. One whose head is forged is left out: it is not built upon."""
    ends: dict[str, Seal | Head | None] = {}
    for row in await connection.fetch(_ENDS, organizations):
        organization = row["organization_id"]
        end = _end(row)
        if isinstance(end, Head) and not is_genuine(end.as_json(), genuine):
            _log.error("the head of an audit chain was changed: nothing is sealed after it", organization=organization)
            continue
        if isinstance(end, Seal):
            _log.warning("an audit chain had no head: it goes on after its last record", organization=organization)
        ends[organization] = end
    return ends


def _end(row: Row) -> Seal | Head | None:
    if row["number"] is not None:
        return head_of(row)
    if row["last_number"] is not None:
        return Seal(row["last_number"], b"", row["last_hash"], row["last_sealed_at"])
    return None


async def _write(
    connection: Connection, sealed: Sequence[tuple[Record, Seal]], heads: Sequence[Head], now: datetime
) -> None:
    columns: tuple[Column[tuple[Record, Seal]], ...] = (
        lambda s: s[0].id,
        lambda s: s[1].number,
        lambda s: s[1].previous,
        lambda s: s[1].hash,
    )
    await connection.execute(_SEAL, *arrays(sealed, columns), now)
    of_heads = map(attrgetter, ("organization_id", "number", "hash", "key_id", "signature"))
    await connection.execute(_HEADS_MOVE, *arrays(heads, of_heads), now)


def record_of(row: Row) -> Record:
    return Record(**{name: row[name] for name in Record.__slots__})


def seal_of(row: Row) -> Seal | None:
    if row["seal_number"] is None:
        return None
    return Seal(row["seal_number"], row["seal_previous"], row["seal_hash"], row["sealed_at"])


def head_of(row: Row) -> Head:
    return Head(**{name: row[name] for name in Head.__slots__})

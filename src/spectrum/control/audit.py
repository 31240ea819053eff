"""Audit records: the sealer, which chains them one copy at a time (DESIGN §3.20), and reading them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spectrum.control.changes import own
from spectrum.control.commands import Listing, Page
from spectrum.control.leader import Leader
from spectrum.core.access import Principal
from spectrum.core.audit import Head, Record, Seal
from spectrum.core.errors import Problem
from spectrum.db.audit import AuditChains, head_of, record_of, seal_of
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import visiting
from spectrum.ports import Clock, Entropy

BATCH = 1000

_LIST = query("audit_list")
_CHAIN = query("audit_chain")
_HEAD = query("audit_head")


def sealer(chains: AuditChains, clock: Clock, entropy: Entropy, period: float = 1.0) -> Leader:
    """Every copy runs one. `period` is the pause between looks, in seconds."""
    last = ""

    async def work(term: int) -> bool:
        nonlocal last
        if not await chains.waits():
            return False
        done = await chains.seal(term, BATCH, last)
        last = done.last
        return done.count > 0

    return Leader(chains.leading, work, clock, entropy, period)


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """What a list of records is narrowed down to. `after`: sealed records above this number, in the order of their chain."""

    subject: str | None = None
    actor: str | None = None
    action: str | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Who did what to what, and its place in the chain, which it has a moment later."""

    record: Record
    seal: Seal | None

    def as_json(self) -> dict[str, Any]:
        return self.record.as_json(self.seal)


@dataclass(frozen=True, slots=True)
class Audit:
    """The audit records of an organization."""

    pool: Pool

    async def records(self, principal: Principal, page: Page, filters: AuditFilters) -> Listing[AuditRecord]:
        """Oldest first. Raises Problem `invalid-parameter` for a cursor of another list."""
        narrowed = (filters.subject, filters.actor, filters.action)
        chained = filters.after is not None
        start = page.position(filters.after or 0) if chained else page.after
        async with visiting(self.pool, own(principal)) as connection:
            statement = _CHAIN if chained else _LIST
            rows = await connection.fetch(statement, principal.organization, start, page.limit + 1, *narrowed)
        key = "seal_number" if chained else "id"
        records = [AuditRecord(record_of(row), seal_of(row)) for row in rows]
        return Listing.of(records, page, [str(row[key]) for row in rows])

    async def head(self, principal: Principal) -> Head:
        """Where the chain ends. Raises Problem `not-found` where nothing is sealed yet."""
        async with visiting(self.pool, own(principal)) as connection:
            row = await connection.fetchrow(_HEAD, principal.organization)
        if row is None:
            raise Problem("not-found", "No audit record is sealed yet: ask again in a few seconds.")
        return head_of(row)

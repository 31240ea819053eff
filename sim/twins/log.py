"""The twin of the log as one consumer reads it, by position and under a fenced lead (`db.log_reader`, `db.leading`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.hosts import EPOCH
from sim.loop import SimLoop
from sim.twins.store import Logged, MemoryDatabase, MemoryStore
from spectrum.core.events.catalogue import type_of
from spectrum.db.leading import LeadLost


@dataclass
class MemoryLog:
    """What PostgreSQL knows of one consumer: who leads it until when, and how far it has come."""

    database: MemoryDatabase
    holder: str = ""
    term: int = 0
    expires_at: float = 0.0
    position: int = 0

    @property
    def lag(self) -> int:
        return len(self.database.events) - self.position

    def hold(self, term: int) -> None:
        """Raises `LeadLost`."""
        if term != self.term:
            raise LeadLost(f"term {term} is over")


@dataclass
class MemoryLead:
    """One copy's part in it."""

    log: MemoryLog
    store: MemoryStore
    holder: str
    term_seconds: float
    padding_seconds: float
    name: str = field(default="relay")

    async def take(self) -> int | None:
        return await self.store.ask(self._take)

    def _take(self) -> int | None:
        log, now = self.log, SimLoop.current().now
        if log.holder != self.holder and now < log.expires_at + self.padding_seconds:
            return None
        log.holder, log.term, log.expires_at = self.holder, log.term + 1, now + self.term_seconds
        return log.term

    async def renew(self, term: int) -> None:
        def renew() -> None:
            self.log.hold(term)
            self.log.expires_at = SimLoop.current().now + self.term_seconds

        await self.store.ask(renew)

    async def resign(self, term: int) -> None:
        def resign() -> None:
            if self.log.term == term:
                self.log.expires_at = 0.0

        await self.store.ask(resign)


@dataclass
class MemoryReader:
    """What a leader reads, in the order of positions."""

    leading: MemoryLead

    async def next(self, term: int, limit: int) -> Sequence[Mapping[str, Any]]:
        log = self.leading.log

        def read() -> list[Mapping[str, Any]]:
            log.hold(term)
            rows = log.database.events[log.position : log.position + limit]
            return [_row(position, row) for position, row in enumerate(rows, log.position + 1)]

        return await self.leading.store.ask(read)

    async def advance(self, term: int, position: int) -> None:
        log = self.leading.log

        def advance() -> None:
            log.hold(term)
            log.position = max(log.position, position)
            SimLoop.current().changed()

        await self.leading.store.ask(advance)


def _row(position: int, row: Logged) -> Mapping[str, Any]:
    fact = row.fact
    return {
        "id": f"evt_{position}",
        "type": type_of(fact.type),
        "organization_id": row.organization_id,
        "subject": fact.subject,
        "recorded_at": EPOCH,
        "sequence": fact.sequence,
        "position": position,
        "data": fact.data,
        "traceparent": fact.traceparent,
    }

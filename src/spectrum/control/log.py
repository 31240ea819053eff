"""Reading what happened: events in the order of the log, audit records in the order of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spectrum.control.changes import own
from spectrum.control.commands import Listing, Page
from spectrum.core.access import Principal
from spectrum.core.errors import Problem, Where
from spectrum.core.moments import stamp
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import Row, visiting

_EVENT_LIST = query("event_list")
_AUDIT_LIST = query("audit_list")


@dataclass(frozen=True, slots=True)
class Event:
    """A fact in CloudEvents 1.0 form."""

    row: Row

    def as_json(self) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": self.row["id"],
            "type": self.row["type"],
            "source": f"/v1/organizations/{self.row['organization_id']}",
            "subject": self.row["subject"],
            "time": stamp(self.row["recorded_at"]),
            "datacontenttype": "application/json",
            "sequence": str(self.row["sequence"]),
            "position": self.row["position"],
            "traceparent": self.row["traceparent"],
            "data": self.row["data"],
        }


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Who did what to what."""

    row: Row

    def as_json(self) -> dict[str, Any]:
        return {**self.row, "recorded_at": stamp(self.row["recorded_at"])}


@dataclass(frozen=True, slots=True)
class Log:
    """Events and audit records of an organization."""

    pool: Pool

    async def events(self, principal: Principal, page: Page, subject: str | None) -> Listing[Event]:
        """Events after the position that `page.after` is. Only what has a position is there yet."""
        if not page.after.isdigit():
            raise Problem(
                "invalid-parameter",
                "cursor: not of this list; start again without one.",
                (Where("not of this list", "query:cursor"),),
            )
        async with visiting(self.pool, own(principal)) as connection:
            after = min(int(page.after), 2**63 - 1)
            rows = await connection.fetch(_EVENT_LIST, principal.organization, after, page.limit + 1, subject)
        return Listing.of([Event(row) for row in rows], page, [str(row["position"]) for row in rows])

    async def audit(self, principal: Principal, page: Page, subject: str | None) -> Listing[AuditRecord]:
        async with visiting(self.pool, own(principal)) as connection:
            rows = await connection.fetch(_AUDIT_LIST, principal.organization, page.after, page.limit + 1, subject)
        return Listing.of([AuditRecord(row) for row in rows], page, [row["id"] for row in rows])

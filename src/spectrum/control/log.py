"""Reading what happened: events in the order of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spectrum.control.changes import own
from spectrum.control.commands import Listing, Page
from spectrum.core.access import Principal
from spectrum.core.moments import stamp
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import Row, visiting

_EVENT_LIST = query("event_list")


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
class Log:
    """The events of an organization."""

    pool: Pool

    async def events(self, principal: Principal, page: Page, after: int, subject: str | None) -> Listing[Event]:
        """Events after a position. Only what has a position is there yet. Raises Problem `invalid-parameter`."""
        position = page.position(after)
        async with visiting(self.pool, own(principal)) as connection:
            rows = await connection.fetch(_EVENT_LIST, principal.organization, position, page.limit + 1, subject)
        return Listing.of([Event(row) for row in rows], page, [str(row["position"]) for row in rows])

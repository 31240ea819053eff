"""Reading what happened: events in the order of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from spectrum.control.changes import own
from spectrum.control.commands import Listing, Page
from spectrum.core.access import Principal
from spectrum.core.events.envelope import Event
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import visiting

_EVENT_LIST = query("event_list")


class Fields(Protocol):
    """A row, wherever it is from."""

    def __getitem__(self, name: str, /) -> Any: ...


def read(row: Fields) -> Event:
    """The event that a row of the log holds."""
    return Event(
        id=row["id"],
        type=row["type"],
        source=f"/v1/organizations/{row['organization_id']}",
        subject=row["subject"],
        time=row["recorded_at"],
        sequence=row["sequence"],
        position=row["position"],
        data=row["data"],
        traceparent=row["traceparent"],
    )


@dataclass(frozen=True, slots=True)
class Log:
    """The events of an organization."""

    pool: Pool

    async def events(self, principal: Principal, page: Page, after: int, subject: str | None) -> Listing[Event]:
        """Events after a position. Only what has a position is there yet. Raises Problem `invalid-parameter`."""
        position = page.position(after)
        async with visiting(self.pool, own(principal)) as connection:
            rows = await connection.fetch(_EVENT_LIST, principal.organization, position, page.limit + 1, subject)
        return Listing.of([read(row) for row in rows], page, [str(row["position"]) for row in rows])

"""Where facts go, in memory (implements `transports.protocol.Outlet`): it keeps what it is given, in the order in which it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from spectrum.core.events.envelope import Event
from spectrum.transports.protocol import Delivered


@dataclass
class MemoryOutlet:
    """Nothing ever keeps it from taking a fact."""

    trouble: str = ""
    taken: list[Event] = field(default_factory=list)

    async def publish(self, events: Sequence[Event]) -> Delivered:
        self.taken += events
        return Delivered(len(events))

    def drop(self) -> None:
        """Nothing is ever under way."""

    async def rest(self) -> None:
        """There is nothing to hear."""

"""The last stretch of the log, as it is sent to who follows it: kept once for all, in so many bytes and no more."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from spectrum.core.events.envelope import Event

OVERHEAD_BYTES = 512  # of what is kept besides an event's text

_BY_POSITION = attrgetter("position")


@dataclass(frozen=True, slots=True)
class Told:
    """An event with the text that is sent of it: one server-sent event (WHATWG HTML, §9.2), whose id is its position."""

    position: int
    organization: str
    subject: str
    type: str
    text: bytes

    @classmethod
    def of(cls, event: Event, organization: str) -> Told:
        # ASCII alone: some readers of lines end them at U+2028 and its like too.
        text = f"id: {event.position}\ndata: {json.dumps(event.as_json(), separators=(',', ':'))}\n\n"
        return cls(event.position, organization, event.subject, event.type, text.encode())

    @property
    def size(self) -> int:
        return len(self.text) + OVERHEAD_BYTES


@dataclass(slots=True)
class _Feed:
    """An organization's events: all of its own after the position `floor`."""

    floor: int
    events: list[Told] = field(default_factory=list)


class Window:
    """The events after the position where it begins, while they fit into `limit` bytes; of each organization by itself."""

    def __init__(self, begin: int, limit: int) -> None:
        self.position = begin  # how far the log is known here
        self.size = 0
        self._begin = begin
        self._limit = limit
        self._feeds: dict[str, _Feed] = {}
        self._order: deque[Told] = deque()

    def add(self, events: Sequence[Told]) -> set[str]:
        """Go on with the next events of the log; whose they are. The oldest go where there is no room."""
        for event in events:
            self._feed(event.organization).events.append(event)
            self._order.append(event)
            self.size += event.size
            self.position = event.position
        self._make_room()
        return {event.organization for event in events}

    def since(self, organization: str, position: int, most: int) -> Sequence[Told] | None:
        """At most so many events of an organization after a position; None where that lies before what is kept."""
        feed = self._feeds.get(organization)
        if position < (feed.floor if feed else self._begin):
            return None
        if feed is None:
            return ()
        start = bisect_right(feed.events, position, key=_BY_POSITION)
        return feed.events[start : start + most]

    def _feed(self, organization: str) -> _Feed:
        if organization not in self._feeds:
            self._feeds[organization] = _Feed(self._begin)
        return self._feeds[organization]

    def _make_room(self) -> None:
        gone: Counter[str] = Counter()
        while self.size > self._limit:
            event = self._order.popleft()
            self.size -= event.size
            gone[event.organization] += 1
        for organization, count in gone.items():
            feed = self._feeds[organization]
            feed.floor = feed.events[count - 1].position
            del feed.events[:count]

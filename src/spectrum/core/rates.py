"""How much one caller may ask for: a generic cell rate algorithm (ITU-T I.371, annex A), whose whole state is one moment. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

BURST_SECONDS = 30  # of rest are saved up


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests a second in the long run, and `BURST_SECONDS` worth of them at once after a rest.

    The state is `spent_until`: the moment by which what was taken so far is earned again. One that has passed says that nothing
    is owed.
    """

    per_second: float

    @property
    def burst(self) -> float:
        return self.per_second * BURST_SECONDS

    def take(self, spent_until: datetime | None, wanted: int, now: datetime) -> tuple[int, datetime]:
        """How many of `wanted` requests may be made, and what is spent with them."""
        since = max(spent_until or now, now)
        granted = max(0, min(wanted, math.floor(round(self.burst - self._owed(since, now), 3))))
        return granted, since + timedelta(seconds=granted / self.per_second)

    def wait(self, spent_until: datetime, now: datetime) -> float:
        """Seconds until the next request may be made; 0.0 where it may be made now."""
        return max(0.0, (self._owed(spent_until, now) + 1 - self.burst) / self.per_second)

    def _owed(self, spent_until: datetime, now: datetime) -> float:
        return (spent_until - now).total_seconds() * self.per_second

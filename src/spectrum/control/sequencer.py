"""The sequencer: one copy at a time gives every event its position in the log (DESIGN §3.19)."""

from __future__ import annotations

from spectrum.control.leader import Leader
from spectrum.db.log import EventLog
from spectrum.ports import Clock, Entropy

BATCH = 1000
GATHER_SECONDS = 0.02  # events of so long get their positions together


def sequencer(log: EventLog, clock: Clock, entropy: Entropy, period: float = 0.5) -> Leader:
    """Every copy runs one. `period` is the slow poll behind the hints, in seconds."""

    async def work(term: int) -> bool:
        return await log.waits() and (await log.place(term, BATCH)).more

    return Leader(log.leading, work, clock, entropy, period, GATHER_SECONDS)

"""The sequencer: one copy at a time gives every event its position in the log (DESIGN §3.19)."""

from __future__ import annotations

from collections.abc import Callable

from spectrum.control.leader import Leader
from spectrum.db.log import EventLog
from spectrum.ports import Clock, Entropy

BATCH = 1000
GATHER_SECONDS = 0.02  # events of so long get their positions together


def sequencer(
    log: EventLog, clock: Clock, entropy: Entropy, placed: Callable[[], None] = lambda: None, period: float = 0.5
) -> Leader:
    """Every copy runs one. `placed` is called when the log has grown. `period` is the slow poll behind the hints, in seconds."""

    async def work(term: int) -> bool:
        if not await log.waits():
            return False
        done = await log.place(term, BATCH)
        if done.count:
            placed()
        return done.more

    return Leader(log.leading, work, clock, entropy, period, GATHER_SECONDS)

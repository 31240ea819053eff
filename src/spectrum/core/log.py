"""The order of the log: what a batch of events that became visible together is to be read as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Unplaced:
    """An event that has no position yet. `sequence` is gapless per subject."""

    id: str
    subject: str
    sequence: int
    recorded_at: datetime


def in_order(events: Sequence[Unplaced]) -> list[Unplaced]:
    """By the time at which they were recorded, and each subject's by their sequence, whatever the clock said.

    The places of a subject are those that time gives it; which of its events takes which is the sequence's to say.
    """
    by_time = sorted(events, key=lambda event: (event.recorded_at, event.subject, event.sequence))
    by_sequence = sorted(events, key=lambda event: (event.sequence, event.id))
    waiting: dict[str, list[Unplaced]] = {}
    for event in reversed(by_sequence):
        waiting.setdefault(event.subject, []).append(event)
    return [waiting[event.subject].pop() for event in by_time]

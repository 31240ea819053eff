"""When to try again: capped exponential backoff with full jitter, where the jitter is a function of what is retried.

Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015) without a random number: the hash of step and attempt
spreads as well, and a replayed decision is the same decision.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

BASE_SECONDS = 0.5
CAP_SECONDS = 60.0
FLOOR_SECONDS = 0.05
TOLD_SECONDS = 900.0  # that a dependency may ask for; one that asks for more is asked again by then
LONGEST_PAUSE = timedelta(seconds=TOLD_SECONDS + CAP_SECONDS)


def spread(seed: str) -> float:
    """A number in [0, 1), the same for the same seed."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big") / 2**56


def backoff(tries: int, seed: str, told: float | None = None, cap: float = CAP_SECONDS) -> timedelta:
    """How long to wait before try number `tries` + 1. `told` is the dependency's own word, in seconds: not less than that, up
    to `TOLD_SECONDS`.
    """
    ceiling = min(cap, BASE_SECONDS * 2 ** min(tries, 16))
    seconds = max(FLOOR_SECONDS, ceiling * spread(seed))
    if told is not None:
        seconds += min(max(0.0, told), TOLD_SECONDS)
    return timedelta(seconds=seconds)

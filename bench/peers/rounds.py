"""What each engine's program shares: callers that keep jobs under way, and what came of them, one line of JSON a round.

The programs run in an environment of their own, with nothing of SPECTRUM in it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

STEPS = 6


@dataclass
class Steps:
    """When steps begin and end. From the end of one to the beginning of the next, the engine has committed what came of it."""

    commits: list[tuple[float, float]] = field(default_factory=list)
    _ended: dict[str, float] = field(default_factory=dict)

    def done(self, job: str, number: int) -> int:
        """A step that does nothing: step `number` of the job, counted from 0."""
        now = time.time()
        before = self._ended.pop(job, None)
        if before is not None:
            self.commits.append((now, now - before))
        if number < STEPS - 1:
            self._ended[job] = now
        return number


async def play(
    job: Callable[[str], Awaitable[object]], steps: Steps, levels: Sequence[int], warm: float, seconds: float
) -> None:
    """Rounds of `seconds` after `warm`, with so many jobs under way; `job` is given its name and returns at its end."""
    for level in levels:
        start = time.time() + warm
        until = start + seconds
        ended: list[tuple[float, float]] = []
        await asyncio.gather(*(_go_round(job, f"{start}-{number}", until, ended) for number in range(level)))
        took = [each for at, each in ended if start <= at <= until]
        commits = [each for at, each in steps.commits if start <= at <= until]
        print(
            json.dumps({"in_flight": level, "rate": len(took) / seconds, "took": took, "commits": commits}), flush=True
        )


async def _go_round(
    job: Callable[[str], Awaitable[object]], caller: str, until: float, ended: list[tuple[float, float]]
) -> None:
    number = 0
    while (asked := time.time()) < until:
        number += 1
        await job(f"{caller}-{number}")
        ended.append((time.time(), time.time() - asked))

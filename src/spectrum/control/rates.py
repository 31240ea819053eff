"""Keeps one token's flood from being everybody's: requests above a token's rate are refused, over all copies together.

What is spent is a column of the token's row. A copy takes requests from it in blocks, so that one of them costs a write, not
each request; what is left of a block is given up after a while, to the caller's cost and by less than a block for each copy.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from spectrum.core.access import Principal
from spectrum.core.errors import Problem
from spectrum.core.rates import Rate
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import looking_up
from spectrum.ports import Clock

_HOLD = query("token_spending_hold")
_SPEND = query("token_spend")

BLOCK_SECONDS = 0.5  # worth of requests that a copy takes at once
KEPT_SECONDS = 5.0
MOST_KNOWN = 1_000


@dataclass
class _Block:
    """What this copy may still let through for one token, or until when nothing. Moments are of the monotonic clock."""

    left: int = 0
    until: float = 0.0
    refused_until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class Rates:
    """Admits requests. Without a rate, all of them."""

    system: Pool
    rate: Rate | None
    clock: Clock
    _blocks: dict[str, _Block] = field(default_factory=dict)

    async def admit(self, principal: Principal) -> None:
        """Count a request of this principal. Raises Problem `rate-limited`, or `unavailable`."""
        if self.rate is None:
            return
        block = self._block(principal.actor)
        async with block.lock:  # whoever comes meanwhile shares the block that is being taken
            if block.left == 0 or block.until <= self.clock.monotonic():
                await self._refill(block, principal.actor.removeprefix("token:"), self.rate)
            block.left -= 1

    def _block(self, actor: str) -> _Block:
        if len(self._blocks) >= MOST_KNOWN:
            now = self.clock.monotonic()
            live = {a: b for a, b in self._blocks.items() if b.lock.locked() or max(b.until, b.refused_until) > now}
            self._blocks = live
        return self._blocks.setdefault(actor, _Block())

    async def _refill(self, block: _Block, token_id: str, rate: Rate) -> None:
        began = self.clock.monotonic()
        if block.refused_until > began:
            raise _refused(rate, block.refused_until - began)
        async with looking_up(self.system) as connection:
            (row,) = await connection.fetch(_HOLD, token_id)
            granted, spent = rate.take(row["spent_until"], max(1, int(rate.per_second * BLOCK_SECONDS)), row["now"])
            if granted:
                await connection.execute(_SPEND, token_id, spent)
        if not granted:
            wait = rate.wait(spent, row["now"])
            block.refused_until = began + wait
            raise _refused(rate, wait)
        block.left, block.until = granted, began + KEPT_SECONDS


def _refused(rate: Rate, wait: float) -> Problem:
    seconds = max(1, math.ceil(wait))
    return Problem(
        "rate-limited",
        f"This token has made more than {rate.per_second:g} requests a second for a while. Wait {seconds} s, and use `wait` or"
        " the log of events instead of asking again and again.",
        extra={"retry_after": seconds},
    )

"""Upkeep: what the database needs done over the hours and days, by every copy, harmlessly beside the others."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from spectrum.core.errors import Problem
from spectrum.core.jobs.store import Unavailable
from spectrum.db.upkeep import Housekeeping
from spectrum.ports import Clock, Entropy

PERIOD_SECONDS = 300.0
DAY_SECONDS = 86_400.0
PAGE = 1000

_log = structlog.get_logger(__name__)


@dataclass
class Upkeep:
    """Expires remembered answers every `period` seconds, and makes partitions ahead once a day."""

    database: Housekeeping
    clock: Clock
    entropy: Entropy
    period: float = PERIOD_SECONDS
    _partitions_due: float = float("-inf")

    async def run(self) -> None:
        while True:
            try:
                await self.once()
            except (Unavailable, Problem) as error:
                _log.warning("upkeep failed; it is tried again", error=str(error))
            except Exception:
                _log.exception("upkeep failed as it should not; it is tried again")
            await self.clock.sleep(self.period * (0.5 + self.entropy.uniform()))

    async def once(self) -> None:
        """One round."""
        if self.clock.monotonic() >= self._partitions_due:
            made = await self.database.make_partitions()
            self._partitions_due = self.clock.monotonic() + DAY_SECONDS
            _log.info("partitions made ahead", count=made)
        await self.database.expire_ciphertexts()
        while await self.database.expire_keys(PAGE) >= PAGE:
            pass

"""The sequencer: one copy at a time gives every event its position in the log (DESIGN §3.19)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from spectrum.core.errors import Problem
from spectrum.core.jobs.store import Unavailable
from spectrum.db.leading import LeadLost
from spectrum.db.log import EventLog
from spectrum.ports import Clock, Entropy

TERM_SECONDS = 6.0
RENEW_SECONDS = 2.0
PADDING_SECONDS = 1.0  # a leader that renews in time is never taken over
BATCH = 1000
GATHER_SECONDS = 0.02  # events of so long get their positions together

_log = structlog.get_logger(__name__)


@dataclass
class Sequencer:
    """Every copy runs one; the one that leads works. `period` is the slow poll behind the hints, in seconds."""

    log: EventLog
    clock: Clock
    entropy: Entropy
    period: float = 0.5
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def nudge(self) -> None:
        """Something was committed: look now. A hint; losing one costs a period."""
        self._news.set()

    async def run(self) -> None:
        while True:
            try:
                await self._lead_if_nobody_does()
            except (Unavailable, Problem, LeadLost) as error:
                _log.info("the lead of the log ended", reason=str(error))
            except Exception:
                # Nobody else may lead before this copy lets go, and this one goes on: a mistake must not stop the log for good.
                _log.exception("the lead of the log ended as it should not")
            await self.clock.sleep(RENEW_SECONDS * (0.5 + self.entropy.uniform()))

    async def _lead_if_nobody_does(self) -> None:
        term = await self.log.leading.take()
        if term is None:
            return
        _log.info("leads the log", term=term)
        try:
            await self._lead(term)
        except asyncio.CancelledError:
            await self.log.leading.resign(term)
            raise

    async def _lead(self, term: int) -> None:
        renewed = self.clock.monotonic()
        while True:
            self._news.clear()
            if not await self.log.waits() or not (await self.log.place(term, BATCH)).more:
                await self._wait_for_news()
                await self.clock.sleep(GATHER_SECONDS)
            if self.clock.monotonic() - renewed >= RENEW_SECONDS:
                await self.log.leading.renew(term)
                renewed = self.clock.monotonic()

    async def _wait_for_news(self) -> None:
        try:
            async with asyncio.timeout(self.period):
                await self._news.wait()
        except TimeoutError:
            return

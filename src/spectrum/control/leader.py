"""What one copy at a time does: every copy runs it, the one that leads works in rounds under its term, the others are ready."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from spectrum.core.errors import Problem
from spectrum.core.jobs.store import Unavailable
from spectrum.db.leading import LeadLost
from spectrum.ports import Clock, Entropy

TERM_SECONDS = 6.0
RENEW_SECONDS = 2.0
PADDING_SECONDS = 1.0  # a leader that renews in time is never taken over

_log = structlog.get_logger(__name__)


class Lead(Protocol):
    """Who leads, as one copy takes part in it (`db.leading.Leading`)."""

    @property
    def name(self) -> str: ...

    async def take(self) -> int | None: ...

    async def renew(self, term: int) -> None: ...

    async def resign(self, term: int) -> None: ...


@dataclass
class Leader:
    """`work` does one round under a term and says whether there is more to do at once. `period` is the pause after the last, in
    seconds, unless there are news; news of `gather` seconds are worked on together. `let_go` is called when a lead has ended."""

    leading: Lead
    work: Callable[[int], Awaitable[bool]]
    clock: Clock
    entropy: Entropy
    period: float
    gather: float = 0.0
    let_go: Callable[[], None] = lambda: None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def nudge(self) -> None:
        """Something was committed: look now. A hint; losing one costs a period."""
        self._news.set()

    async def run(self) -> None:
        while True:
            try:
                await self._lead_if_nobody_does()
            except (Unavailable, Problem, LeadLost) as error:
                _log.info("a lead ended", name=self.leading.name, reason=str(error))
            except Exception:
                # Nobody else may lead before this copy lets go, and this one goes on: a mistake must not stop it for good.
                _log.exception("a lead ended as it should not", name=self.leading.name)
            await self.clock.sleep(RENEW_SECONDS * (0.5 + self.entropy.uniform()))

    async def _lead_if_nobody_does(self) -> None:
        term = await self.leading.take()
        if term is None:
            return
        _log.info("leads", name=self.leading.name, term=term)
        try:
            await self._lead(term)
        except asyncio.CancelledError:
            await self.leading.resign(term)
            raise
        finally:
            self.let_go()

    async def _lead(self, term: int) -> None:
        renewed = self.clock.monotonic()
        while True:
            self._news.clear()
            if not await self.work(term):
                await self._wait_for_news()
                await self.clock.sleep(self.gather)
            if self.clock.monotonic() - renewed >= RENEW_SECONDS:
                await self.leading.renew(term)
                renewed = self.clock.monotonic()

    async def _wait_for_news(self) -> None:
        try:
            async with asyncio.timeout(self.period):
                await self._news.wait()
        except TimeoutError:
            return

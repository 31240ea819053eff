"""The worker: one incarnation after another, each with a lease, a heartbeat, and the jobs that it claimed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from spectrum import tracing
from spectrum.core.errors import Problem
from spectrum.core.ids import JobId
from spectrum.core.jobs.commands import Holding
from spectrum.core.jobs.table import WaitsFor
from spectrum.core.plan import Catalog
from spectrum.core.retry import backoff
from spectrum.ports import Clock, Entropy, Spawner
from spectrum.providers.protocol import Provider
from spectrum.telemetry import bound
from spectrum.transports.protocol import Handback, Hints, Incarnation, Link, LinkDown, LongPollsAlone, News
from spectrum.worker.context import Renderer
from spectrum.worker.errands import Errands
from spectrum.worker.run import JobRun, Means
from spectrum.worker.spool import Spool

POLL_SECONDS = 10.0
FULL_SECONDS = 1.0  # of a poll while there is no room for looks
ELSEWHERE_SECONDS = 15.0
LEASE_MARGIN = 0.75  # of a lease: no new effect is begun after that much of it

_log = structlog.get_logger(__name__)


class _Over(Exception):
    """This incarnation has ended."""


@dataclass
class Worker:
    """Claims jobs of its pool and runs them on one target. `capacity` is how many at a time."""

    link: Link
    providers: Mapping[str, Provider]  # by the target's URL
    catalog: Catalog
    renderer: Renderer
    clock: Clock
    entropy: Entropy
    spawner: Spawner
    spool: Spool
    capacity: int = 16
    hints: Hints = field(default_factory=LongPollsAlone)
    errands: Errands = field(init=False)
    _runs: dict[tuple[JobId, int], JobRun] = field(default_factory=dict)
    _foreign: set[tuple[JobId, int]] = field(default_factory=set)  # being handed back
    _right_until: float = 0.0
    _claim_seen: int = 0
    _draining: bool = False
    _asking: bool = False  # for jobs: what is granted meanwhile is handed back too
    _full: bool = False  # after the last claim there was no room for more
    _stir: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.errands = Errands(self.link, self.providers, self.clock, self.spawner)

    async def run(self) -> None:
        """Work until drained. An incarnation that has ended is followed by the next."""
        boot = self.entropy.token(16).hex()
        while not self._draining:
            try:
                incarnation, left = await self._start(boot)
                boot = self.entropy.token(16).hex()
                await self._deliver_spool(incarnation)
                await self._serve(incarnation, left)
            except _Over:
                _log.info("incarnation ended; starting the next")
            finally:
                self._lose_all()

    async def drain(self) -> None:
        """Claim nothing new, and hand back what runs as soon as no call of it is under way."""
        self._draining = True
        for run in list(self._runs.values()):
            run.hand_back()
        while self._runs or self._asking:
            await self.clock.sleep(0.1)

    async def _start(self, boot: str) -> tuple[Incarnation, float]:
        tries = 0
        while True:
            left = self.clock.monotonic()
            try:
                return await self.link.start(boot), left
            except LinkDown:
                tries += 1
                await self.clock.sleep(backoff(min(tries, 4), f"{boot}:{tries}").total_seconds())

    async def _deliver_spool(self, incarnation: Incarnation) -> None:
        """What an earlier incarnation could not report: refused by now, but kept as evidence (DESIGN §3.5).

        They travel together, so that one of which nothing is heard holds up no other (P19), and the first heartbeat is not late.
        """
        await asyncio.gather(*(self._deliver_spooled(incarnation, news) for news in self.spool.all()))

    async def _deliver_spooled(self, incarnation: Incarnation, news: News) -> None:
        try:
            await self.link.report(incarnation, news)
        except LinkDown:
            return
        except Problem as problem:
            _log.info("spooled report refused", job_id=news.job_id, problem=problem.slug)
        self.spool.drop(news)

    async def _serve(self, incarnation: Incarnation, left: float) -> None:
        self._right_until = left + incarnation.lease_seconds * LEASE_MARGIN
        self._claim_seen = 0
        self.hints.listen(incarnation.hints, self._stir.set)
        beating = self.spawner.spawn(self._beat(incarnation), "heartbeat")
        claiming = self.spawner.spawn(self._claim(incarnation), "claim")
        try:
            # A worker that drains has claimed its last job long before the last of them is handed back: its lease lives until then.
            done, _ = await asyncio.wait({beating, claiming}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            beating.cancel()
            claiming.cancel()
            # Both may have found out at the same time that the incarnation is over.
            await asyncio.gather(beating, claiming, return_exceptions=True)

    # ---- the lease

    async def _beat(self, incarnation: Incarnation) -> None:
        """Keep the lease alive. A failed heartbeat says nothing about ownership: it is tried again."""
        number = 0
        while not (self._draining and not self._runs):
            number += 1
            left = self.clock.monotonic()
            held = (*self._runs, *self._foreign)
            try:
                pulse = await self.link.beat(incarnation, number, self._claim_seen, held)
            except LinkDown:
                await self.clock.sleep(min(1.0, incarnation.heartbeat_seconds))
                continue
            except Problem as problem:
                raise _Over from problem
            self._right_until = max(self._right_until, left + incarnation.lease_seconds * LEASE_MARGIN)
            for pair in pulse.lost:
                if run := self._runs.get(pair):
                    run.lose()
            for (job_id, _), run in list(self._runs.items()):
                if job_id in pulse.cancels:
                    run.cancel()
            await self.clock.sleep(incarnation.heartbeat_seconds)

    async def _right(self) -> None:
        while self.clock.monotonic() >= self._right_until:
            await self.clock.sleep(0.2)

    # ---- claiming

    async def _claim(self, incarnation: Incarnation) -> None:
        number = 0
        polling: asyncio.Task[None] | None = None
        try:
            while not self._draining:
                self._stir.clear()
                want = self._room()
                granted = 0
                if want > 0:
                    number += 1
                    self._asking = True
                    try:
                        with self.hints.dealing():
                            holdings = await self._claim_once(incarnation, number, want)
                        self._claim_seen = number
                        granted = len(holdings)
                        for holding in holdings:
                            self._run(incarnation, holding)
                    finally:
                        self._asking = False
                    self._full = self._room() == 0
                    self.hints.hold(self._full)
                if granted < max(want, 1):
                    polling = polling or self._begin_poll(incarnation)
                    if await self._ended(polling):
                        polling = None
        finally:
            if polling is not None:
                polling.cancel()
                await asyncio.gather(polling, return_exceptions=True)

    def _begin_poll(self, incarnation: Incarnation) -> asyncio.Task[None]:
        polling = self.spawner.spawn(self._poll(incarnation), "poll")
        polling.add_done_callback(lambda _: self._stir.set())
        return polling

    async def _ended(self, polling: asyncio.Task[None]) -> bool:
        """Until the poll has ended, or a run has, which makes room for a job that there may be no hint of any more: whether it
        was the poll. One that goes on may still bring errands.
        """
        if not polling.done():
            await self._stir.wait()
        if polling.done():
            polling.result()
        return polling.done()

    def _room(self) -> int:
        """How many jobs more may be claimed: none beside one that has been the end of several workers."""
        if any(run.job.alone for run in self._runs.values()):
            return 0
        return self.capacity - len(self._runs)

    async def _claim_once(self, incarnation: Incarnation, number: int, want: int) -> list[Holding]:
        tries = 0
        while True:
            try:
                return list(await self.link.claim(incarnation, number, want, bool(self._runs)))
            except LinkDown:
                tries += 1
                pause = backoff(min(tries, 3), f"{incarnation.lease_id}:{number}:{tries}")
                await self.clock.sleep(pause.total_seconds())
            except Problem as problem:
                raise _Over from problem

    async def _poll(self, incarnation: Incarnation) -> None:
        """Until there may be a job to claim, or it is time to look for one unasked. Errands are taken up meanwhile.

        A hint that comes on another way ends no poll: what waits for it is stirred.
        """
        end = self.clock.monotonic() + POLL_SECONDS
        while not self._draining and (left := end - self.clock.monotonic()) > 0:
            room, work = self.errands.room, not self.hints.listening
            seconds = left if room.looks else min(left, FULL_SECONDS)
            try:
                polled = await self.link.poll(incarnation, seconds, room, work=work)
            except LinkDown:
                await self.clock.sleep(1.0)
                return
            except Problem as problem:
                raise _Over from problem
            self.errands.take(incarnation, polled.requests)
            if polled.work:
                return

    def _run(self, incarnation: Incarnation, holding: Holding) -> None:
        means = Means(
            self.link, self.catalog, self.renderer, self.clock, self.spawner, self.spool, incarnation, self._right
        )
        provider = self.providers.get(holding.target_url)
        if provider is None:
            # Before the next heartbeat, which would else say that it never arrived: a rescue.
            self._foreign.add((holding.job.id, holding.job.fence))
            self.spawner.spawn(self._hand_back(incarnation, holding), f"hand back {holding.job.id}")
            return
        run = JobRun(means, provider, holding)
        if self._draining:  # it was asked for before
            run.hand_back()
        key = (holding.job.id, holding.job.fence)
        self._runs[key] = run

        async def until_done() -> None:
            try:
                with bound(job_id=holding.job.id, instance_id=holding.instance.id, trace_id=tracing.id_of(holding.job)):
                    await run.run()
            finally:
                self._runs.pop(key, None)
                if self._full:
                    self._stir.set()

        self.spawner.spawn(until_done(), f"job {holding.job.id}")

    async def _hand_back(self, incarnation: Incarnation, holding: Holding) -> None:
        """Another worker of the pool may reach the target."""
        _log.error("a job is on a target that this worker was not given", target=holding.target_url)
        job = holding.job
        handback = Handback(
            job.organization_id,
            holding.instance.id,
            job.id,
            job.fence,
            holding.at + timedelta(seconds=ELSEWHERE_SECONDS),
            WaitsFor.WORKER,
            f"a worker that was given {holding.target_url}",
        )
        tries = 0
        try:
            # Not to list it in a heartbeat would hand it back too, but would count as a loss.
            while True:
                try:
                    await self.link.release(incarnation, handback)
                    return
                except LinkDown:
                    tries += 1
                    await self.clock.sleep(backoff(min(tries, 4), f"{job.id}:{job.fence}:{tries}").total_seconds())
        except Problem as problem:
            _log.info("release refused", job_id=job.id, problem=problem.slug)
        finally:
            self._foreign.discard((job.id, job.fence))

    def _lose_all(self) -> None:
        for run in list(self._runs.values()):
            run.lose()
        self._runs.clear()

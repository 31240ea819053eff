"""The relay: one copy at a time brings the log to Kafka, batch by batch, and skips nothing (DESIGN §3.19).

A batch is read by position, sent, acknowledged, and only then the cursor moves: every fact arrives at least once. While Kafka is
away or hangs, the log itself is the buffer: one batch is under way, and stays so; what follows waits behind the cursor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog
from opentelemetry.trace import SpanKind

from spectrum import tracing
from spectrum.control.leader import Lead, Leader
from spectrum.control.log import Fields, read
from spectrum.core.events.envelope import Event
from spectrum.db.log_reader import LogGap
from spectrum.ports import Clock, Entropy, Spawner
from spectrum.transports.protocol import Delivered, Outlet

CONSUMER = "relay"
BATCH = 1000
ROUND_SECONDS = 1.0  # between rounds a lead is renewed, however long a batch is under way
RETRY_SECONDS = 1.0
STALL_SECONDS = 8.0  # longer than what a client library needs to find out why

_log = structlog.get_logger(__name__)


class Reader(Protocol):
    """The log, as its consumer reads it (`db.log_reader.LogReader`)."""

    @property
    def leading(self) -> Lead: ...

    async def next(self, term: int, limit: int) -> Sequence[Fields]: ...

    async def advance(self, term: int, position: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Sending:
    """A batch that is under way, since when by the monotonic clock and by that of the wall."""

    events: tuple[Event, ...]
    task: asyncio.Task[Delivered]
    since: float
    began: datetime


@dataclass
class Relay:
    """What a leader does in its rounds. `batch` is how many events go together at most."""

    reader: Reader
    outlet: Outlet
    clock: Clock
    spawner: Spawner
    batch: int = BATCH
    _sending: _Sending | None = field(default=None, init=False)
    _width: int = field(init=False)
    _told: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._width = self.batch

    async def work(self, term: int) -> bool:
        """One round under a term: whether there is more to do at once."""
        sending = self._sending or await self._send(term)
        if sending is None:
            await self.outlet.rest()
            return False
        await asyncio.wait({sending.task}, timeout=ROUND_SECONDS)
        if not sending.task.done():
            self._notice(sending)
            return True
        self._sending = None
        await self._settle(term, sending, sending.task.result())
        return True

    def let_go(self) -> None:
        """The lead has ended: what is under way is somebody else's business now."""
        if self._sending is not None:
            self._sending = None
            self.outlet.drop()

    async def _send(self, term: int) -> _Sending | None:
        try:
            rows = await self.reader.next(term, self._width)
        except LogGap as gap:
            self._tell(str(gap))
            return None
        if not rows:
            return None
        events = tuple(read(row) for row in rows)
        task = self.spawner.spawn(self.outlet.publish(events), "facts")
        self._sending = _Sending(events, task, self.clock.monotonic(), self.clock.now())
        return self._sending

    async def _settle(self, term: int, sending: _Sending, delivered: Delivered) -> None:
        if delivered.count:
            await self.reader.advance(term, sending.events[delivered.count - 1].position)
            self._trace(sending, delivered.count)
        if delivered.count == len(sending.events):
            self._width = min(2 * self._width, self.batch)
            self._tell("")
            return
        # One by one from here: what comes after a fact that is refused would only be sent again and again.
        self._width = 1
        self._tell(delivered.refusal, position=sending.events[delivered.count].position)
        await self.clock.sleep(RETRY_SECONDS)

    def _trace(self, sending: _Sending, count: int) -> None:
        if not tracing.on():
            return
        now = self.clock.now()
        for event in sending.events[:count]:
            about = {"spectrum.subject": event.subject, "spectrum.position": event.position}
            name = f"publish {event.type}"
            tracing.tell(name, event.traceparent, sending.began, now, kind=SpanKind.PRODUCER, about=about)

    def _notice(self, sending: _Sending) -> None:
        if self.clock.monotonic() - sending.since >= STALL_SECONDS:
            silent = "nothing is acknowledged: check that the brokers run, and can be reached from here"
            self._tell(self.outlet.trouble or silent, position=sending.events[0].position)

    def _tell(self, trouble: str, **where: int) -> None:
        """Say once that facts wait, and why; and once that they go on. Nothing is skipped meanwhile."""
        if trouble == self._told:
            return
        self._told = trouble
        if trouble:
            _log.warning("facts wait in the log", why=trouble, **where)
        else:
            _log.info("facts go on")


def relay(
    reader: Reader,
    outlet: Outlet,
    clock: Clock,
    entropy: Entropy,
    spawner: Spawner,
    period: float = 0.5,
    batch: int = BATCH,
) -> Leader:
    """Every copy runs one. `period` is the slow poll behind the hints, in seconds."""
    made = Relay(reader, outlet, clock, spawner, batch)
    return Leader(reader.leading, made.work, clock, entropy, period, let_go=made.let_go)

"""The twin of Kafka: facts that it keeps, hints that it hands out, and the ways in which a broker is of no use.

It can be away (connections are refused), hang (nothing is answered, and what was sent arrives once it goes on), and lose its disk:
topics are gone then, with all that they held. Hints get lost, doubled and turned around at any time, and groups rebalance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sim.hosts import require_alive
from sim.loop import SimLoop
from sim.marks import declare, sometimes
from sim.twins.faults import SLOW, Faults
from spectrum.core.events.envelope import Event
from spectrum.core.jobs.commands import Hint
from spectrum.transports.protocol import Delivered, hints_topic

LOST = declare("a hint was lost", "a slow poll finds the job all the same")
DOUBLED = declare("a hint came twice", "claiming asks the database, so it costs one look")
DEAF = declare("a worker heard no hints for a while", "long polls take over")
WAITED = declare("facts waited for a broker", "the log is the buffer: nothing is skipped")
GONE = declare("a broker lost its disk", "what it had not acknowledged comes again, what it had is in the log")

SESSION_SECONDS = 5.0  # after which a listener knows that nothing comes
REMEMBERED = 100  # hints of a topic that a member may be told again after a rebalance


@dataclass
class MemoryKafka:
    """One broker. `facts` are what it took, in its order, over all lives of its disk."""

    faults: Faults
    up: bool = True
    hangs: bool = False
    has_topics: bool = True
    facts: list[Event] = field(default_factory=list)
    acknowledged: int = 0  # the highest position that was promised to be kept
    members: dict[str, MemoryHints] = field(default_factory=dict)  # a restart takes the place of what was killed
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def serves(self) -> bool:
        return self.up and not self.hangs

    def be(self, *, up: bool = True, hangs: bool = False) -> None:
        """Come and go."""
        self.up, self.hangs = up, hangs
        SimLoop.current().tell(f"Kafka {'hangs' if hangs else 'is there' if up else 'is away'}", "nemesis")
        self._stir()

    def lose_disk(self) -> None:
        """Topics and group offsets are gone until somebody makes them again."""
        sometimes(GONE)
        self.has_topics = False
        self._stir()

    def make_topics(self) -> None:
        self.has_topics = True
        self._stir()

    def rebalance(self) -> None:
        """Every member loses its partitions for a moment, and is told again what it may not have dealt with."""
        for ear in self.members.values():
            ear.hear_again()

    async def change(self) -> None:
        """Until it is another than it was."""
        await self._changed.wait()

    def _stir(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for ear in self.members.values():
            ear.notice()

    # ---- hints

    def tell(self, hints: Sequence[Hint]) -> None:
        """As a control plane's sender does: without waiting, and without a word about what became of them."""
        require_alive()
        for hint in hints:
            if not self.serves or not self.has_topics or self.faults.strikes("hint lost"):
                sometimes(LOST)
                continue
            loop = SimLoop.current()
            loop.later(self.faults.delay("hint"), self._hand_out, hint)
            if self.faults.strikes("hint doubled"):
                sometimes(DOUBLED)
                loop.later(self.faults.one_of("hint again", SLOW), self._hand_out, hint)

    def _hand_out(self, hint: Hint) -> None:
        """To the member that has the instance's partition."""
        members = [ear for ear in self.members.values() if ear.topic == hints_topic(hint.pool_id) and ear.listening]
        if members and self.serves:
            self.faults.one_of("hint partition", members).take()


class MemoryHints:
    """One worker's hearing (implements `transports.protocol.Hints`), in one life of it."""

    def __init__(self, kafka: MemoryKafka, member: str) -> None:
        self.topic = ""
        self.member = member
        self.listening = False
        self._kafka = kafka
        self._heard: Callable[[], None] = lambda: None
        self._waiting = 0  # that were not handed on, since there was no room
        self._dealt_with = True
        self._full = False

    def listen(self, topic: str, heard: Callable[[], None]) -> None:
        self.topic, self._heard = topic, heard
        self._kafka.members[self.member] = self
        self.notice()

    @contextmanager
    def dealing(self) -> Iterator[None]:
        waiting = self._waiting
        yield
        self._waiting -= min(waiting, self._waiting)
        self._dealt_with = True

    def hold(self, full: bool) -> None:
        let_go, self._full = self._full and not full, full
        if let_go and self._waiting:
            self.take()

    async def close(self) -> None:
        self.listening = False
        if self._kafka.members.get(self.member) is self:
            del self._kafka.members[self.member]

    # ---- what the broker does

    def take(self) -> None:
        if self._full:
            self._waiting = min(self._waiting + 1, REMEMBERED)
            return
        self._dealt_with = False
        self._heard()

    def hear_again(self) -> None:
        if self.listening and not self._dealt_with:
            self.take()

    def notice(self) -> None:
        """The broker came or went; that it went shows a while later."""
        there = bool(self.topic) and self._kafka.serves and self._kafka.has_topics
        if there and not self.listening:
            self.listening = True
            self._heard()
        elif self.listening and not there:
            SimLoop.current().later(SESSION_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.listening and not (self._kafka.serves and self._kafka.has_topics):
            sometimes(DEAF)
            self.listening = False
            self._heard()


@dataclass
class MemoryFacts:
    """One relay's way to the broker (implements `transports.protocol.Outlet`)."""

    kafka: MemoryKafka
    trouble: str = ""
    _dropped: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, events: Sequence[Event]) -> Delivered:
        """In order; what is on its way when the relay lets go may arrive all the same, a prefix of it."""
        self._dropped = dropped = asyncio.Event()
        kafka, loop = self.kafka, SimLoop.current()
        while not kafka.serves:
            sometimes(WAITED)
            self.trouble = "brokers are down" if not kafka.up else ""
            if kafka.hangs and kafka.faults.strikes("facts on their way"):
                loop.later(kafka.faults.one_of("facts late", SLOW), self._land, tuple(events))
            await _first(kafka.change(), dropped.wait())
            if dropped.is_set():
                return Delivered(0, "it was dropped")
        await asyncio.sleep(kafka.faults.delay("facts"))
        if not kafka.serves:
            return Delivered(0, "the connection broke")
        if not kafka.has_topics:
            return Delivered(0, "Unknown topic")
        count = len(events)
        if kafka.faults.strikes("facts cut"):
            count = kafka.faults.one_of("facts cut at", list(range(count + 1)))
        kafka.facts += events[:count]
        if kafka.faults.strikes("facts unacknowledged"):
            return Delivered(0, "the acknowledgement was lost")
        if count:
            kafka.acknowledged = max(kafka.acknowledged, events[count - 1].position or 0)
        self.trouble = ""
        return Delivered(count, "" if count == len(events) else "the connection broke")

    def _land(self, events: Sequence[Event]) -> None:
        if self.kafka.up and self.kafka.has_topics:
            self.kafka.facts += events

    def drop(self) -> None:
        self._dropped.set()

    async def rest(self) -> None:
        """There is nothing to hear."""


async def _first(*awaited: object) -> None:
    tasks = [asyncio.ensure_future(each) for each in awaited]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

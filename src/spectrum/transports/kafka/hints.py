"""Hints by Kafka: the control plane tells after a commit, the workers of a pool share what is told (DESIGN §3.3).

A topic for each pool, records by instance. What a record says is nobody's command: that there is one is the hint, and claiming asks
PostgreSQL. So whatever is lost, doubled, turned around or damaged on this way costs only time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from spectrum.core.errors import SpectrumError
from spectrum.core.jobs.commands import Hint
from spectrum.ports import Spawner
from spectrum.settings import Kafka
from spectrum.transports.kafka import topics
from spectrum.transports.kafka.connection import configuration, explained
from spectrum.transports.protocol import hints_topic

KEPT = 10_000  # hints that wait to be sent, and as many that wait for their acknowledgement: what is more is lost
ROUND_SECONDS = 1.0
AGAIN_SECONDS = 30.0  # between two tries to make a topic that is missing

POLL_SECONDS = 0.1
PULSE_SECONDS = 2.0
PULSE_PATIENCE = 1.0
DEAF_SECONDS = 5.0  # without a pulse, after which long polls are to bring hints
RENEWAL_SECONDS = 2.0
AT_ONCE = 1000  # records that are taken together
CLOSE_SECONDS = 5.0

_PRODUCER = {
    "acks": 1,
    "linger.ms": 0,
    "message.timeout.ms": 5_000,  # older ones were found by those who look unasked
    "queue.buffering.max.messages": KEPT,
    "topic.metadata.propagation.max.ms": 1_000,
    "topic.metadata.refresh.interval.ms": 15_000,
    "partitioner": "murmur2_random",
}
_CONSUMER = {
    "group.protocol": "consumer",
    "enable.auto.commit": False,
    "auto.offset.reset": "latest",  # who comes new looks for work unasked, first of all
    "topic.metadata.refresh.interval.ms": 15_000,
    "fetch.error.backoff.ms": 100,
    "logger": logging.getLogger("kafka.ear"),
}

_log = structlog.get_logger(__name__)
# The end of a consumer is no news: another follows, and what keeps that from hearing is told once.
logging.getLogger("kafka.ear").addHandler(logging.NullHandler())
logging.getLogger("kafka.ear").propagate = False


# ---- the control plane's side


class HintSender:
    """Tells hints without anybody waiting for it; `lost` is called with the number of those that did not arrive."""

    def __init__(self, kafka: Kafka, spawner: Spawner, lost: Callable[[int], None] = lambda count: None) -> None:
        self._kafka = kafka
        self._spawner = spawner
        self._lost = lost
        self._waiting: deque[Hint] = deque(maxlen=KEPT)
        self._stir = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "kafka-hints")
        self._producer: Producer | None = None
        self._trouble = ""
        self._doubtful: dict[str, float] = {}  # topics that may be missing, and when each was last looked at
        self._looking: asyncio.Task[None] | None = None

    def tell(self, hints: Sequence[Hint]) -> None:
        """Soon. While Kafka is away the newest are kept, and those not for long."""
        if dropped := max(0, len(self._waiting) + len(hints) - KEPT):
            self._lost(dropped)
        self._waiting.extend(hints)
        self._stir.set()

    async def run(self) -> None:
        """Send what is told, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(ROUND_SECONDS):
                    await self._stir.wait()
            self._stir.clear()
            try:
                self._send()
            except KafkaException as error:
                self._tell_trouble(explained(error.args[0]))
                self._renew()
            except SpectrumError as error:
                self._tell_trouble(str(error))
            self._look_after_topics()

    async def close(self) -> None:
        """What was not sent is lost."""
        self._renew()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self) -> None:
        """Neither call waits for anything."""
        producer = self._opened()
        while self._waiting:
            hint = self._waiting.popleft()
            value = json.dumps({"job_id": hint.job_id}).encode()
            try:
                producer.produce(hints_topic(hint.pool_id), value, hint.instance_id, on_delivery=self._noted)
            except BufferError:
                self._lost(1)
        producer.poll(0)

    def _opened(self) -> Producer:
        if self._producer is None:
            events: dict[str, Any] = {"error_cb": self._hear}
            self._producer = Producer({**configuration(self._kafka), **_PRODUCER, **events})
        return self._producer

    def _renew(self) -> None:
        """The next producer reads the files of the settings, and what topics there are, anew."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(0)

    def _noted(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._tell_trouble("")
            return
        self._lost(1)
        topic = message.topic() or ""
        if error.code() != KafkaError._PURGE_QUEUE:
            self._doubtful.setdefault(topic, -AGAIN_SECONDS)  # a topic that vanished shows as silence
        if error.code() not in (KafkaError._PURGE_QUEUE, *topics.MISSING):
            self._tell_trouble(explained(error, topic))

    def _hear(self, error: KafkaError) -> None:
        self._tell_trouble(explained(error))

    def _tell_trouble(self, trouble: str) -> None:
        """Say once that hints are lost, and why; and once that they go on."""
        if bool(trouble) != bool(self._trouble):
            if trouble:
                _log.warning("hints are lost; workers look for work by long polls", why=trouble)
            else:
                _log.info("hints go on")
        self._trouble = trouble

    # ---- topics: pools come while the system runs, and who may make topics makes theirs

    def _look_after_topics(self) -> None:
        """Nobody waits for it: brokers that are away take their time to say nothing."""
        now = asyncio.get_running_loop().time()
        due = [topic for topic, looked in self._doubtful.items() if now - looked >= AGAIN_SECONDS]
        if due and (self._looking is None or self._looking.done()):
            self._doubtful[due[0]] = now
            self._looking = self._spawner.spawn(self._make(due[0]), "topic of hints")

    async def _make(self, topic: str) -> None:
        make = partial(topics.make_hints, self._kafka, topic)
        try:
            made = await asyncio.get_running_loop().run_in_executor(self._thread, make)
        except SpectrumError as error:
            pool = topic.removeprefix(hints_topic(""))
            self._tell_trouble(f"{error} Let SPECTRUM's user create it, or run: spectrum topics create --pool {pool}")
            return
        self._doubtful.pop(topic, None)
        if made:
            _log.info("topic made", topic=topic)
            self._renew()


# ---- the worker's side


Offsets = Mapping[int, int]  # by partition, of the next record


@dataclass(frozen=True, slots=True)
class _Commit:
    offsets: Offsets


@dataclass(frozen=True, slots=True)
class _Hold:
    full: bool


@dataclass(frozen=True, slots=True)
class _End:
    pass


Order = _Commit | _Hold | _End


class KafkaHints:
    """One worker's hearing (implements `transports.protocol.Hints`). `member` names it in its group, also after a restart.

    A client of the library belongs to one thread: that polls all the time, also while hints are held, and takes orders from a
    queue. What the rest of the worker sees is touched in its event loop alone.
    """

    def __init__(self, kafka: Kafka, member: str) -> None:
        self.listening = False
        self._kafka = kafka
        self._member = member
        self._topic = ""
        self._heard: Callable[[], None] = lambda: None
        self._offsets: dict[int, int] = {}  # of what was heard and not dealt with
        self._ear: _Ear | None = None

    def listen(self, topic: str, heard: Callable[[], None]) -> None:
        self._heard = heard
        if topic == self._topic:
            return
        self._end()
        self._topic, self._offsets = topic, {}
        if topic:
            self._ear = _Ear(self._kafka, topic, self._member, asyncio.get_running_loop(), self._note, self._turn)

    @contextmanager
    def dealing(self) -> Iterator[None]:
        offsets = dict(self._offsets)
        yield
        if offsets and self._ear:
            self._offsets = {p: offset for p, offset in self._offsets.items() if offsets.get(p) != offset}
            self._ear.orders.put(_Commit(offsets))

    def hold(self, full: bool) -> None:
        if self._ear:
            self._ear.orders.put(_Hold(full))

    async def close(self) -> None:
        """A broker that hangs keeps nobody from ending."""
        ear = self._ear
        self._end()
        if ear is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await ear.ended.wait()

    def _end(self) -> None:
        self.listening = False
        if self._ear:
            self._ear.orders.put(_End())
            self._ear = None

    # ---- what the thread tells, in the event loop

    def _note(self, ear: _Ear, offsets: Offsets) -> None:
        if ear is self._ear:
            self._offsets |= offsets
            self._heard()

    def _turn(self, ear: _Ear, listening: bool, why: str) -> None:
        if ear is not self._ear or listening == self.listening:
            return
        self.listening = listening
        if listening:
            _log.info("hints come by Kafka", topic=self._topic)
        else:
            _log.warning("no hints by Kafka; long polls bring them", topic=self._topic, why=why)
        self._heard()  # some may have been missed


class _Ear:
    """The thread that owns the consumer, and makes another where one has come to its end."""

    def __init__(
        self,
        kafka: Kafka,
        topic: str,
        member: str,
        loop: asyncio.AbstractEventLoop,
        note: Callable[[_Ear, Offsets], None],
        turn: Callable[[_Ear, bool, str], None],
    ) -> None:
        self.orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self.ended = asyncio.Event()
        self._kafka, self._topic, self._member = kafka, topic, member
        self._loop, self._note, self._turn = loop, note, turn
        self._ending = False
        self._held = False
        self._state = _State()
        # A daemon: what waits for a broker that hangs must not keep the worker from ending.
        threading.Thread(target=self._run, name="kafka-ear", daemon=True).start()

    def _run(self) -> None:
        while not self._ending:
            self._state = _State()
            try:
                self._serve()
            except KafkaException as error:
                self._tell_turn(explained(error.args[0], self._topic))
            except SpectrumError as error:
                self._tell_turn(str(error))
            except Exception:
                _log.exception("hearing by Kafka failed as it should not")
                self._tell_turn("see the error before")
            self._rest(RENEWAL_SECONDS)
        self._call(self.ended.set)

    def _serve(self) -> None:
        """Hear with one consumer. Raises KafkaException where it is of no use any more."""
        consumer = Consumer(self._configuration())
        try:
            consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
            while not self._ending:
                self._take_pulse(consumer)
                self._hear(consumer.poll(POLL_SECONDS), consumer)
                self._obey(consumer)
        finally:
            consumer.close()

    def _configuration(self) -> dict[str, Any]:
        own = {"group.id": self._topic, "group.instance.id": self._member, "error_cb": self._noticed}
        return {**configuration(self._kafka), **_CONSUMER, **own}

    def _hear(self, first: Message | None, consumer: Consumer) -> None:
        if first is None:
            return
        offsets: dict[int, int] = {}
        for message in (first, *consumer.consume(AT_ONCE, 0)):
            error, partition, offset = message.error(), message.partition(), message.offset()
            if error is not None:
                self._judge(error)
            elif partition is not None and offset is not None:
                offsets[partition] = offset + 1
        if offsets:
            self._call(self._note, self, offsets)

    def _judge(self, error: KafkaError) -> None:
        """Raises KafkaException where the consumer does not recover by itself."""
        self._state.why = explained(error, self._topic)
        if _is_the_end(error):
            raise KafkaException(error)

    def _noticed(self, error: KafkaError) -> None:
        self._state.why = explained(error)
        self._state.over = self._state.over or (error if _is_the_end(error) else None)

    # ---- partitions

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        self._state.partitions |= {each.partition for each in partitions}
        if self._held:  # what is new comes unheld
            consumer.pause(partitions)
        self._call(self._note, self, {})  # nobody may have heard what came there meanwhile

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._state.partitions -= {each.partition for each in partitions}

    # ---- whether anything can be heard

    def _take_pulse(self, consumer: Consumer) -> None:
        """No news are no sign of life: the brokers are asked, now and then, whether they have the topic."""
        if self._state.over is not None:
            raise KafkaException(self._state.over)
        now = time.monotonic()
        if now < self._state.pulse_at:
            return
        self._state.pulse_at = now + PULSE_SECONDS
        try:
            found = consumer.list_topics(self._topic, PULSE_PATIENCE).topics[self._topic]
        except KafkaException as error:
            self._state.why = explained(error.args[0])
        else:
            self._state.alive_until = 0.0 if found.error else now + DEAF_SECONDS
            self._state.why = explained(found.error, self._topic) if found.error else ""
        self._tell_turn(self._state.trouble(time.monotonic()))

    def _tell_turn(self, trouble: str) -> None:
        self._call(self._turn, self, not trouble, trouble)

    # ---- orders

    def _obey(self, consumer: Consumer) -> None:
        done: dict[int, int] = {}
        held = self._held
        while (order := self._next()) is not None:
            match order:
                case _Commit(offsets):
                    done |= offsets
                case _Hold(full):
                    self._held = full
                case _End():
                    self._ending = True
        if done:
            consumer.commit(offsets=[TopicPartition(self._topic, *each) for each in done.items()], asynchronous=True)
        if held != self._held:
            (consumer.pause if self._held else consumer.resume)(consumer.assignment())

    def _next(self) -> Order | None:
        with suppress(queue.Empty):
            return self.orders.get_nowait()
        return None

    def _rest(self, seconds: float) -> None:
        """Before the next consumer; orders about the last one mean nothing any more."""
        end = time.monotonic() + seconds
        while not self._ending and (left := end - time.monotonic()) > 0:
            with suppress(queue.Empty):
                match self.orders.get(timeout=left):
                    case _End():
                        self._ending = True
                    case _Hold(full):
                        self._held = full
                    case _Commit():
                        pass

    def _call(self, what: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(what, *arguments)


def _is_the_end(error: KafkaError) -> bool:
    """Whether a consumer is of no use any more: its group is gone with a disk, or has its name in another's place for a while."""
    return error.fatal() or error.code() == KafkaError._FATAL


@dataclass
class _State:
    """What is known of one consumer. Times are of the monotonic clock."""

    partitions: set[int] = field(default_factory=set)
    pulse_at: float = 0.0
    alive_until: float = 0.0
    over: KafkaError | None = None
    why: str = ""

    def trouble(self, now: float) -> str:
        """Why nothing can be heard; empty where something can."""
        if now >= self.alive_until:
            return self.why or "the brokers do not answer"
        return "" if self.partitions else "no partition of the topic is this worker's"

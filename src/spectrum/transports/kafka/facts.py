"""Facts on their way to Kafka (implements `transports.protocol.Outlet`).

What is in a batch goes out in its order for every subject, and nothing goes out after a record that was not taken: the producer is
idempotent, never gives a record up by itself (an endless timeout), and ends where it would leave a gap.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from spectrum.core.errors import SpectrumError
from spectrum.core.events.catalogue import FACTS
from spectrum.core.events.envelope import Event
from spectrum.settings import Kafka
from spectrum.transports.kafka.connection import configuration, explained, is_for_good
from spectrum.transports.protocol import Delivered

POLL_SECONDS = 0.05
_PRODUCER = {
    "enable.idempotence": True,
    "enable.gapless.guarantee": True,
    "acks": "all",
    "message.timeout.ms": 0,  # endless
    "topic.metadata.propagation.max.ms": 5_000,  # a topic that is not there by then is missing
    "linger.ms": 2,
    "message.max.bytes": 10_000_000,  # what is too much is the topic's to say
    "partitioner": "murmur2_random",  # as Java's: joins with topics of others meet
}

Record = tuple[bytes, list[tuple[str, str | bytes | None]], bytes]


@dataclass
class _Batch:
    """What became of records, as the client library tells it."""

    taken: list[bool]
    ended: int = 0
    refusal: str = ""
    dropped: threading.Event = field(default_factory=threading.Event)

    def note(self, place: int, error: KafkaError | None, topic: str) -> None:
        self.ended += 1
        if error is None:
            self.taken[place] = True
        else:
            self.refuse(explained(error, topic))

    def refuse(self, why: str) -> None:
        """The first reason is the reason: what was behind it fails because of it."""
        self.refusal = self.refusal or why

    @property
    def goes_on(self) -> bool:
        return not self.refusal and not self.dropped.is_set()

    @property
    def complete(self) -> bool:
        return self.ended == len(self.taken)

    @property
    def delivered(self) -> Delivered:
        count = self.taken.index(False) if False in self.taken else len(self.taken)
        return Delivered(count, self.refusal)


class Facts:
    """Facts of this cell on one topic. One batch at a time: a thread of its own sends it and waits for the acknowledgements.

    `trouble` is what the brokers, or their absence, said since something was acknowledged.
    """

    def __init__(self, kafka: Kafka, topic: str = FACTS) -> None:
        self.trouble = ""
        self._kafka = kafka
        self._topic = topic
        self._thread = ThreadPoolExecutor(1, "kafka-facts")
        self._producer: Producer | None = None
        self._batch = _Batch([])

    async def publish(self, events: Sequence[Event]) -> Delivered:
        batch = self._batch = _Batch([False] * len(events))
        records: list[Record] = [_record(event) for event in events]
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._deliver, batch, records)

    def drop(self) -> None:
        self._batch.dropped.set()

    async def rest(self) -> None:
        """Hear what the client library has to say: unheard, it would pile up for as long as nothing happens."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._listen)

    async def close(self) -> None:
        """Forget what is under way, and the connections."""
        self.drop()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._discard)
        self._thread.shutdown()

    # ---- in the thread

    def _deliver(self, batch: _Batch, records: Sequence[Record]) -> Delivered:
        try:
            self._send(batch, records)
        except KafkaException as error:
            batch.refuse(explained(error.args[0], self._topic))
        except SpectrumError as error:
            batch.refuse(str(error))
        delivered = batch.delivered
        if batch.complete and not batch.refusal:
            self.trouble = ""
        else:
            self._discard()
        return delivered

    def _send(self, batch: _Batch, records: Sequence[Record]) -> None:
        producer = self._opened()
        for place, record in enumerate(records):
            if batch.goes_on:
                self._hand_over(producer, batch, place, record)
        while batch.goes_on and not batch.complete:
            producer.poll(POLL_SECONDS)

    def _hand_over(self, producer: Producer, batch: _Batch, place: int, record: Record) -> None:
        key, headers, value = record
        noted = partial(_noted, batch, place)
        while batch.goes_on:
            try:
                producer.produce(self._topic, value, key, headers=headers, on_delivery=noted)
            except BufferError:  # its queue is full: some of it has to go first
                producer.poll(POLL_SECONDS)
            else:
                return

    def _opened(self) -> Producer:
        """A producer, with what the files of the settings say now."""
        if self._producer is None:
            events: dict[str, Any] = {"error_cb": self._hear}
            self._producer = Producer({**configuration(self._kafka), **_PRODUCER, **events})
        return self._producer

    def _hear(self, error: KafkaError) -> None:
        self.trouble = explained(error)
        if is_for_good(error):
            self._batch.refuse(self.trouble)

    def _listen(self) -> None:
        if self._producer is not None:
            self._producer.poll(0)

    def _discard(self) -> None:
        """What was refused or dropped must not go out later, behind what follows."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(0)


def _noted(batch: _Batch, place: int, error: KafkaError | None, message: Any) -> None:
    batch.note(place, error, message.topic())


def _record(event: Event) -> Record:
    key, headers, value = event.as_record()
    return key, [*headers], value

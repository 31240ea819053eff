"""Reading a topic as others do: with a client and an event library that are not ours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from kafka import KafkaConsumer, TopicPartition

from tests.waiting import wait_until

PATIENCE = 60.0


@dataclass
class Reader:
    """All that a topic holds, as it comes. `consumer` is of the library kafka-python."""

    consumer: Any
    events: list[BaseCloudEvent] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def until(self, done: Callable[[], object], seconds: float = PATIENCE) -> Sequence[BaseCloudEvent]:
        """Everything up to now, once `done` holds."""

        def look() -> bool:
            for records in self.consumer.poll(timeout_ms=200).values():
                for record in records:
                    message = KafkaMessage(dict(record.headers), record.key, record.value)
                    self.events.append(from_binary_event(message))
                    self.keys.append(record.key)
                    self.ids.add(self.events[-1].get_id())
            return bool(done())

        wait_until(look, seconds)
        return self.events

    def count(self, count: int) -> Sequence[BaseCloudEvent]:
        return self.until(lambda: len(self.events) >= count)

    def distinct(self, count: int, seconds: float = PATIENCE) -> Sequence[BaseCloudEvent]:
        """Everything up to now, once there are so many different events."""
        return self.until(lambda: len(self.ids) >= count, seconds)


@contextmanager
def reading(address: str, topic: str, **settings: Any) -> Iterator[Reader]:
    """From the beginning of the topic."""
    consumer = KafkaConsumer(
        bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False, **settings
    )
    try:
        partitions = consumer.partitions_for_topic(topic) or ()
        consumer.assign([TopicPartition(topic, partition) for partition in sorted(partitions)])
        consumer.seek_to_beginning()
        yield Reader(consumer)
    finally:
        consumer.close()


def first_times(events: Sequence[BaseCloudEvent]) -> Mapping[str, Sequence[int]]:
    """Of every subject the sequences in the order in which each was there for the first time."""
    seen: dict[str, dict[int, None]] = defaultdict(dict)
    for event in events:
        seen[str(event.get_subject())].setdefault(int(event.get_extension("sequence")))
    return {subject: list(sequences) for subject, sequences in seen.items()}


def in_order(events: Sequence[BaseCloudEvent]) -> bool:
    """Whether every subject's events were there without a gap and in their order, whatever came again later."""
    return all(list(each) == list(range(1, len(each) + 1)) for each in first_times(events).values())

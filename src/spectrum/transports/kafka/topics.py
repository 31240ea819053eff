"""The topics that SPECTRUM needs in Kafka: making them, and saying what of them endangers a promise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType, TopicDescription

from spectrum.core.errors import SpectrumError
from spectrum.core.events.catalogue import FACTS
from spectrum.settings import Kafka
from spectrum.transports.kafka.connection import configuration, explained
from spectrum.transports.protocol import hints_topic

PARTITIONS = 12
REPLICAS = 3  # where there are so many brokers
RETENTION_MILLISECONDS = 7 * 86_400_000
HINTS_RETENTION_MILLISECONDS = 3_600_000
LEAST_RECORD_BYTES = 1_000_000
HINT_BYTES = 10_000
MISSING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
ANSWER_SECONDS = 10.0
KNOWN_SECONDS = 0.05

T = TypeVar("T")


class TopicsError(SpectrumError):
    """Kafka did not do, or did not say, what it was asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is, with what is wrong with it."""

    name: str
    partitions: int = 0
    replicas: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


def check(kafka: Kafka, name: str = FACTS) -> tuple[Topic, ...]:
    """The topic of facts, and those of hints that are there. Raises TopicsError, SettingsError."""
    admin = _admin(kafka)
    brokers = _brokers(admin)
    return tuple(_described(admin, each, brokers) for each in (name, *_hints(admin)))


def create(
    kafka: Kafka, partitions: int = PARTITIONS, replicas: int | None = None, name: str = FACTS, dry_run: bool = False
) -> tuple[Topic, ...]:
    """Make what is missing, and leave what is there as it is. Raises TopicsError, SettingsError."""
    admin = _admin(kafka)
    brokers = _brokers(admin)
    copies = replicas or min(REPLICAS, brokers)
    new = NewTopic(name, num_partitions=partitions, replication_factor=copies, config=_settings(name, copies))
    try:
        _answer(admin.create_topics([new], validate_only=dry_run)[name], name)
    except _AlreadyThere:
        dry_run = False
    made = Topic(name, partitions, copies, _settings(name, copies))
    return (made,) if dry_run else (_once_known(admin, name, brokers),)


def _once_known(admin: AdminClient, name: str, brokers: int) -> Topic:
    """A topic that is there. The broker that is asked may hear of it a moment after it was made."""
    end = time.monotonic() + ANSWER_SECONDS
    while not (found := _described(admin, name, brokers)).partitions and time.monotonic() < end:
        time.sleep(KNOWN_SECONDS)
    return found


def make_hints(kafka: Kafka, name: str) -> bool:
    """Make a pool's topic; False where it is there. Raises TopicsError, SettingsError."""
    if name in _hints(_admin(kafka)):
        return False
    create(kafka, name=name)
    return True


def _settings(name: str, copies: int) -> dict[str, str]:
    if name.startswith(hints_topic("")):
        # What nobody has heard by then was found unasked, long ago.
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(HINTS_RETENTION_MILLISECONDS),
            "max.message.bytes": str(HINT_BYTES),
        }
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(RETENTION_MILLISECONDS),
        # With two of three a broker may go without stopping anybody, and one more without losing anything acknowledged.
        "min.insync.replicas": "2" if copies > 2 else "1",
        "unclean.leader.election.enable": "false",
    }


def faults(topic: Topic, brokers: int) -> Iterator[str]:
    """What about a topic endangers a promise, and what to do about it. No promise rests on a hint."""
    if topic.name.startswith(hints_topic("")):
        return
    alter = f"kafka-configs.sh --alter --entity-type topics --entity-name {topic.name} --add-config"
    said = topic.settings
    if "compact" in said.get("cleanup.policy", ""):
        yield f"it is compacted, which leaves of each subject the last fact alone: {alter} cleanup.policy=delete"
    if said.get("unclean.leader.election.enable") == "true":
        yield f"acknowledged facts can be lost in an unclean election: {alter} unclean.leader.election.enable=false"
    if int(said.get("max.message.bytes", LEAST_RECORD_BYTES)) < LEAST_RECORD_BYTES:
        yield f"a large fact would not fit, and those after it wait: {alter} max.message.bytes={LEAST_RECORD_BYTES}"
    if topic.replicas < 2 <= brokers:
        yield "it is kept by one broker alone: give it replicas with kafka-reassign-partitions.sh"
    elif topic.replicas > 2 and said.get("min.insync.replicas") == "1":
        yield f"what one broker alone has counts as acknowledged: {alter} min.insync.replicas=2"
    elif topic.replicas > 1 and int(said.get("min.insync.replicas", "1")) >= topic.replicas:
        yield f"while one broker is away nothing is taken: {alter} min.insync.replicas={topic.replicas - 1}"


# ---- asking Kafka


class _AlreadyThere(Exception):
    pass


class _Missing(Exception):
    pass


def _admin(kafka: Kafka) -> AdminClient:
    try:
        return AdminClient({**configuration(kafka), "socket.timeout.ms": int(1000 * ANSWER_SECONDS)})
    except KafkaException as error:
        raise TopicsError(f"Kafka can't be asked: {explained(error.args[0])}.") from None


def _brokers(admin: AdminClient) -> int:
    # The first question: a broker that can't be reached shows here.
    return len(_answer(admin.describe_cluster(request_timeout=ANSWER_SECONDS), "Kafka").nodes)


def _hints(admin: AdminClient) -> list[str]:
    try:
        found = admin.list_topics(timeout=ANSWER_SECONDS).topics
    except KafkaException as error:
        raise TopicsError(f"Kafka's topics can't be listed: {explained(error.args[0])}.") from None
    return sorted(name for name in found if name.startswith(hints_topic("")))


def _described(admin: AdminClient, name: str, brokers: int) -> Topic:
    try:
        found: TopicDescription = _answer(admin.describe_topics(TopicCollection([name]))[name], name)
    except _Missing:
        return Topic(name, faults=("it is missing: spectrum topics create",))
    resource = ConfigResource(ResourceType.TOPIC, name)
    entries = _answer(admin.describe_configs([resource])[resource], name)
    settings = {each.name: each.value for each in entries.values() if each.name in _SHOWN}
    copies = min((len(partition.replicas) for partition in found.partitions), default=0)
    topic = Topic(name, len(found.partitions), copies, settings)
    return Topic(name, topic.partitions, copies, settings, tuple(faults(topic, brokers)))


_SHOWN = frozenset(
    {
        "cleanup.policy",
        "max.message.bytes",
        "min.insync.replicas",
        "retention.ms",
        "unclean.leader.election.enable",
    }
)


def _answer(future: Future[T], subject: str) -> T:
    try:
        return future.result(2 * ANSWER_SECONDS)
    except TimeoutError:
        raise TopicsError(f"{subject}: no answer came: check that the brokers in SPECTRUM_BUS run.") from None
    except KafkaException as error:
        match error.args[0].code():
            case KafkaError.TOPIC_ALREADY_EXISTS:
                raise _AlreadyThere from None
            case KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise _Missing from None
            case _:
                raise TopicsError(f"{explained(error.args[0], subject)}.") from None

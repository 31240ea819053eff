"""What tests with Kafka share: topics of their own."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from spectrum.settings import Kafka, ServerSettings
from spectrum.transports.kafka import topics

MakeTopic = Callable[..., str]


def settings_of(address: str, **rest: object) -> Kafka:
    kafka = ServerSettings(bus=f"kafka://{address}", **rest).kafka  # type: ignore[arg-type]
    assert kafka is not None
    return kafka


@pytest.fixture
def topic(kafka: str) -> str:
    """A topic with three partitions in the session's Kafka."""
    return made_topic(kafka)


def made_topic(address: str, partitions: int = 3) -> str:
    name = f"test-{secrets.token_hex(6)}"
    topics.create(settings_of(address), partitions, name=name)
    return name

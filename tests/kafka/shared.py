"""Kafka for the tests that ask for it: one broker per test session, and brokers of their own for tests that harm them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spectrum.core.errors import SpectrumError
from spectrum.local.kafka import jars
from tests import keeper
from tests.kafka.broker import CACHE, Broker

MakeBroker = Callable[..., Broker]


@contextmanager
def serving(folder: Path) -> Iterator[Mapping[str, Any]]:
    """A broker in the folder while somebody needs it. Raises `SpectrumError`."""
    broker = Broker(folder / "kafka")
    try:
        broker.start()
        yield {"address": broker.address}
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def kafka() -> str:
    """The session's broker (host:port), for tests that do it no harm. Skips with a reason and a remedy where there is none."""
    try:
        return str(keeper.shared(__name__)["address"])
    except SpectrumError as error:
        keeper.is_missing("kafka", f"no Kafka for tests: {error}")


@pytest.fixture
def make_broker() -> Iterator[MakeBroker]:
    """Starts a broker of the test's own, with what `Broker` takes."""
    try:
        jars(CACHE)
    except SpectrumError as error:
        keeper.is_missing("kafka", f"no Kafka for tests: {error}")
    made: list[Broker] = []

    def make(**properties: Any) -> Broker:
        broker = Broker(Path(folder) / str(len(made)), **properties)
        made.append(broker)
        broker.start()
        return broker

    with tempfile.TemporaryDirectory(prefix=keeper.PREFIX) as folder:
        yield make
        for broker in made:
            broker.stop()

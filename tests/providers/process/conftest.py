"""A process target of its own for every test, purged at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from spectrum.providers.process import ProcessProvider
from tests.conformance.hand import Hand
from tests.conformance.harness import Harness, process_harness


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with process_harness() as made:
        yield made


@pytest.fixture
async def hand(harness: Harness) -> Hand:
    return Hand(harness)


@pytest.fixture
async def target(harness: Harness) -> ProcessProvider:
    assert isinstance(harness.provider, ProcessProvider)
    return harness.provider

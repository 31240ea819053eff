"""The suite of hints, run on Kafka's twin, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conformance.memory import virtual_time
from tests.conformance.test_hints import *  # noqa: F403 - the tests; the fixtures below take the place of its own
from tests.conformance.ways import Way, in_memory


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": virtual_time}


@pytest.fixture  # type: ignore[no-redef]
async def way() -> AsyncIterator[Way]:
    async with in_memory() as made:
        yield made


@pytest.fixture  # type: ignore[no-redef]
async def fragile() -> AsyncIterator[Way]:
    async with in_memory() as made:
        yield made

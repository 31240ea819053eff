"""The store suite, run on the store's twin, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conformance.memory import virtual_time
from tests.conformance.stores import StoreHarness, memory_harness
from tests.conformance.test_store import *  # noqa: F403 - the tests; the fixtures below take the place of its own


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": virtual_time}


@pytest.fixture  # type: ignore[no-redef]
async def harness() -> AsyncIterator[StoreHarness]:
    async with memory_harness() as made:
        yield made

"""The provider suite, run on the provider's twin in both strengths, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from spectrum.providers.protocol import Strength
from tests.conformance.harness import Harness
from tests.conformance.memory import memory_harness, virtual_time
from tests.conformance.test_provider import *  # noqa: F403 - the tests; the fixtures below take the place of its own


@pytest.fixture  # type: ignore[no-redef]
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": virtual_time}


@pytest.fixture(params=list(Strength))  # type: ignore[no-redef]
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    async with memory_harness(request.param) as made:
        yield made

"""What the tests of ring 2 share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from sim.interleave import command
from sim.interleave.ring import Ring, opened
from tests.postgres import Database


@pytest.fixture
def quiet() -> Iterator[None]:
    command.quiet()
    yield
    structlog.reset_defaults()


@pytest.fixture
async def ring(database: Database) -> AsyncIterator[Ring]:
    """A ring on a database of its own."""
    async with opened(database.admin_url, database.name, database.urls) as made:
        yield made

"""The API over a fresh database for each test: bare, with a vendor, and with an instance that a worker watches."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from spectrum.ports import SystemClock
from spectrum.settings import LogFormat
from spectrum.telemetry import configure_logs
from tests.api.support import Api, serving
from tests.api.vendor import Vendor, vendor
from tests.api.watching import Scene, scene
from tests.canaries import Canaries
from tests.postgres import Database


@pytest.fixture(autouse=True)
def logs(canaries: Canaries) -> Iterator[io.StringIO]:
    """What the API logs, in the form of production, and without a secret."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs(LogFormat.JSON, SystemClock(), stream)
    yield stream
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    assert canaries.found_in(stream.getvalue()) == []


@pytest.fixture
async def api(database: Database, tmp_path: Path, canaries: Canaries) -> AsyncIterator[Api]:
    async with serving(database, tmp_path, canaries) as served:
        yield served


@pytest.fixture
async def here(api: Api) -> AsyncIterator[Vendor]:
    async with vendor(api) as made:
        yield made


@pytest.fixture
async def stage(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(database, tmp_path) as made:
        yield made

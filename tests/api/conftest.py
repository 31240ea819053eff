"""The API over a fresh database for each test."""

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
from tests.postgres import Database


@pytest.fixture(autouse=True)
def logs() -> Iterator[io.StringIO]:
    """What the API logs, in the form of production."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs(LogFormat.JSON, SystemClock(), stream)
    yield stream
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
async def api(database: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(database, tmp_path) as served:
        yield served

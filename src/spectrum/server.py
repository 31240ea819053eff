"""The composition root: settings in, a control plane out. Nothing else knows which parts there are."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import structlog
import uvicorn
from fastapi import FastAPI

from spectrum.api.app import create_app
from spectrum.api.services import Services
from spectrum.control.calls import Calls
from spectrum.control.changes import Changes
from spectrum.control.desk import Desk
from spectrum.control.dispatch import Dispatch
from spectrum.control.engine import Engine
from spectrum.control.identity import Identity
from spectrum.control.log import Log
from spectrum.control.products import Products
from spectrum.control.readiness import Readiness
from spectrum.control.secrets import CellKeys, load_or_create
from spectrum.control.sweeper import Sweeper
from spectrum.control.targets import Targets
from spectrum.control.wakeups import Wakeups
from spectrum.control.workers import Workers
from spectrum.core.access import read_token
from spectrum.core.errors import SpectrumError
from spectrum.core.jobs.commands import Command, Hint
from spectrum.db.bootstrap import SigningKey, bootstrap, derive_passwords
from spectrum.db.bootstrap import role_urls as urls_of_roles
from spectrum.db.pools import Pool, Role, open_pool
from spectrum.db.store import PostgresStore
from spectrum.operations import CATALOG
from spectrum.ports import SystemClock, SystemEntropy, Tasks
from spectrum.settings import ServerSettings, load
from spectrum.telemetry import Metrics, configure_logs

PARTS = ("api", "sweeper", "sequencer")
POOL_SIZES = {Role.API: 8, Role.ENGINE: 6, Role.SYSTEM: 6}
DATABASE = "spectrum"

_log = structlog.get_logger(__name__)


class ServerError(SpectrumError):
    """The control plane can't start; the message says what to do."""


def run(parts: tuple[str, ...] = (), bootstrap: str | None = None, new_epoch: bool = False) -> None:
    """Be a control plane until SIGTERM or SIGINT.

    `bootstrap` names a file with a token that is to let its holder into organization `default`.
    Raises `ServerError`, `SettingsError`, `KeyFileError`, `BootstrapError`.
    """
    settings = load(ServerSettings)
    configure_logs(settings.log_format)
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ServerError(f"There is no part {', '.join(unknown)}. Known are: {', '.join(PARTS)}.")
    uvicorn_loop = "uvloop"
    with asyncio.Runner(loop_factory=_loop_factory(uvicorn_loop)) as runner:
        runner.run(_serve(settings, frozenset(parts or PARTS), bootstrap, new_epoch))

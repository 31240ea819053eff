"""A worker as a process: its keys, its way in, its target, and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2
import structlog

from spectrum.core.access import read_token
from spectrum.core.errors import Problem, SpectrumError
from spectrum.keyfile import create_once, read_private
from spectrum.operations import CATALOG
from spectrum.ports import SystemClock, SystemEntropy, Tasks, settle_garbage
from spectrum.providers import open_provider
from spectrum.settings import WorkerSettings, load
from spectrum.telemetry import configure_logs
from spectrum.tracing import configure_traces
from spectrum.transports.kafka.hints import KafkaHints
from spectrum.transports.poll import PollLink
from spectrum.transports.protocol import Hints, LinkDown, LongPollsAlone
from spectrum.worker.keys import WorkerKeys, load_or_create
from spectrum.worker.loop import Worker
from spectrum.worker.rendering import ReleaseRenderer
from spectrum.worker.spool import DiskSpool

DRAIN_SECONDS = 20.0
RETRY_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class WorkerError(SpectrumError):
    """The worker can't start; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What a worker learned when it joined: under which URL the cell is signed for, and the cell's key."""

    worker_id: str
    public_url: str
    cell_key: str


def run(targets: tuple[str, ...] = ()) -> None:
    """Be a worker until SIGTERM or SIGINT. Raises `WorkerError`, `SettingsError`, `KeyFileError`, `TracingError`."""
    settings = load(WorkerSettings)
    configure_logs(settings.log_format, SystemClock())
    chosen = targets or settings.targets
    if not chosen:
        raise WorkerError("No target was given. Run: spectrum worker run --target process:///srv/spectrum")
    if settings.url is None:
        raise WorkerError(
            "SPECTRUM_URL does not say where the control plane is. Set it, such as to https://spectrum.example."
        )
    settle_garbage()
    # Not uvloop, under which a target's supervisors can't be started: it knows too few of a subprocess's options.
    end_traces = configure_traces("worker")
    try:
        asyncio.run(_work(settings, settings.url, chosen))
    finally:
        end_traces()


async def _work(settings: WorkerSettings, url: str, targets: tuple[str, ...]) -> None:
    entropy, clock, tasks = SystemEntropy(), SystemClock(), Tasks()
    kafka = settings.kafka
    keys = load_or_create(settings.key_path, entropy)
    operations = runnable()
    limits = httpx2.Limits(max_connections=64, max_keepalive_connections=16)
    async with httpx2.AsyncClient(base_url=url, limits=limits) as http, httpx2.AsyncClient() as outside:
        link = PollLink(http, url, keys.signer, "", keys, clock, operations, tasks)
        membership = await _join(settings, link, keys, clock)
        link.public_url, link.cell_key = membership.public_url, membership.cell_key
        providers = {target: open_provider(target) for target in targets}
        for target, provider in providers.items():
            revived = await provider.revive()
            _log.info("target ready", target=target, revived=len(revived))
        hints: Hints = KafkaHints(kafka, membership.worker_id) if kafka else LongPollsAlone()
        worker = Worker(
            link,
            providers,
            CATALOG,
            ReleaseRenderer(link, outside),
            clock,
            entropy,
            tasks,
            DiskSpool(settings.home / "spool"),
            hints=hints,
        )
        _log.info("worker runs", worker_id=membership.worker_id, targets=list(targets))
        await _until_told(worker, tasks)
        await hints.close()
        for provider in providers.values():
            await provider.close()


def runnable() -> Mapping[str, list[int]]:
    """Which operations, in which versions, this worker can run."""
    versions: dict[str, list[int]] = {}
    for name, version in sorted(CATALOG):
        versions.setdefault(name, []).append(version)
    return versions


async def _until_told(worker: Worker, tasks: Tasks) -> None:
    """Work until SIGTERM or SIGINT; then take nothing new, and leave soon: what is unfinished goes on elsewhere."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    working = tasks.spawn(worker.run(), "worker")
    waiting = tasks.spawn(told.wait(), "told")
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if told.is_set():
        _log.info("draining")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await worker.drain()
    else:
        working.result()
    await tasks.close()


# ---- joining


async def _join(settings: WorkerSettings, link: PollLink, keys: WorkerKeys, clock: SystemClock) -> Membership:
    """The membership of this key; joins with the token in the token file where there is none yet."""
    place = settings.key_path.with_name("worker.json")
    if place.exists():
        return Membership(**json.loads(read_private(place)))
    token = _read_token(settings.join_token_file)
    known = read_token(token)
    if known is None or known.cell_key is None:
        raise WorkerError("The join token is damaged. Make a new one: spectrum worker join-token --target NAME")
    link.cell_key = known.cell_key
    while True:
        try:
            enrolled = await link.enrol(token, socket.gethostname(), keys.signing_key, keys.sealing_key)
            break
        except LinkDown as error:
            _log.info("the control plane is not there yet", error=str(error))
            await clock.sleep(RETRY_SECONDS)
        except Problem as problem:
            raise WorkerError(problem.detail) from None
    membership = Membership(enrolled.worker_id, enrolled.public_url, known.cell_key)
    create_once(place, json.dumps(asdict(membership)) + "\n")
    _log.info("joined", worker_id=membership.worker_id, pool=enrolled.pool)
    return membership


def _read_token(path: Path | None) -> str:
    if path is None or not path.exists():
        raise WorkerError(
            "This worker has not joined yet. Make a token (spectrum worker join-token --target NAME), "
            "put it into a file, and set SPECTRUM_JOIN_TOKEN_FILE."
        )
    return path.read_text().strip()

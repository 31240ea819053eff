"""The composition root: settings in, a control plane out. Nothing else knows which parts there are."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from spectrum.api.app import create_app
from spectrum.api.services import Services
from spectrum.api.stream import CONNECTION
from spectrum.control.audit import Audit, sealer
from spectrum.control.calls import Calls
from spectrum.control.changes import Changes
from spectrum.control.desk import Desk
from spectrum.control.dispatch import Dispatch
from spectrum.control.engine import Engine
from spectrum.control.identity import Identity
from spectrum.control.instances import Instances
from spectrum.control.jobs import Jobs
from spectrum.control.leader import PADDING_SECONDS, TERM_SECONDS
from spectrum.control.log import Log
from spectrum.control.measures import Measures
from spectrum.control.products import Products
from spectrum.control.rates import Rates
from spectrum.control.readiness import Readiness
from spectrum.control.reads import Reads
from spectrum.control.relay import CONSUMER as RELAY
from spectrum.control.relay import relay
from spectrum.control.secrets import CellKeys, load_or_create
from spectrum.control.sequencer import sequencer
from spectrum.control.streams import Streams
from spectrum.control.sweeper import Sweeper
from spectrum.control.tail import Limits, Tail
from spectrum.control.targets import Targets
from spectrum.control.upkeep import Upkeep
from spectrum.control.wakeups import Wakeups
from spectrum.control.watch import Watch
from spectrum.control.workers import Workers
from spectrum.core.access import read_token
from spectrum.core.errors import SpectrumError
from spectrum.core.jobs.commands import Hint
from spectrum.core.jobs.store import Written
from spectrum.core.rates import Rate
from spectrum.db.audit import AuditChains
from spectrum.db.bootstrap import SigningKey, bootstrap, derive_passwords
from spectrum.db.bootstrap import role_urls as urls_of_roles
from spectrum.db.leading import Leading
from spectrum.db.log import EventLog
from spectrum.db.log_reader import LogReader
from spectrum.db.notices import Notices
from spectrum.db.pools import Pool, Role, open_pool
from spectrum.db.store import PostgresStore
from spectrum.db.upkeep import Housekeeping
from spectrum.operations import CATALOG
from spectrum.ports import SystemClock, SystemEntropy, Tasks, settle_garbage
from spectrum.settings import ServerSettings, load
from spectrum.telemetry import Metrics, configure_logs
from spectrum.tracing import configure_traces
from spectrum.transports.kafka.facts import Facts
from spectrum.transports.kafka.hints import HintSender
from spectrum.transports.protocol import hints_topic

PARTS = ("api", "sweeper", "sequencer", "sealer", "relay")
LOG = "log"  # the topic of notices that the log has grown
POOL_SIZES = {Role.API: 8, Role.ENGINE: 6, Role.SYSTEM: 8}  # one of the system's listens
DATABASE = "spectrum"
GRACE_SECONDS = 10
OPEN_FILES = 65_536

_log = structlog.get_logger(__name__)


class ServerError(SpectrumError):
    """The control plane can't start; the message says what to do."""


def run(parts: tuple[str, ...] = (), bootstrap: str | None = None, new_epoch: bool = False) -> None:
    """Be a control plane until SIGTERM or SIGINT.

    `bootstrap` names a file with a token that is to let its holder into organization `default`.
    Raises `ServerError`, `SettingsError`, `KeyFileError`, `BootstrapError`, `TracingError`.
    """
    settings = load(ServerSettings)
    configure_logs(settings.log_format, SystemClock())
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ServerError(f"There is no part {', '.join(unknown)}. Known are: {', '.join(PARTS)}.")
    chosen = frozenset(parts or PARTS)
    token = Path(bootstrap).read_text().strip() if bootstrap else None
    settle_garbage()
    _allow_connections()
    end_traces = configure_traces("server")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, chosen, token, new_epoch))
    finally:
        end_traces()


def _allow_connections() -> None:
    """As many open files as this process may have: each client that follows events is one."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


async def _serve(settings: ServerSettings, parts: frozenset[str], token: str | None, new_epoch: bool) -> None:
    if settings.kafka is None and parts == {"relay"}:
        raise ServerError("A relay needs Kafka: set SPECTRUM_BUS, such as to kafka://HOST:9092.")
    if settings.database_url is None:
        raise ServerError(
            "SPECTRUM_DATABASE_URL does not say where PostgreSQL is. Set it, such as to postgresql://user:password@host/name."
        )
    keys = load_or_create(settings.master_key_path, SystemEntropy())
    urls = await _prepare(settings.database_url.get_secret_value(), keys, new_epoch)
    async with AsyncExitStack() as stack:
        pools = {role: await open_pool(urls[role], role, f"spectrum {role}", size) for role, size in POOL_SIZES.items()}
        for pool in pools.values():
            stack.push_async_callback(pool.close)
        plane = ControlPlane(settings, keys, pools)
        stack.push_async_callback(plane.close)
        if token is not None:
            await plane.let_in(token)
        plane.begin(parts)
        await _until_told(plane.app() if "api" in parts else None, settings, plane.let_go)


async def _prepare(admin_url: str, keys: CellKeys, new_epoch: bool) -> Mapping[Role, str]:
    """The database with its roles, its schema and its epoch. Every copy derives the same passwords from the key file."""
    passwords = derive_passwords(keys.signer.key.private_bytes_raw())
    signing_key = SigningKey(keys.signing_key_id, keys.signer.key.public_key().public_bytes_raw())
    cell = await bootstrap(admin_url, DATABASE, passwords, new_epoch=new_epoch, signing_key=signing_key)
    _log.info("cell ready", cell=cell.id, epoch=cell.epoch, raised=cell.raised)
    return urls_of_roles(admin_url, DATABASE, passwords)


class ControlPlane:
    """One copy of the control plane: its parts, joined."""

    def __init__(self, settings: ServerSettings, keys: CellKeys, pools: Mapping[Role, Pool]) -> None:
        self.settings = settings
        self.keys = keys
        self.pools = pools
        self.clock = SystemClock()
        self.entropy = SystemEntropy()
        self.tasks = Tasks()
        self.wakeups = Wakeups()
        tuning = settings.tuning
        reads = Reads(pools[Role.API], self.tasks)
        self.changes = Changes(pools[Role.API], pools[Role.ENGINE], keys.keyring, self.entropy, reads)
        self.identity = Identity(self.changes, pools[Role.SYSTEM], self.tasks)
        self.workers = Workers(self.changes, pools[Role.SYSTEM], keys.signing_key_id)
        self.store = PostgresStore(pools[Role.ENGINE], pools[Role.SYSTEM], self.clock)
        self.metrics = Metrics()
        self.engine = Engine(self.store, CATALOG, self.clock, self.tasks, self._committed)
        queues = {"commands": lambda: self.engine.waiting, "callers": lambda: self.wakeups.waiting}
        self.measures = Measures(self.metrics, pools, queues)
        self.dispatch = Dispatch(self.store, self.engine, self.clock, self.entropy)
        self.watch = Watch(
            pools[Role.SYSTEM], pools[Role.ENGINE], self.engine, self.entropy, tuning.observation_interval
        )
        self.streams = Streams(self.changes, pools[Role.SYSTEM], self.wakeups, self.clock, self.tasks)
        self.sweeper = Sweeper(
            self.store,
            self.engine,
            self.dispatch,
            self.clock,
            self.entropy,
            tuning.lease,
            lapsed=self.metrics.leases_expired.inc,
        )
        limits = Limits(tuning.stream_limit)
        self.tail = Tail(
            pools[Role.SYSTEM],
            pools[Role.API],
            self.clock,
            self.entropy,
            self.tasks,
            limits,
            dropped=self.metrics.streams_dropped.inc,
        )
        self.metrics.stream_clients.set_function(self.tail.__len__)
        self.metrics.stream_lag.set_function(lambda: self.tail.lag)
        self.metrics.stream_bytes.set_function(lambda: self.tail.size)
        self._join_other_copies(pools[Role.SYSTEM])

    def _join_other_copies(self, system: Pool) -> None:
        copy = self.entropy.token(8).hex()
        lead = partial(Leading, system, holder=copy, term_seconds=TERM_SECONDS, padding_seconds=PADDING_SECONDS)
        self.sequencer = sequencer(EventLog(system, lead("sequencer")), self.clock, self.entropy, self._grown)
        chains = AuditChains(system, lead("sealer"), self.keys.signer)
        self.sealer = sealer(chains, self.clock, self.entropy)
        kafka = self.settings.kafka
        self.facts = Facts(kafka) if kafka else None
        self.hints = HintSender(kafka, self.tasks, self.metrics.hints_lost.inc) if kafka else None
        reader = LogReader(system, lead(RELAY), RELAY)
        self.relay = relay(reader, self.facts, self.clock, self.entropy, self.tasks) if self.facts else None
        self.upkeep = Upkeep(Housekeeping(system), self.clock, self.entropy)
        self.notices = Notices(system, copy, self._heard, self.wakeups.wake_all, self.clock, self.entropy)

    def _committed(self, written: Sequence[Written], hints: Sequence[Hint]) -> None:
        # Workers wait for work, people for the end of a job.
        topics = dict.fromkeys([*(hint.pool_id for hint in hints), *(job.id for each in written for job in each.ended)])
        self.measures.committed(written)
        self.sequencer.nudge()
        if self.hints:
            self.hints.tell(hints)
        for topic in topics:
            self._heard(topic)
        self.notices.tell(topics)

    def _heard(self, topic: str) -> None:
        """Something was committed, here or on another copy."""
        if topic == LOG:
            self._nudge_readers()
            return
        self.wakeups.wake(topic)
        self.sequencer.nudge()

    def _grown(self) -> None:
        """Events got their positions here."""
        self._nudge_readers()
        self.notices.tell([LOG])

    def _nudge_readers(self) -> None:
        self.tail.nudge()
        if self.relay:
            self.relay.nudge()

    async def let_in(self, token: str) -> None:
        """Have organization `default`, and let the token's holder in."""
        text = read_token(token)
        if text is None:
            raise ServerError("The bootstrap token is damaged: it does not have the form spk_….")
        await self.identity.bootstrap("default", text)

    def begin(self, parts: frozenset[str]) -> None:
        self.tasks.spawn(self.notices.run(), "notices")
        if self.hints:
            self.tasks.spawn(self.hints.run(), "hints")
        if "sweeper" in parts:
            self.tasks.spawn(self.sweeper.run(), "sweeper")
            self.tasks.spawn(self.upkeep.run(), "upkeep")
            self.tasks.spawn(self.streams.run(), "streams")
        if "sequencer" in parts:
            self.tasks.spawn(self.sequencer.run(), "sequencer")
        if "api" in parts:
            self.tasks.spawn(self.tail.run(), "tail")
        if "sealer" in parts:
            self.tasks.spawn(self.sealer.run(), "sealer")
        if "relay" in parts and self.relay:
            self.tasks.spawn(self.relay.run(), "relay")

    def let_go(self) -> None:
        """Nobody waits here any more, now and from now on."""
        self.wakeups.end()
        self.tail.end()

    async def close(self) -> None:
        """End what `begin` began."""
        await self.tasks.close()
        if self.facts:
            await self.facts.close()
        if self.hints:
            await self.hints.close()

    def app(self) -> FastAPI:
        settings = self.settings
        return create_app(self.services(), settings.base_url, settings.tuning.body_limit, signer=self.keys.signer)

    def services(self) -> Services:
        """What the API calls."""
        calls = Calls(self.workers, self.pools[Role.ENGINE], self.clock, self.tasks)
        desk = Desk(
            self.workers,
            self.changes,
            calls,
            self.dispatch,
            self.wakeups,
            self.watch,
            self.streams,
            self.keys,
            self.clock,
            self.settings.tuning,
            self.settings.base_url,
            hints_topic if self.hints else lambda pool_id: "",
        )
        limit = self.settings.tuning.rate_limit
        return Services(
            identity=self.identity,
            rates=Rates(self.pools[Role.SYSTEM], Rate(limit) if limit else None, self.clock),
            idempotency=self.changes,
            products=Products(self.changes),
            targets=Targets(self.changes),
            workers=self.workers,
            instances=Instances(self.changes, self.engine, self.clock),
            jobs=Jobs(self.changes, self.engine, self.wakeups, self.clock),
            log=Log(self.pools[Role.API]),
            tail=self.tail,
            audit=Audit(self.pools[Role.API]),
            desk=desk,
            streams=self.streams,
            readiness=Readiness(self.pools[Role.SYSTEM]),
            metrics=self.metrics,
            measures=self.measures,
            clock=self.clock,
            entropy=self.entropy,
        )


class Connection(HttpToolsProtocol):
    """uvicorn's, but that who sends a stream can see to its transport: how much it keeps, and that it is cut."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: {"transport": self.transport}}


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process before we have put things in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _until_told(app: FastAPI | None, settings: ServerSettings, let_go: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT. What is under way is answered first; `let_go` ends what waits on purpose."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    if app is None:
        await told.wait()
        return
    config = uvicorn.Config(
        app,
        host=settings.listen.host,
        port=settings.listen.port,
        http=Connection,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    tasks = Tasks()
    serving = tasks.spawn(server.serve(), "http")
    waiting = tasks.spawn(told.wait(), "told")
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    _log.info("draining")
    let_go()
    server.should_exit = True
    await serving
    await tasks.close()

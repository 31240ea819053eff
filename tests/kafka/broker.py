"""One Kafka broker (KRaft, its own controller) in a folder of its own, to be started, harmed and ended by its pid."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from spectrum.core.errors import SpectrumError
from tests.keeper import REPOSITORY

POM = Path(__file__).parent / "pom.xml"
HOST = "127.0.0.1"
PORTS = range(20_000, 30_000)  # below those that the system gives to whoever connects
READY = "Kafka Server started"
READY_SECONDS = 90.0
FETCH_SECONDS = 600.0
CLUSTER = "spectrum-tests-000000A"
JAVA_SINCE = 17
# A small heap, one thread that collects it, and no compiler that works long for a broker that lives briefly.
FLAGS = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ActiveProcessorCount=1")
FORMATTER_FLAGS = ("-Xmx96m", *FLAGS[2:])
_PR_SET_PDEATHSIG = 1

_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "background.threads": "2",
    "offsets.topic.num.partitions": "2",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "2",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.session.timeout.ms": "6000",
    # A broker that was killed may come back once its old session is over.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "400",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "log.index.size.max.bytes": "1048576",
}

_LOGGING = """\
rootLogger.level=WARN
rootLogger.appenderRef.c.ref=c
appender.c.type=Console
appender.c.name=c
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
logger.s.name=kafka.server.KafkaRaftServer
logger.s.level=INFO
"""


@dataclass
class Broker:
    """A broker on loopback. `listeners` are protocols, such as SASL_SSL, the first one for the broker's own use; `properties`
    and `formatting` are for the broker and for the formatter of its storage, besides what every broker has.
    """

    folder: Path
    listeners: Sequence[str] = ("PLAINTEXT",)
    properties: Mapping[str, str] = field(default_factory=dict)
    formatting: Sequence[str] = ()
    ports: Mapping[str, int] = field(init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [*self.listeners, "CONTROLLER"]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))

    @property
    def address(self) -> str:
        return f"{HOST}:{self.ports[self.listeners[0]]}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the broker is not running"
        return self.process.pid

    def start(self) -> None:
        """Run, and return once it serves. What it kept is there again. Raises `SpectrumError`."""
        if not (self.folder / "data/meta.properties").exists():
            self._format()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*java(FLAGS, self.folder), "kafka.Kafka", str(self._settings)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent(),
                start_new_session=True,
            )
        self._await_ready()

    def kill(self) -> None:
        """End it at once, as a machine does that loses its power."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """End it in order, if it runs."""
        if self.process is not None:
            self.thaw()
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def lose_disk(self) -> None:
        """Everything that a broker which does not run had kept."""
        assert self.process is None
        shutil.rmtree(self.folder / "data")

    def freeze(self) -> None:
        """It hangs: connections stay, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def _log(self) -> Path:
        return self.folder / "broker.log"

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"

    def _format(self) -> None:
        (self.folder / "log4j2.properties").write_text(_LOGGING)
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in self._all_properties().items()))
        formatter = [*java(FORMATTER_FLAGS, self.folder), "kafka.tools.StorageTool", "format", "-t", CLUSTER]
        rest = ["-c", str(self._settings), "--standalone", *self.formatting]
        done = subprocess.run(
            [*formatter, *rest], cwd=self.folder, capture_output=True, text=True, timeout=READY_SECONDS
        )
        if done.returncode:
            raise SpectrumError(f"Kafka's storage could not be formatted: {(done.stdout + done.stderr)[-1000:]}")

    def _all_properties(self) -> Mapping[str, str]:
        own = ",".join(f"{name}://{HOST}:{self.ports[name]}" for name in self.listeners)
        protocols = ",".join(f"{name}:{name}" for name in self.listeners)
        return {
            **_PROPERTIES,
            "log.dirs": str(self.folder / "data"),
            "listeners": f"{own},CONTROLLER://{HOST}:{self.ports['CONTROLLER']}",
            "advertised.listeners": own,
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": self.listeners[0],
            "controller.quorum.bootstrap.servers": f"{HOST}:{self.ports['CONTROLLER']}",
            **self.properties,
        }

    def _await_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_SECONDS
        while READY not in (said := self._log.read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SpectrumError(f"Kafka does not start: {said[-1500:]}")
            time.sleep(0.05)


def java(flags: Sequence[str], folder: Path) -> list[str]:
    """The command line up to the class that is to run."""
    logging = f"-Dlog4j2.configurationFile=file:{folder / 'log4j2.properties'}"
    return ["java", *flags, "-Djava.awt.headless=true", logging, "-cp", f"{jars()}/*"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that nobody gets by connecting."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SpectrumError("There are no free ports.")


def _die_with_parent() -> Callable[[], None]:
    library = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)

    return ask


# ---- what it runs


@cache
def jars() -> Path:
    """The folder with Kafka's jars. Raises `SpectrumError` with a remedy where they can't be had."""
    check_programs("java")
    folder = REPOSITORY / ".cache/kafka" / hashlib.sha256(POM.read_bytes()).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            check_programs("mvn")
            _fetch(folder)
    return folder


def check_programs(*names: str) -> None:
    """Raises `SpectrumError` with a remedy where one is missing, or Java is too old."""
    if missing := [name for name in names if shutil.which(name) is None]:
        raise SpectrumError(
            f"{' and '.join(missing)} not found. Install Java {JAVA_SINCE} or later and Maven"
            " (on Debian: apt-get install openjdk-17-jre-headless maven)."
        )
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=60).stderr
    version = said.partition('"')[2].partition('"')[0].partition(".")[0]
    if not version.isdigit() or int(version) < JAVA_SINCE:
        raise SpectrumError(f"Java is of version {version or 'unknown'}, Kafka needs {JAVA_SINCE} or later.")


def _fetch(folder: Path) -> None:
    partial = folder.with_suffix(".partial")
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    for again in ((), ("-U",), ("-U",)):  # Maven remembers for a day what it did not find: it is told to look again
        shutil.rmtree(partial, ignore_errors=True)
        fetched = subprocess.run(
            [*command, *again, f"-DoutputDirectory={partial}"], capture_output=True, text=True, timeout=FETCH_SECONDS
        )
        if fetched.returncode == 0:
            partial.rename(folder)
            return
    raise SpectrumError(
        f"Maven did not fetch Kafka: {(fetched.stdout + fetched.stderr).strip()[-800:]}. Let it reach its repository once."
    )

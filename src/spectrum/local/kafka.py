"""The part that is Apache Kafka, one node that controls itself (KRaft): `python -m spectrum.local.kafka HOME PORT CONTROLLER_PORT`.

Java has to be there; Kafka itself comes through Maven once, into the user's cache. This process becomes the broker.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from spectrum.local.errors import LocalError
from spectrum.local.home import Home
from spectrum.local.logs import say

POM = Path(__file__).with_name("kafka.xml")
HOST = "127.0.0.1"
CLUSTER = "spectrum-local-000000A"
JAVA_SINCE = 17
FETCH_SECONDS = 600.0
FORMAT_SECONDS = 90.0
# A small heap, one thread that collects it, and no compiler that works long: the broker of a single machine has little to do.
FLAGS = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
FORMATTER_FLAGS = ("-Xmx96m", *FLAGS[2:])

PROPERTIES = {
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
    "group.consumer.heartbeat.interval.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "10000",
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


def main() -> None:
    home, port, controller = Home(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    try:
        command = broker(home.kafka, {"PLAINTEXT": port, "CONTROLLER": controller}, cache())
    except LocalError as error:
        say(str(error))
        raise SystemExit(1) from None
    os.chdir(home.kafka)
    os.execvp(command[0], command)  # noqa: S606 - the broker itself is the part: its signals and its end are the part's


def broker(
    folder: Path,
    ports: Mapping[str, int],
    kept: Path,
    properties: Mapping[str, str] | None = None,
    formatting: Sequence[str] = (),
    flags: Sequence[str] = FLAGS,
) -> list[str]:
    """The command that is a broker in `folder`, whose storage is formatted where it is not yet.

    `ports` are by protocol, such as SASL_SSL, the first for the broker's own use, the last the controller's. Raises `LocalError`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "log4j2.properties").write_text(_LOGGING)
    settings = folder / "server.properties"
    given = _settings(folder, ports) | dict(properties or {})
    settings.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    if not (folder / "data/meta.properties").exists():
        _format(folder, settings, formatting, kept)
    return [*java(flags, folder, kept), "kafka.Kafka", str(settings)]


def _settings(folder: Path, ports: Mapping[str, int]) -> dict[str, str]:
    *own, controller = ports
    listeners = ",".join(f"{name}://{HOST}:{ports[name]}" for name in own)
    protocols = ",".join(f"{name}:{name}" for name in own)
    return {
        **PROPERTIES,
        "log.dirs": str(folder / "data"),
        "listeners": f"{listeners},CONTROLLER://{HOST}:{ports[controller]}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": own[0],
        "controller.quorum.bootstrap.servers": f"{HOST}:{ports[controller]}",
    }


def _format(folder: Path, settings: Path, formatting: Sequence[str], kept: Path) -> None:
    formatter = [*java(FORMATTER_FLAGS, folder, kept), "kafka.tools.StorageTool", "format", "-t", CLUSTER]
    rest = ["-c", str(settings), "--standalone", *formatting]
    done = subprocess.run([*formatter, *rest], cwd=folder, capture_output=True, text=True, timeout=FORMAT_SECONDS)
    if done.returncode:
        said = (done.stdout + done.stderr)[-1000:]
        raise LocalError(f"Kafka's storage in {folder} could not be formatted: {said}", "Look into what it says")


def java(flags: Sequence[str], folder: Path, kept: Path) -> list[str]:
    """The command line up to the class that is to run."""
    logging = f"-Dlog4j2.configurationFile=file:{folder / 'log4j2.properties'}"
    return ["java", *flags, "-Djava.awt.headless=true", logging, "-cp", f"{jars(kept)}/*"]


# ---- what it runs


def cache() -> Path:
    """Where this user keeps what can be fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spectrum"


def jars(kept: Path) -> Path:
    """The folder with Kafka's jars, below `kept`; they are fetched once. Raises `LocalError`."""
    check_programs("java")
    folder = kept / "kafka" / hashlib.sha256(POM.read_bytes()).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            check_programs("mvn")
            _fetch(folder)
    return folder


def check_programs(*names: str) -> None:
    """Raises `LocalError` where one is missing, or Java is too old."""
    remedy = f"Install Java {JAVA_SINCE} or later and Maven (on Debian: apt-get install openjdk-17-jre-headless maven)"
    if missing := [name for name in names if shutil.which(name) is None]:
        raise LocalError(f"Kafka needs {' and '.join(missing)}, not found here", remedy)
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=60).stderr
    version = said.partition('"')[2].partition('"')[0].partition(".")[0]
    if not version.isdigit() or int(version) < JAVA_SINCE:
        raise LocalError(f"Java is of version {version or 'unknown'}, Kafka needs {JAVA_SINCE} or later", remedy)


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
    said = (fetched.stdout + fetched.stderr).strip()[-800:]
    raise LocalError(f"Maven did not fetch Kafka: {said}", "Let it reach its repository once")


if __name__ == "__main__":
    main()

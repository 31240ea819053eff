"""The whole system with a real Kafka: hints that workers hear, facts that others read, and a broker that is killed meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from spectrum.core.events.catalogue import FACTS
from spectrum.local import lifecycle
from spectrum.local.errors import LocalError
from spectrum.local.home import stored_ports
from spectrum.local.kafka import cache, jars
from spectrum.transports.protocol import hints_topic
from tests.e2e.installation import Installation, installed
from tests.kafka.reader import in_order, reading
from tests.kafka.test_hints import waiting
from tests.keeper import is_missing
from tests.waiting import wait_until

HEARS = "hints come by Kafka"
SECONDS = 120.0


def restarted(installation: Installation) -> None:
    with installation.client() as client:
        job = client.jobs.wait(client.instances.restart("demo").id, timeout=SECONDS)
    assert job.state == "succeeded"


def heard(installation: Installation) -> int:
    """How often the worker began to hear."""
    return installation.home.log("worker").read_text().count(HEARS)


def test_hints_and_facts_travel_by_kafka_and_its_end_stops_nobody(tmp_path: Path) -> None:
    try:
        jars(cache())
    except LocalError as error:
        is_missing("kafka", f"no Kafka for tests: {error}")
    with installed(tmp_path, "--bus", "kafka") as installation:
        address = f"127.0.0.1:{stored_ports(installation.home).kafka}"
        wait_until(lambda: heard(installation), SECONDS)
        restarted(installation)
        topic = next(iter(_hint_topics(address)))
        wait_until(lambda: _dealt_with(address, topic), SECONDS)

        installation.kill("kafka")
        restarted(installation)
        wait_until(lambda: heard(installation) > 1, SECONDS)
        restarted(installation)

        with installation.client() as client:
            listed = {event.id for event in client.events.list()}
        with reading(address, FACTS) as reader:
            reader.until(lambda: listed <= reader.ids, SECONDS)
        assert in_order(reader.events)

        installation.down()
        installation.up()  # as last time
        assert "kafka" in {part.name for part in lifecycle.read(installation.home).parts}


def _hint_topics(address: str) -> list[str]:
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(bootstrap_servers=address)
    try:
        return [name for name in consumer.topics() if name.startswith(hints_topic(""))]
    finally:
        consumer.close()


def _dealt_with(address: str, topic: str) -> bool:
    """Every hint was heard, and committed by the group."""
    return waiting(address, topic) == 0


def test_without_java_it_is_told_what_to_install_and_nothing_is_started(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to("/bin/sh")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPECTRUM_")}
    environment = {**kept, "SPECTRUM_HOME": str(home), "PATH": str(tmp_path / "bin"), "NO_COLOR": "1"}
    ended = subprocess.run(
        (sys.executable, "-m", "spectrum.cli", "up", "--bus", "kafka"), env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "Kafka needs java, not found here" in ended.stderr
    assert "apt-get install openjdk-17-jre-headless maven" in ended.stderr
    assert not (home / "postgres").exists()
    assert not (home / "bus").exists()

"""A system at work while its Kafka is harmed, and whether anything was lost by it: `make soak-kafka SECONDS=300 RATE=100`.

For each harm a whole system as in `bench.jobs`, with jobs at an even rate: a broker that is killed (SIGKILL) and stays away, that
hangs (SIGSTOP), that comes back without its disk, and a group of workers that rebalances every five seconds. No write may be
refused, no fact be lost, no subject's facts be turned around, and the backlog has to be there within a minute.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer

from bench.dispatch import scratch, with_kafka
from bench.jobs import Stage, at
from spectrum.core.events.catalogue import FACTS
from spectrum.transports.kafka import topics
from spectrum.transports.protocol import hints_topic
from tests.kafka.broker import Broker
from tests.kafka.conftest import settings_of
from tests.kafka.reader import first_times, reading

BEFORE, AFTER = 5.0, 20.0  # seconds of work before the harm, and after it
DRAIN_SECONDS = 60.0
REBALANCE_SECONDS = 5.0
CALLERS = 256

_CURSOR = "SELECT position FROM cursors WHERE consumer = 'relay'"
_END = "SELECT coalesce(max(position), 0) AS position, count(*) FILTER (WHERE position IS NULL) AS rest FROM events"
_DISPATCH = """
SELECT extract(epoch FROM started_at - created_at)::float8 AS seconds FROM jobs
WHERE operation = 'restart' AND started_at IS NOT NULL AND created_at >= to_timestamp($1)"""


@dataclass
class Scene:
    """What is harmed. `lost_before`: facts up to there were acknowledged by a disk that is gone."""

    stage: Stage
    broker: Broker
    lost_before: int = 0

    @property
    def position(self) -> int:
        """How far the relay has come."""
        rows = self.stage.ask(_CURSOR)
        return int(rows[0]["position"]) if rows else 0

    @property
    def end(self) -> tuple[int, int]:
        """How far the log has come, and how many events have no position yet."""
        (row,) = self.stage.ask(_END)
        return int(row["position"]), int(row["rest"])


@contextmanager
def killed(scene: Scene, seconds: float) -> Iterator[None]:
    scene.broker.kill()
    time.sleep(seconds)
    yield
    scene.broker.start()


@contextmanager
def hanging(scene: Scene, seconds: float) -> Iterator[None]:
    scene.broker.freeze()
    time.sleep(seconds)
    yield
    scene.broker.thaw()


@contextmanager
def without_disk(scene: Scene, seconds: float) -> Iterator[None]:
    scene.broker.kill()
    scene.lost_before = scene.position
    scene.broker.lose_disk()
    time.sleep(seconds)
    yield
    scene.broker.start()
    topics.create(settings_of(scene.broker.address))


@contextmanager
def rebalancing(scene: Scene, seconds: float) -> Iterator[None]:
    """Somebody joins the group of the workers and leaves it, again and again."""
    (pool,) = scene.stage.ask("SELECT DISTINCT pool_id FROM targets")
    topic, end = hints_topic(pool["pool_id"]), time.monotonic() + seconds
    group = {"group.id": topic, "group.protocol": "consumer", "enable.auto.commit": False}
    while time.monotonic() < end:
        guest = Consumer({"bootstrap.servers": scene.broker.address, **group})
        guest.subscribe([topic])
        guest.poll(REBALANCE_SECONDS)
        guest.close()
    yield


Harm = Callable[[Scene, float], AbstractContextManager[None]]
HARMS: Mapping[str, Harm] = {"kill": killed, "hang": hanging, "disk": without_disk, "rebalance": rebalancing}


def soak(name: str, folder: Path, rate: float, seconds: float) -> list[str]:
    """Play one harm, tell what came of it, and answer what must not have been."""
    with with_kafka(folder, CALLERS) as (stage, broker), ThreadPoolExecutor(1) as beside:
        scene, began = Scene(stage, broker), time.time()
        load = beside.submit(stage.order, do="pace", rate=rate, seconds=BEFORE + seconds + AFTER)
        time.sleep(BEFORE)
        with HARMS[name](scene, seconds):
            behind = scene.end[0]
            backlog = behind - scene.position
        drained = _drain(scene, behind)
        told = load.result()
        _drain(scene, None)
        dispatch = sorted(row["seconds"] for row in stage.ask(_DISPATCH, began))
        jobs = len(told["took"])
        print(
            f"{name:<10}{jobs:>8} jobs at {jobs / told['seconds']:.0f}/s, refused {told['refused']}, backlog {backlog} facts,"
            f" there after {drained:.1f} s; submitted to claimed p50 {1000 * at(0.5, dispatch):.0f} ms,"
            f" p99 {1000 * at(0.99, dispatch):.0f} ms, longest {1000 * at(1.0, dispatch):.0f} ms",
            flush=True,
        )
        faults = [f"{told['refused']} writes were refused"] if told["refused"] else []
        if drained > DRAIN_SECONDS:
            faults.append(f"the backlog took {drained:.0f} s")
        return faults + list(_untold(scene))


def _drain(scene: Scene, behind: int | None) -> float:
    """Seconds until everything up to a position, or everything that is there, was told."""
    began = time.monotonic()
    while True:
        end, rest = scene.end
        if scene.position >= (end if behind is None else behind) and (behind is not None or not rest):
            return time.monotonic() - began
        if time.monotonic() - began > 10 * DRAIN_SECONDS:
            raise RuntimeError(f"the relay came to {scene.position} of {end}, and no further")
        time.sleep(0.1)


def _untold(scene: Scene) -> Iterator[str]:
    """What an independent reader of the whole topic misses in it."""
    wanted = set(range(scene.lost_before + 1, scene.end[0] + 1))
    with reading(scene.broker.address, FACTS) as reader:
        events = reader.distinct(len(wanted), seconds=600)
    if missing := wanted - {int(event.get_extension("position")) for event in events}:
        yield f"{len(missing)} facts were lost, such as the one at position {min(missing)}"
    for subject, sequences in first_times(events).items():
        if list(sequences) != list(range(sequences[0], sequences[0] + len(sequences))):
            yield f"facts of {subject} were turned around"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="jobs a second")
    parser.add_argument("--seconds", type=float, default=300.0, help="that each harm lasts")
    parser.add_argument("--harms", default=",".join(HARMS), help="some of them, with commas between")
    parser.add_argument("--folder", type=Path, help="where the data lies meanwhile: a real disk")
    given = parser.parse_args()
    wrong = []
    for name in given.harms.split(","):
        with scratch(given.folder) as folder:
            wrong += [f"{name}: {fault}" for fault in soak(name, folder, given.rate, given.seconds)]
    for fault in wrong:
        print(fault, flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

"""How soon a job is claimed, and what that costs: hints by long polls and by Kafka, side by side in one run: `make dispatch`.

Two whole systems as in `bench.jobs`, alike but for the bus, each with its own PostgreSQL; one of them works while the other rests,
and they take turns. `kafka` is what the broker's process used.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.jobs import START_SECONDS, Round, Stage, columns, ground, staged
from spectrum.settings import KAFKA, POLL
from spectrum.transports.kafka import topics
from tests.kafka.broker import Broker
from tests.kafka.conftest import settings_of

HEARS = "hints come by Kafka"


@contextmanager
def with_kafka(folder: Path, callers: int) -> Iterator[tuple[Stage, Broker]]:
    """A system whose hints and facts go to a broker of its own, and whose worker hears them by now."""
    broker = Broker(folder / "kafka")
    try:
        broker.start()
        topics.create(settings_of(broker.address))
        with staged(folder, callers, bus=f"{KAFKA}://{broker.address}") as stage:
            assert broker.process is not None
            stage.processes[KAFKA] = broker.process
            _await_hearing(stage)
            yield stage, broker
    finally:
        broker.stop()


def _await_hearing(stage: Stage) -> None:
    deadline = time.monotonic() + START_SECONDS
    while HEARS not in (said := (stage.folder / "worker.log").read_text()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the worker hears no hints: {said[-2000:]}")
        time.sleep(0.1)


@contextmanager
def scratch(parent: Path | None) -> Iterator[Path]:
    """A folder that others than its owner may pass through: as root, PostgreSQL runs as another account."""
    folder = Path(tempfile.mkdtemp(prefix="spectrum-bench-", dir=parent))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="that count of each round")
    parser.add_argument("--warm", type=float, default=2.0, help="seconds before them")
    parser.add_argument("--levels", default="1,16,256", help="jobs in flight, such as 1,16")
    parser.add_argument("--folder", type=Path, help="where the data lies meanwhile: a real disk")
    given = parser.parse_args()
    levels = [int(level) for level in given.levels.split(",")]
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(given.folder))
        stages = {name: folder / name for name in (POLL, KAFKA)}
        for place in stages.values():
            place.mkdir(mode=0o711)
        poll = stack.enter_context(staged(stages[POLL], max(levels)))
        kafka, _ = stack.enter_context(with_kafka(stages[KAFKA], max(levels)))
        print(ground(poll), flush=True)
        rounds: dict[str, list[Round]] = {f"{level} {name}": [] for level in levels for name in (POLL, KAFKA)}
        for _ in range(given.rounds):
            for level in levels:
                for name, stage in ((POLL, poll), (KAFKA, kafka)):
                    rounds[f"{level} {name}"].append(stage.measure(level, given.warm, given.seconds))
        print(columns("jobs in flight, bus", rounds), flush=True)


if __name__ == "__main__":
    main()

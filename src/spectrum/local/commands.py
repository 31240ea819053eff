"""What `up`, `down` and `status` do, from the first folder to the last line printed."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spectrum.db.embedded import Embedded, EmbeddedError
from spectrum.local import lifecycle
from spectrum.local.errors import LocalError
from spectrum.local.home import Home, alone, check_owner, choose_ports, locate, prepare, stored_ports, write
from spectrum.local.setup import Ready, set_up
from spectrum.local.system import system_parts
from spectrum.settings import KAFKA, POLL, ServerSettings

Report = Callable[[str], None]

BASE = ("postgres", "server")
WATCH_PAUSE = 0.5  # seconds between two looks at the logs of an attended installation


def up(report: Report, bus: str | None = None) -> Ready:
    """Everything running and a first instance answering. Interrupted anywhere, the next call goes on from there.

    `bus` is `poll` or `kafka`; without it, as it was last. Raises `LocalError` or the SDK's `ClientError`, each with its remedy.
    """
    home = locate()
    prepare(home)
    with alone(home, "up"):
        kafka = _wants_kafka(home, bus, report)
        parts = system_parts(home, choose_ports(home, kafka=kafka), kafka=kafka)
        report(f"Starting PostgreSQL{', Kafka' if kafka else ''} and the control plane in {home.root}")
        lifecycle.start(home, parts)
        lifecycle.await_running(home, (*BASE, *((KAFKA,) if kafka else ())))
        if kafka:
            _have_topics(home)
        return set_up(home, report, lambda: lifecycle.await_running(home, tuple(part.name for part in parts)))


def _wants_kafka(home: Home, bus: str | None, report: Report) -> bool:
    """Raises `LocalError` where Kafka is wanted and can't run here: before anything is changed."""
    known = home.bus.read_text().strip() if home.bus.exists() else POLL
    kafka = (bus or known) == KAFKA
    if kafka:
        from spectrum.local.kafka import cache, jars

        report("Looking for Kafka (the first time, Maven fetches 40 MB)")
        jars(cache())
    write(home.bus, f"{KAFKA if kafka else POLL}\n")
    return kafka


def _have_topics(home: Home) -> None:
    """The one of facts; those of hints are the control plane's to make."""
    from spectrum.transports.kafka import topics

    kafka = ServerSettings(bus=f"{KAFKA}://127.0.0.1:{stored_ports(home).kafka}").kafka
    if kafka is not None:
        try:
            topics.create(kafka)
        except topics.TopicsError as error:
            raise LocalError(str(error).rstrip("."), f"Look into {home.log(KAFKA)}") from None


def down(report: Report) -> None:
    """Parts and instances stopped. Data and desired state stay."""
    home = locate()
    if not home.run.is_dir():
        report(f"Nothing runs in {home.root}")
        return
    check_owner(home.root)
    with alone(home, "down"):
        lifecycle.stop(home, report)
        _stop_instances(home, report)
        _stop_database(home)
    report(f"Everything in {home.root} is stopped; its data is kept")


def status() -> lifecycle.Status:
    return lifecycle.read(locate())


def attend(report: Report) -> None:
    """Stay with what `up` started and show its logs; Ctrl-C or SIGTERM bring it down. Raises `LocalError` if it ends."""
    home = locate()
    with _told_to_end() as told:
        logs = _follow_logs(home)
        while not select.select([told], [], [], WATCH_PAUSE)[0]:
            for line in next(logs):
                sys.stderr.write(line)
            if lifecycle.read(home).supervisor is None:
                raise LocalError(f"The supervisor of {home.root} has ended", "spectrum up")
        down(report)


def _stop_instances(home: Home, report: Report) -> None:
    """Through the target's own provider: with the worker down there is nobody else to ask."""
    if not home.instances.is_dir():
        return
    from spectrum.providers.process.provider import ProcessProvider

    report("Stopping the instances")
    asyncio.run(ProcessProvider(home.instances).shutdown())


def _stop_database(home: Home) -> None:
    """A server that lost its watcher is still ours to stop."""
    if not home.database.is_dir():
        return
    try:
        Embedded(home.database).stop()
    except EmbeddedError as error:
        raise LocalError(str(error).rstrip("."), "spectrum down again") from None


@contextmanager
def _told_to_end() -> Iterator[int]:
    """A descriptor that is readable once the user or the system asks to end; the handlers are put back afterwards."""
    told, telling = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: os.write(telling, b".") and None) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)
        os.close(telling)


def _follow_logs(home: Home) -> Iterator[list[str]]:
    """New lines of all parts' logs since the last time, each with its part's name."""
    names = [part.name for part in lifecycle.read(home).parts]
    positions = {name: _size(home, name) for name in names}
    while True:
        fresh = []
        for name in names:
            size = _size(home, name)
            with home.log(name).open(errors="replace") as file:
                file.seek(positions[name] if positions[name] <= size else 0)
                fresh += [f"{name}  {line.rstrip()}\n" for line in file]
                positions[name] = file.tell()
        yield fresh


def _size(home: Home, name: str) -> int:
    log = home.log(name)
    log.touch()
    return log.stat().st_size

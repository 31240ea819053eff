"""Ring 2 from the command line: a PostgreSQL of its own, a range of seeds over several processes, and their sums."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

import structlog

from sim.interleave.ring import LEFT, RIGHT, Outcome, Summary, opened, solos
from spectrum.db.bootstrap import bootstrap, derive_passwords, role_urls
from spectrum.db.embedded import Embedded
from spectrum.db.pools import Role

Flag = Any  # a boolean that processes share; its type has no name
_ENDS = (signal.SIGTERM, signal.SIGINT)
_over: Flag = RawValue(ctypes.c_bool, False)

SECRET = b"ring 2 guards nothing".ljust(32)


def run(seeds: range, jobs: int, seconds: float | None = None) -> tuple[Summary, list[Outcome]]:
    """Interleave these seeds; returns the sums, and the outcomes that were not as they should be.

    What `seconds`, a SIGTERM or Ctrl-C cuts off has sums all the same, of what was done until then.
    """
    parts = [seeds[n::jobs] for n in range(min(jobs, len(seeds)))]
    names = [f"ring_{n}" for n in range(len(parts))]
    summary, failures = Summary(), list[Outcome]()
    with (
        _until(seconds) as over,
        _server() as admin_url,
        ProcessPoolExecutor(len(parts), initializer=_heed, initargs=(over,)) as pool,
    ):
        for sums, failed in pool.map(_part, [admin_url] * len(parts), names, parts):
            summary.merge(sums)
            failures += failed
    return summary, failures


@contextmanager
def _until(seconds: float | None) -> Iterator[Flag]:
    """What says that no other interleaving shall begin: time is up, or somebody asked for the end."""
    over = RawValue(ctypes.c_bool, False)

    def end(*_: object) -> None:
        over.value = True

    before = {number: signal.signal(number, end) for number in _ENDS}
    timer = threading.Timer(seconds or 0.0, end)
    if seconds is not None:
        timer.start()
    try:
        yield over
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _heed(over: Flag) -> None:
    """In each process: its parent says when it is over, also where a signal goes to all of them."""
    global _over
    _over = over
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)


def replay(seed: int) -> Outcome:
    """One interleaving again."""
    with _server() as admin_url:
        quiet()
        return asyncio.run(_one(admin_url, seed))


def quiet() -> None:
    """What production code logs of refusals and retries is what is asked of it here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@contextmanager
def _server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="spectrum-ring2-") as folder:
        Path(folder).chmod(0o755)  # as root, PostgreSQL runs as somebody else
        embedded = Embedded(Path(folder) / "postgres", durable=False, dies_with_parent=True)
        try:
            yield embedded.start().url()
        finally:
            embedded.remove()


async def _prepared(admin_url: str, database: str) -> Mapping[Role, str]:
    passwords = derive_passwords(SECRET)
    await bootstrap(admin_url, database, passwords, ahead_days=0)
    return role_urls(admin_url, database, passwords)


def _part(admin_url: str, database: str, seeds: Sequence[int]) -> tuple[Summary, list[Outcome]]:
    quiet()
    return asyncio.run(_seeds(admin_url, database, seeds))


async def _seeds(admin_url: str, database: str, seeds: Sequence[int]) -> tuple[Summary, list[Outcome]]:
    summary, failures = Summary(), list[Outcome]()
    if _over.value:
        return summary, failures
    async with opened(admin_url, database, await _prepared(admin_url, database)) as ring:
        for name, scene in solos():
            if not _over.value:
                _keep(await ring.alone(name, scene), failures)
        for seed in seeds:
            if _over.value:
                break
            outcome = await ring.interleave(seed)
            summary.add(outcome)
            _keep(outcome, failures)
        summary.close(ring)
    return summary, failures


def _keep(outcome: Outcome, failures: list[Outcome]) -> None:
    if outcome.anomalies:
        failures.append(outcome.without_answers())


async def _one(admin_url: str, seed: int) -> Outcome:
    async with opened(admin_url, "ring_0", await _prepared(admin_url, "ring_0")) as ring:
        return await ring.interleave(seed)


def story(outcome: Outcome) -> str:
    """What a person reads of one interleaving: who did what, in order, and what was wrong with it."""
    who = " · ".join(f"{side}: {name}" for side, name in zip((LEFT, RIGHT), outcome.pair, strict=False))
    head = f"seed {outcome.seed} · scene {outcome.scene} · {who} · {outcome.digest}"
    came = [f"  {name}: {outcome.said(name)}" for name in sorted(outcome.answers)]
    wrong = [f"  WRONG {anomaly}" for anomaly in outcome.anomalies] or ["  as it should be"]
    return "\n".join([head, *(f"{n:>4}  {line}" for n, line in enumerate(outcome.story, 1)), *came, *wrong])

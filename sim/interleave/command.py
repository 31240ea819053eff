"""Ring 2 from the command line: a PostgreSQL of its own, a range of seeds over several processes, and their sums."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import structlog

from sim.interleave.ring import Outcome, Summary, opened
from spectrum.db.bootstrap import bootstrap, derive_passwords, role_urls
from spectrum.db.embedded import Embedded
from spectrum.db.pools import Role

SECRET = b"ring 2 guards nothing".ljust(32)


def run(seeds: range, jobs: int) -> tuple[Summary, list[Outcome]]:
    """Interleave these seeds; returns the sums, and the outcomes that were not as they should be."""
    parts = [seeds[n::jobs] for n in range(min(jobs, len(seeds)))]
    with _server() as admin_url:
        if len(parts) == 1:
            return _part(admin_url, "ring_0", parts[0])
        with ProcessPoolExecutor(len(parts)) as pool:
            names = [f"ring_{n}" for n in range(len(parts))]
            summary, failures = Summary(), list[Outcome]()
            for sums, failed in pool.map(_part, [admin_url] * len(parts), names, parts):
                summary.merge(sums)
                failures += failed
            return summary, failures


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
    async with opened(admin_url, database, await _prepared(admin_url, database)) as ring:
        await ring.record_locks()
        for seed in seeds:
            outcome = await ring.interleave(seed)
            summary.add(outcome)
            if outcome.anomalies:
                failures.append(outcome.without_answers())
        summary.close(ring)
    return summary, failures


async def _one(admin_url: str, seed: int) -> Outcome:
    async with opened(admin_url, "ring_0", await _prepared(admin_url, "ring_0")) as ring:
        return await ring.interleave(seed)


def story(outcome: Outcome) -> str:
    """What a person reads of one interleaving: who did what, in order, and what was wrong with it."""
    left, right = outcome.pair
    head = f"seed {outcome.seed} · scene {outcome.scene} · left: {left} · right: {right} · {outcome.digest}"
    came = [f"  {name}: {outcome.said(name)}" for name in sorted(outcome.answers)]
    wrong = [f"  WRONG {anomaly}" for anomaly in outcome.anomalies] or ["  as it should be"]
    return "\n".join([head, *(f"{n:>4}  {line}" for n, line in enumerate(outcome.story, 1)), *came, *wrong])

"""Looks at the jobs several times a second while the faults last: how each went, who answered, and from the log, who had it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import asyncpg

from chaos.nemesis import POSTGRES
from chaos.parts import answers
from chaos.timeline import Fact, Look
from sim.promises import REACHABLE
from spectrum.core.jobs.table import JobState

PERIOD = 0.2  # seconds
_JOBS = """
SELECT id, state, version, fence, lease_id, worker_id, clock_timestamp() AS at FROM jobs
WHERE finished_at IS NULL OR finished_at > now() - interval '1 minute'
"""
_RENEWALS = "SELECT id, renewed_at FROM leases WHERE ended_at IS NULL"
_FACTS = """
SELECT data->>'job_id' AS job, split_part(type, '.', 3) || '.' || split_part(type, '.', 4) AS type,
       data->>'worker_id' AS worker, recorded_at AS at, position
FROM events WHERE data ? 'job_id'
UNION ALL SELECT job_id, 'attempt', worker_id, intent_at, NULL FROM attempts WHERE intent_at IS NOT NULL
UNION ALL SELECT job_id, 'attempt', worker_id, outcome_at, NULL FROM attempts WHERE outcome <> 'unknown'
ORDER BY at, position
"""
_STARTS = "SELECT worker_id, started_at FROM leases ORDER BY started_at"


async def facts(admin_url: str) -> Mapping[str, Sequence[Fact]]:
    """All facts of each job, in order."""
    admin = await asyncpg.connect(admin_url)
    try:
        found: dict[str, list[Fact]] = {}
        for row in await admin.fetch(_FACTS):
            found.setdefault(row["job"], []).append(Fact(row["at"].timestamp(), row["type"], row["worker"]))
        return found
    finally:
        await admin.close()


async def starts(admin_url: str) -> Mapping[str, Sequence[float]]:
    """When each worker's incarnations began: moments of PostgreSQL's clock, by worker."""
    admin = await asyncpg.connect(admin_url)
    try:
        found: dict[str, list[float]] = {}
        for row in await admin.fetch(_STARTS):
            found.setdefault(row["worker_id"], []).append(row["started_at"].timestamp())
        return found
    finally:
        await admin.close()


@dataclass
class Watcher:
    """`fronts`: where each control plane answers, by name. `answered`: when each part did; a list is in order of time."""

    admin_url: str
    fronts: Mapping[str, str] = field(default_factory=dict)
    seen: dict[str, list[Look]] = field(default_factory=dict)
    renewals: dict[str, list[float]] = field(default_factory=dict)
    answered: dict[str, list[float]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=lambda: asyncio.run(self._watch())),
            *(threading.Thread(target=self._ask, args=(name, url)) for name, url in self.fronts.items()),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask(self, name: str, url: str) -> None:
        """Readiness, again and again: a control plane is back when it answers, not when its process was started."""
        while not self._over.wait(PERIOD):
            if answers(f"{url}/readyz"):
                self.answered.setdefault(name, []).append(time.time())

    async def _watch(self) -> None:
        """PostgreSQL comes and goes; so does this connection."""
        while not self._over.is_set():
            try:
                connection = await asyncpg.connect(self.admin_url, timeout=5)
                try:
                    await self._look(connection)
                finally:
                    await connection.close(timeout=1)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(PERIOD)

    async def _look(self, connection: Any) -> None:
        while not self._over.is_set():
            for row in await connection.fetch(_JOBS, timeout=5):
                self._note(row)
            for row in await connection.fetch(_RENEWALS, timeout=5):
                self._note_renewal(row["id"], row["renewed_at"].timestamp())
            self.answered.setdefault(POSTGRES, []).append(time.time())
            await asyncio.sleep(PERIOD)

    def _note(self, row: Any) -> None:
        looks = self.seen.setdefault(row["id"], [])
        look = Look(
            row["at"].timestamp(),
            JobState(row["state"]),
            row["version"],
            row["fence"],
            row["lease_id"],
            row["worker_id"],
        )
        if not looks or looks[-1].version != look.version or looks[-1].fence != look.fence:
            looks.append(look)

    def _note_renewal(self, lease: str, moment: float) -> None:
        moments = self.renewals.setdefault(lease, [])
        if not moments or moments[-1] != moment:
            moments.append(moment)

    def broken(self) -> Iterator[str]:
        """What no job may do from one look to the next, in any number of steps."""
        for job, looks in self.seen.items():
            for before, after in pairwise(looks):
                if after.state not in REACHABLE[before.state]:
                    yield f"P5: job {job} went from {before.state} to {after.state}"
                if after.version <= before.version or after.fence < before.fence:
                    yield f"P5: job {job}: version {before.version} became {after.version}, fence {before.fence} {after.fence}"
                if after.lease is not None and after.lease != before.lease and after.fence <= before.fence:
                    yield f"P4: job {job} was claimed anew under fence {after.fence}, as before"

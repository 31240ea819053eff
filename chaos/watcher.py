"""Looks at the jobs several times a second while the faults last: how each went, and from the log, when it was taken up again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import asyncpg

from chaos.nemesis import Done, Kind
from chaos.parts import WORKERS
from sim.promises import REACHABLE
from spectrum.core.jobs.table import JobState

PERIOD = 0.2  # seconds
_JOBS = """
SELECT id, state, version, fence, lease_id, worker_id, clock_timestamp() AS at FROM jobs
WHERE finished_at IS NULL OR finished_at > now() - interval '1 minute'
"""
_FACTS = """
SELECT data->>'job_id' AS job, split_part(type, '.', 3) || '.' || split_part(type, '.', 4) AS type,
       data->>'worker_id' AS worker, recorded_at AS at
FROM events WHERE data ? 'job_id' ORDER BY position
"""
_STARTS = "SELECT worker_id, started_at FROM leases ORDER BY started_at"
_CLAIMED, _RESCUED = "job.claimed", "job.rescued"
_ENDED = tuple(f"job.{state}" for state in JobState if state.terminal)


@dataclass(frozen=True)
class Look:
    """A job as it was at a moment of PostgreSQL's clock."""

    at: float
    state: JobState
    version: int
    fence: int
    lease: str | None
    worker: str | None


@dataclass(frozen=True)
class Fact:
    """What the log says of a job: a moment of PostgreSQL's clock, written in the transaction that it tells of."""

    at: float
    type: str
    worker: str | None

    @property
    def ends(self) -> bool:
        return self.type in _ENDED

    @property
    def held(self) -> bool:
        """Whether somebody has the job in hand, or has ended it."""
        return self.type == _CLAIMED or self.ends or self.type.startswith("step.")


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
    admin_url: str
    seen: dict[str, list[Look]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=lambda: asyncio.run(self._watch()))
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

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

    # ---- what it shows

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

    def claims(
        self,
        done: Sequence[Done],
        workers: Mapping[str, str],
        facts: Mapping[str, Sequence[Fact]],
        starts: Mapping[str, Sequence[float]],
    ) -> Iterator[Claim]:
        """For every job that a worker held when it was killed or frozen: how long nobody had it once that worker was back.

        Who was frozen is back when it wakes; who was killed, when its next incarnation has begun.
        """
        for each in done:
            if each.fault.kind not in (Kind.KILL, Kind.FREEZE) or each.fault.part not in WORKERS:
                continue
            worker = workers[each.fault.part]
            back = each.mended
            if each.fault.kind is Kind.KILL:
                back = next((start for start in starts.get(worker, ()) if start > each.began), back)
            for job, told in facts.items():
                if _holder(told, each.began) != worker:
                    continue
                taken = self._taken_up(job, told, each.began)
                if taken is not None:
                    yield Claim(job, each, max(0.0, taken - back), _quiet(done, each, back, taken))

    def _taken_up(self, job: str, told: Sequence[Fact], after: float) -> float | None:
        """When somebody had it again. None where it was let go meanwhile, to be taken up at a time of its own."""
        taken = next((fact.at for fact in told if fact.at > after and fact.held), None)
        if taken is None:
            return None
        rescued = any(after < fact.at <= taken and fact.type == _RESCUED for fact in told)
        free = any(after < look.at < taken and look.lease is None for look in self.seen.get(job, ()))
        return None if free and not rescued else taken


@dataclass(frozen=True)
class Claim:
    """`waited`: seconds from the part's return. `quiet`: those of them in which no other fault was under way."""

    job: str
    after: Done
    waited: float
    quiet: float


def _holder(told: Sequence[Fact], moment: float) -> str | None:
    """The worker that had the job then; None where nobody had."""
    holder = None
    for fact in told:
        if fact.at > moment:
            break
        if fact.type == _CLAIMED:
            holder = fact.worker
        elif fact.type == _RESCUED or fact.ends:
            holder = None
    return holder


def _quiet(done: Sequence[Done], own: Done, back: float, until: float) -> float:
    """Seconds between the return and `until` without another fault."""
    edge, quiet = back, 0.0
    for other in sorted((d for d in done if d is not own and d.mended > back), key=lambda d: d.began):
        if other.began >= until:
            break
        quiet += max(0.0, other.began - edge)
        edge = max(edge, other.mended)
    return quiet + max(0.0, until - edge)

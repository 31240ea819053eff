"""Looks at the jobs several times a second while the faults last: how each went, and when it was taken up again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import asyncpg

from chaos.nemesis import Done, Kind
from chaos.parts import WORKERS
from sim.promises import REACHABLE
from spectrum.core.jobs.table import JobState

PERIOD = 0.1  # seconds
_JOBS = "SELECT id, state, version, fence, lease_id, worker_id FROM jobs"


@dataclass(frozen=True)
class Look:
    """A job as it was at a moment of the monotonic clock."""

    at: float
    state: JobState
    version: int
    fence: int
    lease: str | None
    worker: str | None

    @property
    def ended(self) -> bool:
        return self.state.terminal


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
            time.monotonic(), JobState(row["state"]), row["version"], row["fence"], row["lease_id"], row["worker_id"]
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

    def claims(self, done: Sequence[Done], workers: dict[str, str]) -> Iterator[Claim]:
        """For every job that a worker held when it was killed or frozen: how long nobody had it once that worker was back."""
        for each in done:
            if each.fault.kind not in (Kind.KILL, Kind.FREEZE) or each.fault.part not in WORKERS:
                continue
            for job, looks in self.seen.items():
                held = _at(looks, each.began)
                if held is not None and held.worker == workers.get(each.fault.part) and held.lease and not held.ended:
                    taken = _taken_up(looks, held)
                    if taken is not None:
                        yield Claim(job, each, max(0.0, taken - each.mended), _quiet(done, each, taken))


@dataclass(frozen=True)
class Claim:
    """`waited`: seconds from the part's return. `quiet`: those of them in which no other fault was under way."""

    job: str
    after: Done
    waited: float
    quiet: float


def _at(looks: Sequence[Look], moment: float) -> Look | None:
    return next((look for look in reversed(looks) if look.at <= moment), None)


def _taken_up(looks: Sequence[Look], held: Look) -> float | None:
    """When somebody was first seen to have it again, or to have ended it."""
    return next(
        (
            look.at
            for look in looks
            if look.at > held.at and (look.ended or (look.lease and look.version > held.version))
        ),
        None,
    )


def _quiet(done: Sequence[Done], own: Done, until: float) -> float:
    """Seconds between the return and `until` without another fault."""
    edge, quiet = own.mended, 0.0
    for other in sorted((d for d in done if d is not own and d.mended > own.mended), key=lambda d: d.began):
        if other.began >= until:
            break
        quiet += max(0.0, other.began - edge)
        edge = max(edge, other.mended)
    return quiet + max(0.0, until - edge)

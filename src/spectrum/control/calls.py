"""Which calls of a worker are heard: signed by its key, in time, and each number once per incarnation, in whatever copy it arrives.

The window of used numbers is a column of the lease's row. Calls that arrive while a window is being moved share the next move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spectrum.control.workers import KnownWorker, Workers
from spectrum.core import signing
from spectrum.core.errors import Problem
from spectrum.core.signing import Call, CallWindow
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import visiting
from spectrum.ports import Clock, Spawner

_LOCK = query("windows_lock")
_MOVE = query("windows_move")

KEPT_SECONDS = 5.0
"""A revoked worker is refused at the latest after this long, and told nothing of its jobs before that."""


@dataclass
class _Used:
    """A number to be used up, and who waits to hear whether it was free."""

    worker: KnownWorker
    lease_id: str
    number: int
    future: asyncio.Future[bool]


@dataclass
class Calls:
    """Admits signed calls. Every copy refuses the same replay."""

    workers: Workers
    engine: Pool
    clock: Clock
    spawner: Spawner
    _known: dict[str, tuple[float, KnownWorker]] = field(default_factory=dict)
    _queue: list[_Used] = field(default_factory=list)
    _moving: bool = False

    async def admit(self, call: Call, lease_id: str | None) -> KnownWorker:
        """Whose call this is.

        Raises Problem `signature-invalid` or `signature-replayed`, or `unavailable`. Calls without a lease (start) have no window:
        they are idempotent by what they say.
        """
        now = self.clock.now()
        read = signing.proven_call(call, now)
        worker = await self._worker(read.key_id)
        if lease_id is not None and not await self._use(worker, lease_id, read.number):
            raise signing.replayed(read.number, now)
        return worker

    async def _worker(self, key_id: str) -> KnownWorker:
        kept = self._known.get(key_id)
        if kept is not None and kept[0] > self.clock.monotonic():
            return kept[1]
        self._known.pop(key_id, None)
        worker = await self.workers.by_key(key_id)
        self._known[key_id] = (self.clock.monotonic() + KEPT_SECONDS, worker)
        return worker

    # ---- the window

    async def _use(self, worker: KnownWorker, lease_id: str, number: int) -> bool:
        used = _Used(worker, lease_id, number, asyncio.get_running_loop().create_future())
        self._queue.append(used)
        if not self._moving:
            self._moving = True
            self.spawner.spawn(self._move_all(), "calls.windows")
        return await used.future

    async def _move_all(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue, []
                await self._move(batch)
        finally:
            self._moving = False

    async def _move(self, batch: list[_Used]) -> None:
        try:
            free = await self._moved(batch)
        except Exception as error:
            for used in batch:
                if not used.future.done():
                    used.future.set_exception(error)
            return
        for used, was_free in zip(batch, free, strict=True):
            if not used.future.done():
                used.future.set_result(was_free)

    async def _moved(self, batch: list[_Used]) -> list[bool]:
        organizations = sorted({used.worker.organization_id for used in batch})
        leases = sorted({used.lease_id for used in batch})
        async with visiting(self.engine, organizations) as connection:
            found = {row["id"]: row for row in await connection.fetch(_LOCK, leases)}
            windows = {i: CallWindow.from_bytes(r["call_highest"], r["call_window"]) for i, r in found.items()}
            free = [self._accept(used, found, windows) for used in batch]
            moved = list(windows.items())
            await connection.execute(
                _MOVE, [i for i, _ in moved], [w.highest for _, w in moved], [w.seen_bytes() for _, w in moved]
            )
        return free

    def _accept(self, used: _Used, found: Mapping[str, Any], windows: dict[str, CallWindow]) -> bool:
        row = found.get(used.lease_id)
        if row is None or row["worker_id"] != used.worker.id:
            used.future.set_exception(Problem("forbidden", f"There is no lease {used.lease_id} of yours."))
            return False
        window = windows[used.lease_id].accept(used.number)
        if window is None:
            return False
        windows[used.lease_id] = window
        return True

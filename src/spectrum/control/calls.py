"""Which calls of a worker are heard: signed by its key, in time, and each number once per incarnation, in whatever copy it arrives.

The window of used numbers is a column of the lease's row. Calls that arrive while a window is being moved share the next move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spectrum.control.workers import KnownWorker, Workers
from spectrum.core import signing
from spectrum.core.errors import Problem
from spectrum.core.signing import Call, CallWindow
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import visiting
from spectrum.gathering import Gathering
from spectrum.ports import Clock, Spawner

_LOCK = query("windows_lock")
_MOVE = query("windows_move")

KEPT_SECONDS = 5.0
"""A revoked worker is refused at the latest after this long, and told nothing of its jobs before that."""


@dataclass
class _Used:
    """A number to be used up."""

    worker: KnownWorker
    lease_id: str
    number: int


@dataclass
class Calls:
    """Admits signed calls. Every copy refuses the same replay."""

    workers: Workers
    engine: Pool
    clock: Clock
    spawner: Spawner
    _known: dict[str, tuple[float, KnownWorker]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._windows = Gathering(self._move, self.spawner, "calls.windows")

    async def admit(self, call: Call, lease_id: str | None) -> KnownWorker:
        """Whose call this is.

        Raises Problem `signature-invalid` or `signature-replayed`, or `unavailable`. Calls without a lease (start) have no window:
        they are idempotent by what they say.
        """
        now = self.clock.now()
        read = signing.proven_call(call, now)
        worker = await self._worker(read.key_id)
        if lease_id is not None and not await self._windows.answer(_Used(worker, lease_id, read.number)):
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

    async def _move(self, batch: Sequence[_Used]) -> list[bool | Exception]:
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

    def _accept(self, used: _Used, found: Mapping[str, Any], windows: dict[str, CallWindow]) -> bool | Exception:
        row = found.get(used.lease_id)
        if row is None or row["worker_id"] != used.worker.id:
            return Problem("forbidden", f"There is no lease {used.lease_id} of yours.")
        window = windows[used.lease_id].accept(used.number)
        if window is None:
            return False
        windows[used.lease_id] = window
        return True

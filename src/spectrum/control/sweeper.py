"""The sweeper: what nobody asks for but time. Leases that lapsed, deadlines, waiters that nobody promoted, purges that are due.

Every copy runs one; each round is idempotent and safe beside another's (P1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from spectrum.control.dispatch import Dispatch
from spectrum.control.engine import Engine, Held
from spectrum.core.errors import Problem
from spectrum.core.ids import JobId
from spectrum.core.jobs.commands import Command, Submit, Tick
from spectrum.core.jobs.store import Candidate, Store, Unavailable
from spectrum.core.plan import newest_version
from spectrum.ports import Clock, Entropy, new_id

PAGE = 100

_log = structlog.get_logger(__name__)


@dataclass
class Sweeper:
    """Sweeps every `period` seconds, several times within `TOLERANCE_SECONDS`. `lease_seconds` is how long a lease lives without
    a heartbeat. `lapsed` is called for each that it ended.
    """

    store: Store
    engine: Engine
    dispatch: Dispatch
    clock: Clock
    entropy: Entropy
    lease_seconds: float
    period: float = 1.0
    lapsed: Callable[[], None] = lambda: None
    _ticked: float = field(default=-math.inf, init=False)

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except (Unavailable, Problem) as error:
                _log.warning("sweep failed; it is tried again", error=str(error))
            except Exception:
                # Nobody else does what it does: it ends with its process, whatever else it meets (P1).
                _log.exception("sweep failed as it should not; it is tried again")
            await self.clock.sleep(self.period * (0.8 + 0.4 * self.entropy.uniform()))

    async def sweep(self) -> None:
        """One round."""
        self._ticked = -math.inf
        await self._tick()
        await self._end_lapsed_leases()
        for candidate in await self.store.due(PAGE):
            await self._execute(_tick(candidate))
        for candidate in await self.store.purgeable(PAGE):
            await self._execute(self._purge(candidate))

    async def _tick(self) -> None:
        """Say that time counts. Once a period: a round may last long, and must not be taken for time that nobody saw."""
        if self.clock.monotonic() - self._ticked >= self.period:
            await self.store.tick()
            self._ticked = self.clock.monotonic()

    async def _end_lapsed_leases(self) -> None:
        for lapsed in await self.store.lapsed(self.lease_seconds, PAGE):
            ended = await self.store.end_lease(lapsed, "lapsed", if_not_renewed_for=self.lease_seconds)
            if ended.now:
                self.lapsed()
            _log.info("lease lapsed", lease_id=lapsed.lease_id, worker_id=lapsed.worker_id, jobs=len(ended.owned))
            await self.dispatch.lose_all(ended.owned, "its worker's lease lapsed")
            await self._tick()

    async def _execute(self, command: Command) -> None:
        """One bad instance holds up no other (P19)."""
        await self._tick()
        try:
            await self.engine.execute(command)
        except Problem as problem:
            if problem.slug == "unavailable" and not isinstance(problem, Held):
                raise
            _log.info("sweep refused", instance_id=command.instance_id, problem=problem.slug, detail=problem.detail)
        except Exception:
            _log.exception("sweep of an instance failed as it should not", instance_id=command.instance_id)

    def _purge(self, candidate: Candidate) -> Submit:
        return Submit(
            id=f"purge/{candidate.instance_id}",
            instance_id=candidate.instance_id,
            organization_id=candidate.organization_id,
            actor="system:sweeper",
            job_id=JobId(new_id("job", self.clock.now(), self.entropy)),
            operation="purge",
            operation_version=newest_version(self.engine.catalog, "purge"),
            if_purge_is_due=True,
        )


def _tick(candidate: Candidate) -> Tick:
    return Tick(
        id=f"tick/{candidate.instance_id}",
        instance_id=candidate.instance_id,
        organization_id=candidate.organization_id,
        actor="system:sweeper",
    )

"""What a worker may ask of the control plane about jobs: open an incarnation, claim, keep alive, report, release.

Callers are authenticated before they come here; every call is checked against the caller's pool and the jobs its lease holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from spectrum.control.engine import Engine, Held
from spectrum.core.errors import Problem
from spectrum.core.ids import InstanceId, JobId, LeaseId, OrganizationId, PoolId, WorkerId
from spectrum.core.jobs.commands import Answer, Claim, Done, Holding, Lose, Release, Repeated, Report
from spectrum.core.jobs.holding import lease_ended
from spectrum.core.jobs.model import Lease, Owner
from spectrum.core.jobs.store import Candidate, ClaimOf, Owned, Store
from spectrum.ports import Clock, Entropy, new_id
from spectrum.transports.protocol import Handback, News, Pulse

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated worker: who it is, for which pool it works, and which operation versions it can run."""

    worker_id: WorkerId
    organization_id: OrganizationId
    pool_id: PoolId
    operations: Mapping[str, frozenset[int]]

    @property
    def actor(self) -> str:
        return f"worker:{self.worker_id}"


def report_of(caller: Caller, lease_id: LeaseId, news: News) -> Report:
    """The command that a worker's news are."""
    return Report(
        id=f"{news.job_id}/{news.fence}/{news.number}",
        instance_id=news.instance_id,
        organization_id=news.organization_id,
        actor=caller.actor,
        job_id=news.job_id,
        lease_id=lease_id,
        pool_id=caller.pool_id,
        fence=news.fence,
        number=news.number,
        outcomes=news.outcomes,
        intents=news.intents,
        verdict=news.verdict,
        reopen=news.reopen,
    )


def release_of(caller: Caller, lease_id: LeaseId, back: Handback) -> Release:
    """The command that a worker's handback is."""
    return Release(
        id=f"{back.job_id}/{back.fence}/release",
        instance_id=back.instance_id,
        organization_id=back.organization_id,
        actor=caller.actor,
        job_id=back.job_id,
        lease_id=lease_id,
        pool_id=caller.pool_id,
        fence=back.fence,
        until=back.until,
        why=back.why,
        holder=back.holder,
    )


def _holding(answer: Answer | Repeated | BaseException) -> Holding | Exception:
    if isinstance(answer, Holding | Exception):
        return answer
    return TypeError(f"a report is answered by a holding, not {type(answer).__name__}")


@dataclass
class Dispatch:
    """The worker protocol, below HTTP."""

    store: Store
    engine: Engine
    clock: Clock
    entropy: Entropy

    async def start(self, caller: Caller, boot: str) -> Lease:
        """Open the next incarnation. What the older one held is lost, and goes on elsewhere."""
        now = self.clock.now()
        lease = Lease(
            id=LeaseId(new_id("lea", now, self.entropy)),
            worker_id=caller.worker_id,
            organization_id=caller.organization_id,
            pool_id=caller.pool_id,
            incarnation=0,
            started_at=now,
            renewed_at=now,
        )
        opened, orphaned = await self.store.open_lease(lease, boot)
        await self.lose_all(orphaned, "a newer incarnation of its worker began")
        return opened

    async def claim(
        self, caller: Caller, lease_id: LeaseId, incarnation: int, number: int, want: int, *, holds_others: bool
    ) -> list[Holding]:
        """Up to `want` jobs of the caller's pool. The same number again gets the same answer.

        That the worker holds others is its own word, for it knows what it has not let go of yet, or the store's. Raises
        `Problem(not-allowed-now)` with `lease: ended` where the lease is over.
        """
        owned = await self.store.owned(lease_id)
        holds_others = holds_others or any(each.claim != number for each in owned)
        repeated = [each for each in owned if each.claim == number]
        candidates = await self._candidates(caller, repeated, want, alone=not holds_others)
        owner = Owner(lease_id, caller.worker_id, incarnation, number)
        claims = [
            Claim(
                id=f"{lease_id}/{number}/{candidate.job_id}",
                instance_id=candidate.instance_id,
                organization_id=candidate.organization_id,
                actor=caller.actor,
                job_id=candidate.job_id,
                owner=owner,
                holds_others=holds_others,
            )
            for candidate in candidates
            if candidate.job_id is not None
        ]
        results = await self.engine.claim(claims, ClaimOf(lease_id, caller.organization_id, incarnation, number, want))
        return [result for result in results if isinstance(result, Holding)]

    async def _candidates(
        self, caller: Caller, repeated: Sequence[Owned], want: int, *, alone: bool
    ) -> Sequence[Candidate]:
        if repeated:
            return [Candidate(o.organization_id, o.instance_id, o.job_id, o.fence) for o in repeated]
        # Some of them will be lost to other claimers: ask for more than is wanted.
        return await self.store.claimable(caller.pool_id, caller.operations, want * 2 + 4, alone)

    async def beat(
        self,
        caller: Caller,
        lease_id: LeaseId,
        incarnation: int,
        number: int,
        claim_seen: int,
        held: Sequence[tuple[JobId, int]],
    ) -> Pulse:
        """Keep the lease alive, and compare what the worker holds, (job, fence), with what it was given (DESIGN §3.6).

        What was granted up to the last claim whose answer arrived, and is not listed, never arrived: it is taken back.
        """
        beat = await self.store.beat(lease_id, caller.organization_id, incarnation, number)
        if beat is None:
            raise lease_ended(lease_id)
        if not beat.fresh:
            return Pulse((), ())
        listed = set(held)
        owned = {(each.job_id, each.fence) for each in beat.owned}
        unlisted = [o for o in beat.owned if (o.job_id, o.fence) not in listed and o.claim <= claim_seen]
        await self.lose_all(unlisted, "its worker does not hold it")
        lost = tuple(pair for pair in held if pair not in owned)
        return Pulse(lost, tuple(o.job_id for o in beat.owned if o.cancelling and (o.job_id, o.fence) in listed))

    async def report(self, report: Report) -> Holding:
        """Raises `Problem` where the report is refused."""
        (answer,) = await self.report_all([report])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def report_all(self, reports: Sequence[Report]) -> list[Holding | Exception]:
        """The answer to each of the reports, or why it has none."""
        return [_holding(answer) for answer in await self.engine.execute_all(reports)]

    async def release(self, release: Release) -> None:
        await self.engine.execute(release)

    async def lose_all(self, owned: Sequence[Owned], why: str) -> None:
        """Take jobs away from an owner that is lost. Those that have moved on meanwhile are left alone.

        One that can't be taken away holds up no other (P19): the sweeper comes back to it.
        """
        for each in owned:
            try:
                await self.lose(each.organization_id, each.instance_id, each.job_id, each.fence, why)
            except Held:
                _log.info("a job was not taken away yet: its instance is held", job_id=each.job_id)
            except Problem:
                raise
            except Exception:
                _log.exception("a job was not taken away as it should", job_id=each.job_id)

    async def lose(
        self, organization_id: OrganizationId, instance_id: InstanceId, job_id: JobId, fence: int, why: str
    ) -> bool:
        lose = Lose(
            id=f"lose/{job_id}/{fence}",
            instance_id=instance_id,
            organization_id=organization_id,
            actor="system:lease",
            job_id=job_id,
            fence=fence,
            why=why,
        )
        try:
            answer = await self.engine.execute(lose)
        except Problem as problem:
            if problem.slug == "not-found":  # it has ended and is out of sight
                return False
            raise
        return isinstance(answer, Done) and answer.changed

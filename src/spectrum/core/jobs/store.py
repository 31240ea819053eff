"""The engine's store port: one transaction that locks, loads, folds and writes; what could be done next; leases.

Implementations: `db.store` on PostgreSQL, `sim.twins.store` in memory. One conformance suite holds for both.

Lock order (DESIGN §2): idempotency and name keys, sorted → lease → instance → job → breaker rows → events. A key or an aggregate
that another copy holds is not waited for: its commands come back as `DEFERRED`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from spectrum.core.breakers import Breaker
from spectrum.core.errors import Problem, SpectrumError
from spectrum.core.ids import InstanceId, JobId, LeaseId, OrganizationId, PoolId, ReleaseId, TargetId, WorkerId
from spectrum.core.jobs.commands import Answer, Command, Consequences, Rejection, Repeated
from spectrum.core.jobs.model import Aggregate, Job, Lease, Surroundings

TOLERANCE_SECONDS = 5.0
"""How long ago the liveness row's last tick may be. Where it is longer ago, no lease and no deadline counted since then."""


class Unavailable(SpectrumError):
    """The store can't be reached, or ended the transaction for a reason of its own: nothing was done. Try again later."""


class TargetRemoved(Problem):
    """The target was removed between its choice and the commit: nothing was done, and another choice may do."""


class Uncertain(SpectrumError):
    """The acknowledgement of a commit was lost. `transaction` settles it; `results` hold if it committed."""

    def __init__(self, transaction: str, results: Sequence[Response]) -> None:
        super().__init__(f"the commit of transaction {transaction} was not acknowledged")
        self.transaction = transaction
        self.results = results


class Settlement(StrEnum):
    """What became of a transaction."""

    COMMITTED = "committed"
    ABORTED = "aborted"


class Deferred:
    """Another copy holds what the command needs: try again in the next flush."""


DEFERRED = Deferred()

Response = Answer | Repeated | Rejection | Deferred


@dataclass(frozen=True, slots=True)
class Keyed:
    """An Idempotency-Key: to whom it belongs, what was asked under it, and how the answer is to be remembered."""

    organization_id: OrganizationId
    method: str
    path: str
    key: str
    request_digest: str
    respond: Callable[[Answer], Repeated]

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What the key is unique in, and the key."""
        return (self.organization_id, self.method, self.path, self.key)


@dataclass(frozen=True, slots=True)
class Asked:
    """A command with what it needs locked besides its aggregate. `name` is an instance name to be taken by a create."""

    command: Command
    keyed: Keyed | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimOf:
    """The claim that a batch of claim commands belongs to."""

    lease_id: LeaseId
    organization_id: OrganizationId  # of the worker
    incarnation: int
    number: int
    want: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """A stored answer under an Idempotency-Key, with the digest of the request that it belongs to."""

    request_digest: str
    answer: Repeated


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a transaction found, after its locks. `aggregates` lacks those that do not exist; `busy` are held elsewhere."""

    now: datetime
    aggregates: Mapping[InstanceId, Aggregate]
    around: Mapping[InstanceId, Surroundings]
    outlines: Mapping[ReleaseId, Any] = field(default_factory=dict)
    busy: frozenset[InstanceId] = frozenset()
    busy_keys: frozenset[int] = frozenset()  # positions in the batch whose key or name another transaction holds
    remembered: Mapping[int, Remembered] = field(default_factory=dict)  # by position in the batch
    taken: frozenset[int] = frozenset()  # positions whose instance name is taken
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What one aggregate became, and what follows from it."""

    before: Aggregate | None
    after: Aggregate
    consequences: tuple[Consequences, ...]

    @property
    def ended(self) -> tuple[Job, ...]:
        """The jobs that reached their terminal state."""
        known = self.before.jobs if self.before is not None else {}
        jobs = (job for job in self.after.jobs.values() if job.state.terminal)
        return tuple(job for job in jobs if job.id not in known or not known[job.id].state.terminal)


@dataclass(frozen=True, slots=True)
class Folded:
    """The result of a fold: an answer for every command, and what is to be written with them."""

    results: tuple[Response, ...]
    written: Mapping[InstanceId, Written] = field(default_factory=dict)
    remember: Mapping[int, Repeated] = field(default_factory=dict)  # by position: answers to store under their keys
    evidence: tuple[Rejection, ...] = ()
    lease: Lease | None = None
    breakers: Mapping[TargetId, Breaker] = field(default_factory=dict)  # those that changed


Fold = Callable[[Loaded], Folded]


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands of one transaction, in order of arrival, and the pure function that folds them over what is loaded."""

    asked: tuple[Asked, ...]
    fold: Fold
    claim: ClaimOf | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that could be claimed, or an instance that the sweeper should look at."""

    organization_id: OrganizationId
    instance_id: InstanceId
    job_id: JobId | None = None
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Owned:
    """A job as its lease has it, for a heartbeat."""

    job_id: JobId
    organization_id: OrganizationId
    instance_id: InstanceId
    fence: int
    claim: int
    cancelling: bool


@dataclass(frozen=True, slots=True)
class Lapsed:
    """A lease that is to be ended."""

    lease_id: LeaseId
    worker_id: WorkerId
    organization_id: OrganizationId


@dataclass(frozen=True, slots=True)
class Ended:
    """What a lease that has ended owned; nothing where it lives. `now`: it was this very call that ended it."""

    owned: tuple[Owned, ...] = ()
    now: bool = False


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat as it was applied: the lease, and what it owns. `fresh` is False for one that came out of order."""

    lease: Lease
    owned: tuple[Owned, ...]
    fresh: bool


class Store(Protocol):
    """The system of record, as the engine needs it. Every method may raise `Unavailable`."""

    async def transact(self, batch: Batch) -> Sequence[Response]:
        """Lock, load, fold, write, commit: one result for every command, in their order.

        Raises `Unavailable` (nothing was done) or `Uncertain`.
        """

    async def settle(self, transaction: str) -> Settlement:
        """What became of a transaction whose acknowledgement was lost. Waits while it is still in progress."""

    async def claimable(
        self, pool_id: PoolId, operations: Mapping[str, frozenset[int]], limit: int, alone: bool
    ) -> Sequence[Candidate]:
        """Jobs of the pool that are ready and nobody's, due, not braked; organizations take turns, the longest due first within."""

    async def due(self, limit: int) -> Sequence[Candidate]:
        """Instances with a deadline that has passed, counting only time in which it could be met, or a waiter and no active job."""

    async def owned(self, lease_id: LeaseId) -> Sequence[Owned]:
        """What a lease holds now, without a lock."""

    async def purgeable(self, limit: int) -> Sequence[Candidate]:
        """Deleted instances whose retention is over, that have no active job and are not on hold."""

    # ---- the lease lane

    async def open_lease(self, lease: Lease, boot: str) -> tuple[Lease, tuple[Owned, ...]]:
        """Begin the next incarnation of a worker; the older one's lease ends, and what it owned is returned.

        The same `boot` again gets the same lease. Raises Problem `forbidden` where the worker was revoked.
        """

    async def beat(
        self, lease_id: LeaseId, organization_id: OrganizationId, incarnation: int, number: int
    ) -> Beat | None:
        """Renew a lease; None where it has ended."""

    async def lapsed(self, lease_seconds: float, limit: int) -> Sequence[Lapsed]:
        """Leases to be ended: live ones not renewed in time (counted from the last resumption of the cell's liveness row; none
        while its last tick is too long ago), and ended ones that still own jobs, because whoever ended them did not get further.
        """

    async def end_lease(self, lapsed: Lapsed, why: str, if_not_renewed_for: float | None) -> Ended:
        """End a lease (only if it is still not renewed, where asked) and say what it owned."""

    async def tick(self) -> datetime:
        """Move the cell's liveness row; a gap longer than `TOLERANCE_SECONDS` is added to the time that does not count."""

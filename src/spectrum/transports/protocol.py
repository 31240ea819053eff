"""The worker's port to the control plane: what it asks, and what it is told. `transports.poll` speaks it over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from spectrum.core.errors import SpectrumError
from spectrum.core.ids import InstanceId, JobId, LeaseId, OrganizationId
from spectrum.core.jobs.commands import Holding, Intent, Outcome, Verdict
from spectrum.core.jobs.table import WaitsFor


class LinkDown(SpectrumError):
    """No answer, or one that says "later": whether the call was applied is not known. Safe to repeat as it is."""


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One start of this worker, and the lease that belongs to it."""

    lease_id: LeaseId
    number: int
    lease_seconds: float
    heartbeat_seconds: float


@dataclass(frozen=True, slots=True)
class JobRef:
    """A job as its holder names it in a call."""

    organization_id: OrganizationId
    instance_id: InstanceId
    job_id: JobId
    fence: int


@dataclass(frozen=True, slots=True)
class News:
    """A report as it travels and is spooled: to which job, under which fence, which number, and what it says."""

    organization_id: OrganizationId
    instance_id: InstanceId
    job_id: JobId
    fence: int
    number: int
    outcomes: tuple[Outcome, ...] = ()
    intents: tuple[Intent, ...] = ()
    verdict: Verdict = Verdict.NONE
    reopen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Handback:
    """A job handed back, not to be claimed before `until`."""

    organization_id: OrganizationId
    instance_id: InstanceId
    job_id: JobId
    fence: int
    until: datetime | None
    why: WaitsFor
    holder: str = ""  # what is waited for, in words


@dataclass(frozen=True, slots=True)
class Pulse:
    """The answer to a heartbeat: (job, fence) pairs that are lost, and jobs to be cancelled."""

    lost: tuple[tuple[JobId, int], ...]
    cancels: tuple[JobId, ...]


class Link(Protocol):
    """Calls to the control plane.

    Each raises `LinkDown` where it got no answer, and `Problem` where it got one that says no: `stale-fence` and `forbidden` mean
    that the job is not ours; `not-allowed-now` with `lease: ended`, that this incarnation is over.
    """

    async def start(self, boot: str) -> Incarnation:
        """Open an incarnation. The same `boot` again gives the same one."""

    async def poll(self, incarnation: Incarnation, seconds: float) -> bool:
        """Wait until there may be work, `seconds` at most. True: try a claim."""

    async def claim(self, incarnation: Incarnation, number: int, want: int, holds_others: bool) -> Sequence[Holding]:
        """Up to `want` jobs."""

    async def beat(
        self, incarnation: Incarnation, number: int, claim_seen: int, held: Sequence[tuple[JobId, int]]
    ) -> Pulse:
        """Keep the lease alive."""

    async def report(self, incarnation: Incarnation, news: News) -> Holding:
        """Send a report. Problem `report-gap` says from which number to send again."""

    async def release(self, incarnation: Incarnation, handback: Handback) -> None:
        """Hand a job back."""

    async def release_document(self, incarnation: Incarnation, asked: JobRef, release_id: str) -> Mapping[str, Any]:
        """The normalized document of a release that the job's instance uses."""

    async def secrets(self, incarnation: Incarnation, asked: JobRef) -> Mapping[str, str]:
        """The secret parameters of the job's instance, opened with this worker's own key."""

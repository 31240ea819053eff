"""The worker's ports to the control plane: what it asks and is told (`transports.poll`), and how else it hears of work.

And the relay's port to where facts go (`transports.kafka.facts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Protocol

from pydantic import Field

from spectrum.core.errors import SpectrumError
from spectrum.core.events.envelope import Event
from spectrum.core.ids import InstanceId, JobId, LeaseId, OrganizationId, RequestId
from spectrum.core.jobs.commands import Holding, Intent, Outcome, Verdict
from spectrum.core.jobs.table import WaitsFor

NEWS_LIMIT = 256  # of outcomes, of intents, and of slots to reopen in one report: what is more goes with the next


class LinkDown(SpectrumError):
    """No answer, or one that says "later": whether the call was applied is not known. Safe to repeat as it is."""


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One start of this worker, and the lease that belongs to it. `hints`: the topic on which hints come, if any do."""

    lease_id: LeaseId
    number: int
    lease_seconds: float
    heartbeat_seconds: float
    hints: str = ""


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
    outcomes: Annotated[tuple[Outcome, ...], Field(max_length=NEWS_LIMIT)] = ()
    intents: Annotated[tuple[Intent, ...], Field(max_length=NEWS_LIMIT)] = ()
    verdict: Verdict = Verdict.NONE
    reopen: Annotated[tuple[str, ...], Field(max_length=NEWS_LIMIT)] = ()
    traceparent: str | None = None  # of the span in which it is sent


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


# ---- requests that are not jobs (DESIGN §3.16)


@dataclass(frozen=True, slots=True)
class Room:
    """How many requests more a worker can take."""

    looks: int = 0
    streams: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """An instance that is due to be looked at, and under what the look began: its fence, its generation, the moment."""

    instance_id: InstanceId
    target_url: str
    fence: int
    generation: int
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class LogsAsked:
    """Log lines that somebody waits for; they go back on the stream of this request."""

    id: RequestId
    instance_id: InstanceId
    target_url: str
    service: str | None = None
    since: datetime | None = None
    tail: int = 0
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Requests:
    """What a worker is asked besides its jobs."""

    looks: tuple[Look, ...] = ()
    logs: tuple[LogsAsked, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.looks or self.logs)


@dataclass(frozen=True, slots=True)
class Polled:
    """The answer to a poll. `work`: there may be a job to claim."""

    work: bool
    requests: Requests = Requests()


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a look found. Where the target did not answer, `answered` is False and nothing is known."""

    look: Look
    answered: bool
    services: tuple[Mapping[str, Any], ...] = ()
    conditions: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next piece of a stream, numbered from 1. `problem` says why it ends before it is complete."""

    request_id: RequestId
    number: int
    lines: tuple[Mapping[str, Any], ...] = ()
    ends: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Onward:
    """The answer to a chunk. `taken`: it was kept, else it is to be sent again. `wanted`: somebody still reads."""

    taken: bool
    wanted: bool


class Link(Protocol):
    """Calls to the control plane.

    Each raises `LinkDown` where it got no answer, and `Problem` where it got one that says no: `stale-fence` and `forbidden` mean
    that the job is not ours; `not-allowed-now` with `lease: ended`, that this incarnation is over.
    """

    async def start(self, boot: str) -> Incarnation:
        """Open an incarnation. The same `boot` again gives the same one."""

    async def poll(self, incarnation: Incarnation, seconds: float, room: Room, *, work: bool = True) -> Polled:
        """Wait until there are requests that `room` is for or, if `work` is waited for, there may be some; `seconds` at most."""

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

    async def observed(self, incarnation: Incarnation, sightings: Sequence[Sighting]) -> None:
        """Tell what looks found."""

    async def stream(self, incarnation: Incarnation, chunk: Chunk) -> Onward:
        """Send a piece of a stream. The same number again changes nothing."""

    async def release_document(self, incarnation: Incarnation, asked: JobRef, release_id: str) -> Mapping[str, Any]:
        """The normalized document of a release that the job's instance uses."""

    async def secrets(self, incarnation: Incarnation, asked: JobRef) -> Mapping[str, str]:
        """The secret parameters of the job's instance, opened with this worker's own key."""


# ---- hints


def hints_topic(pool_id: str) -> str:
    """Where hints for the workers of a pool are told. Their group has the same name."""
    return f"spectrum.jobs.v1.{pool_id}"


class Hints(Protocol):
    """How a worker hears at once that there may be work, where its long polls need not tell.

    Whatever is lost, doubled or turned around on this way costs only time.
    """

    @property
    def listening(self) -> bool:
        """Whether hints come this way at the moment. Else long polls bring them."""

    def listen(self, topic: str, heard: Callable[[], None]) -> None:
        """Hear what comes to the topic; nothing, where that is empty. `heard` is called for hints, and where some may have been
        missed. Calls follow each other closely under load: it only takes note.
        """

    def dealing(self) -> AbstractContextManager[object]:
        """What was heard before the block is dealt with once that ends without an error: nobody is told of it again."""

    def hold(self, full: bool) -> None:
        """While there is no room for work, hints wait."""

    async def close(self) -> None:
        """Hear nothing more, and leave what was not dealt with to others."""


class LongPollsAlone:
    """No other way (implements `Hints`)."""

    listening = False

    def listen(self, topic: str, heard: Callable[[], None]) -> None:
        """There is nothing to hear."""

    def dealing(self) -> AbstractContextManager[object]:
        return nullcontext()

    def hold(self, full: bool) -> None:
        """There is nothing to hold."""

    async def close(self) -> None:
        """There is nothing to end."""


# ---- facts


@dataclass(frozen=True, slots=True)
class Delivered:
    """How many of a batch of events, from its beginning, are kept for good; and why not more."""

    count: int
    refusal: str = ""


class Outlet(Protocol):
    """Where facts go. However often some are sent again: the first time that an event of a subject is there, all before it are."""

    @property
    def trouble(self) -> str:
        """What keeps it from taking anything at the moment, as far as it knows."""

    async def publish(self, events: Sequence[Event]) -> Delivered:
        """Send events in their order. Returns once all are kept for good, one was refused, or `drop` was called: never by time."""

    def drop(self) -> None:
        """Forget what is under way. Some of it may arrive all the same."""

    async def rest(self) -> None:
        """There is nothing to send for now."""

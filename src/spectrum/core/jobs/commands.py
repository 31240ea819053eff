"""What can be asked of an aggregate, and what it answers. Everything that changes a job is one of these.

A command carries the id that its rows will carry, so that one whose commit was not acknowledged can be settled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from spectrum.core.breakers import Breaker
from spectrum.core.errors import Failure, Problem
from spectrum.core.ids import InstanceId, JobId, LeaseId, OrganizationId, PoolId
from spectrum.core.jobs.model import Attempt, Instance, Job, Owner, Spec
from spectrum.core.jobs.table import Phase, WaitsFor


class Result(StrEnum):
    """How an attempt ended, as its holder knows it."""

    DONE = "done"
    ADOPTED = "adopted"  # an unknown attempt's effect was found in place
    ABSENT = "absent"  # an unknown attempt's effect was seen missing, twice
    UNDECIDABLE = "undecidable"
    ERROR = "error"
    TIMEOUT = "timeout"  # the call did not end in time: it may still happen


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt, named by phase and token; of any other attempt it is evidence only."""

    step: str
    phase: Phase
    token: int
    result: Result
    failure: Failure | None = None
    output: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Intent:
    """The announcement of one provider call. Committed before the call is made."""

    step: str
    phase: Phase


class Verdict(StrEnum):
    """What a report says of the whole job, besides its outcomes."""

    NONE = ""
    ACKNOWLEDGED = "acknowledged"  # of a cancel: no call is outstanding, every result is reported
    UNWOUND = "unwound"  # the unwound post-condition was seen to hold
    REOPENED = "reopened"  # it was seen not to hold, for the slots of `reopen`


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    id: str
    instance_id: InstanceId
    organization_id: OrganizationId
    actor: str


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret parameter of an instance, as it is stored: ciphertext, with the id of the key that opens it."""

    name: str
    version: int
    key_id: str
    ciphertext: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit(Command):
    """Ask for an operation. `new` is the instance that a create brings into being; `spec` is what the job works towards.

    `if_purge_is_due`: nobody asks but the clock, and what it saw is looked at again.
    """

    job_id: JobId
    operation: str
    operation_version: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    spec: Spec | None = None
    new: Instance | None = None
    queue_seconds: float = 3600.0
    parent_id: JobId | None = None
    expected_generation: int | None = None
    secrets: tuple[Secret, ...] = ()
    if_purge_is_due: bool = False
    traceparent: str | None = None  # of the request (W3C Trace Context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Command):
    """Give the job to this owner, if nobody has it."""

    job_id: JobId
    owner: Owner
    holds_others: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Command):
    """A holder's news: outcomes of attempts, intents of the next ones. Numbered from 1 under each fence."""

    job_id: JobId
    lease_id: LeaseId
    pool_id: PoolId
    fence: int
    number: int
    outcomes: tuple[Outcome, ...] = ()
    intents: tuple[Intent, ...] = ()
    verdict: Verdict = Verdict.NONE
    reopen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Command):
    """Hand a job back, not to be claimed before `until`."""

    job_id: JobId
    lease_id: LeaseId
    pool_id: PoolId
    fence: int
    until: datetime | None = None
    why: WaitsFor = WaitsFor.WORKER
    holder: str = ""  # what is waited for, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class Lose(Command):
    """The owner is lost: its lease lapsed or was revoked, or it does not hold what it was given."""

    job_id: JobId
    fence: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Command):
    job_id: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick(Command):
    """Look at the clock: deadlines of the jobs, and a waiter that nobody promoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observe(Command):
    """What was seen of an instance while no job was active. Dropped if fence or generation has moved since it began.

    `asked_at` is when the look was handed out: an earlier one than what is known by now says nothing new. Where the target did
    not answer, `answered` is False and nothing was seen.
    """

    fence: int
    generation: int
    asked_at: datetime
    answered: bool = True
    services: tuple[Mapping[str, Any], ...] = ()
    conditions: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Repeated:
    """The request was made before under the same Idempotency-Key: this is what it was answered then."""

    status: int
    location: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Submitted:
    """The job that answers a submit; for a delete during a delete it is the first one."""

    job: Job
    instance: Instance
    attached: bool = False


@dataclass(frozen=True, slots=True)
class Holding:
    """What a holder knows of its job after a claim or a report. `gone`: it is not the holder's any more; let go."""

    job: Job
    instance: Instance
    at: datetime
    target_url: str
    refused: Mapping[str, str] = field(default_factory=dict)  # step -> why its intent was not taken
    gone: bool = False
    keys_absent: tuple[tuple[str, str], ...] = ()  # (slot, effect key) that are wanted absent


@dataclass(frozen=True, slots=True)
class Done:
    """The command was applied, or changed nothing because it no longer applied (`changed` False)."""

    changed: bool
    job: Job | None = None


Answer = Submitted | Holding | Done


@dataclass(frozen=True, slots=True)
class Fact:
    """An event to be: `type` is `noun.fact`; the store gives it its place in the log."""

    type: str
    subject: str
    sequence: int
    data: Mapping[str, Any]
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An audit row to be."""

    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hint:
    """A job became claimable."""

    job_id: JobId
    instance_id: InstanceId
    pool_id: str
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """The command was refused. It changed nothing but may leave an audit entry as evidence."""

    problem: Problem
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Closing:
    """The outcome of an attempt that an earlier command opened."""

    step_id: str
    number: int
    outcome: str
    at: datetime
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Consequences:
    """What besides the aggregate's own rows follows from a decision."""

    facts: tuple[Fact, ...] = ()
    entries: tuple[Entry, ...] = ()
    hints: tuple[Hint, ...] = ()
    opened: tuple[Attempt, ...] = ()
    closed: tuple[Closing, ...] = ()
    secrets: tuple[Secret, ...] = ()
    breaker: Breaker | None = None  # the target's, where it is another one now

"""The words of the job protocol as frozen values: instance, job, step, effect, lease, and what surrounds them.

The aggregate is an instance with its non-terminal jobs, their steps, and its effects. One integer per instance, below 2^53 and
growing only, gives every fence and every token (DESIGN §1): epoch × 2^32 + counter. Times are aware and UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from spectrum.core.breakers import Breaker
from spectrum.core.errors import Failure
from spectrum.core.ids import (
    InstanceId,
    JobId,
    LeaseId,
    OrganizationId,
    PlacementId,
    PoolId,
    ReleaseId,
    StepId,
    TargetId,
    WorkerId,
)
from spectrum.core.jobs.table import (
    Desired,
    Health,
    Hold,
    JobState,
    Lifecycle,
    Phase,
    Reason,
    StepState,
    WaitsFor,
    Wants,
)

EPOCH_SHIFT = 32
MAX_RESCUES = 3  # in a row without a new outcome; one more, and the job is poison


@dataclass(frozen=True, slots=True)
class Spec:
    """What a customer's environment is to be. Secret parameters are not in here: they are named, versioned ciphertext."""

    product: str
    version: str
    release_id: ReleaseId
    plan: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    desired_state: Desired = Desired.RUNNING

    def as_json(self) -> dict[str, Any]:
        return {
            "product": self.product,
            "version": self.version,
            "release_id": self.release_id,
            "plan": self.plan,
            "parameters": dict(self.parameters),
            "desired_state": self.desired_state.value,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        return cls(
            product=data["product"],
            version=data["version"],
            release_id=ReleaseId(data["release_id"]),
            plan=data["plan"],
            parameters=dict(data["parameters"]),
            desired_state=Desired(data["desired_state"]),
        )


@dataclass(frozen=True)
class Effect:
    """Which effect a slot wants present, or wants absent until that is proven.

    A `replaced` key stays wanted absent until purge: a late call may still make it.
    """

    placement_id: PlacementId
    slot: str
    key: str
    present: bool
    proven: bool
    fence: int
    token: int
    replaced: bool = False


@dataclass(frozen=True)
class Instance:
    """One customer's environment, with the counters that order everything done to it."""

    id: InstanceId
    organization_id: OrganizationId
    name: str
    target_id: TargetId
    pool_id: PoolId
    placement_id: PlacementId
    requested: Spec
    labels: Mapping[str, str] = field(default_factory=dict)
    accepted: Spec | None = None
    generation: int = 1
    accepted_generation: int = 0
    rejected_generation: int = 0
    lifecycle: Lifecycle = Lifecycle.CREATING
    hold: Hold = Hold.NONE
    health: Health = Health.UNKNOWN
    health_since: datetime | None = None
    health_seen: Health | None = None  # what the last sightings showed instead
    health_streak: int = 0  # how many of them in a row
    counter: int = 0
    job_counter: int = 0
    event_sequence: int = 0
    active_job_id: JobId | None = None
    version: int = 1
    slot_numbers: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    services: tuple[Mapping[str, Any], ...] = ()
    conditions: tuple[Mapping[str, Any], ...] = ()
    observed_at: datetime | None = None
    deleted_at: datetime | None = None
    purge_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True)
class Step:
    """A node of a job's plan. `token` is the last intent's; 0 means untouched. Durations are seconds."""

    id: StepId
    name: str
    position: int
    action: str
    needs: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    slot: str | None = None
    wants: Wants = Wants.NOTHING
    irreversible: bool = False
    destructive: bool = False
    tries_allowed: int = 5
    attempt_seconds: float = 60.0
    step_seconds: float = 300.0
    retry_cap: float = 60.0
    state: StepState = StepState.PENDING
    phase: Phase = Phase.DO
    effect_key: str | None = None
    attempt: int = 0
    token: int = 0
    tries: int = 0
    undo_tries: int = 0
    touched: bool = False
    outstanding: bool = False
    retry_at: datetime | None = None
    attempt_deadline: datetime | None = None
    deadline: datetime | None = None
    failure: Failure | None = None
    output: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a job waits for, since when, until when at most, and who could unblock it (P20)."""

    what: WaitsFor
    since: datetime
    until: datetime
    holder: str = ""
    unblock: str = ""


@dataclass(frozen=True, slots=True)
class Owner:
    """The right of one incarnation of a worker to a job, and under which claim it was granted."""

    lease_id: LeaseId
    worker_id: WorkerId
    incarnation: int
    claim: int


@dataclass(frozen=True, slots=True)
class Numbered:
    """The last report that was applied. A repeat of it is answered with the job as it then is (ADR 0026)."""

    fence: int = 0
    number: int = 0


@dataclass(frozen=True)
class Job:
    """One execution of an operation on one instance."""

    id: JobId
    organization_id: OrganizationId
    instance_id: InstanceId
    operation: str
    operation_version: int
    number: int
    generation: int
    pool_id: PoolId
    deadline: datetime
    created_at: datetime
    parameters: Mapping[str, Any] = field(default_factory=dict)
    spec: Spec | None = None
    actor: str = ""
    traceparent: str | None = None  # of the request that asked for it
    parent_id: JobId | None = None
    front: bool = False
    state: JobState = JobState.WAITING
    version: int = 1
    fence: int = 0
    owner: Owner | None = None
    not_before: datetime | None = None
    rescues: int = 0
    alone: bool = False
    last_report: Numbered = Numbered()
    reason: Reason | None = None
    failure: Failure | None = None
    residue: tuple[str, ...] = ()
    baseline: Mapping[str, str | None] = field(default_factory=dict)
    plan_hash: str = ""
    unwind_seconds: float = 3600.0
    unwind_deadline: datetime | None = None
    lost_before: timedelta = timedelta(0)
    waiting: Waiting | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    steps: tuple[Step, ...] = ()

    @property
    def owned(self) -> bool:
        return self.owner is not None

    @property
    def touched(self) -> bool:
        return any(step.touched for step in self.steps)

    @property
    def past_return(self) -> bool:
        """An irreversible step has an intent: there is no way back but through it."""
        return any(step.irreversible and step.touched for step in self.steps)

    def step(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.name == name), None)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a step, as it is stored. Opened by an intent or an adoption, closed once by an outcome."""

    step_id: StepId
    job_id: JobId
    number: int
    phase: Phase
    cause: str
    fence: int
    token: int | None
    worker_id: WorkerId | None
    intent_at: datetime | None
    outcome: str | None = None
    outcome_at: datetime | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one incarnation to hold jobs. `claim_answer` is the answer to claim number `claim`."""

    id: LeaseId
    worker_id: WorkerId
    organization_id: OrganizationId
    pool_id: PoolId
    incarnation: int
    started_at: datetime
    renewed_at: datetime
    heartbeat: int = 0
    claim: int = 0
    claim_answer: tuple[tuple[str, int], ...] = ()
    ended_at: datetime | None = None
    ended_for: str = ""

    @property
    def live(self) -> bool:
        return self.ended_at is None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What holds for an aggregate from outside at the moment of a decision, read after its locks.

    `lost` is the time, summed up since the cell began, in which deadlines of jobs on this target could not be met: PostgreSQL
    away, target declared down, breaker open. `braked` names the brake that is on, or is empty.
    """

    now: datetime
    epoch: int = 0
    lost: timedelta = timedelta(0)
    braked: str = ""
    target_url: str = "memory://"
    target_organization: str = ""  # whose target it is: the instance's own, or the platform's
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def target_open(self) -> bool:
        """Whether a call to the target may be begun now."""
        return self.breaker.lets_through(self.now)

    @property
    def target_kind(self) -> str:
        return self.target_url.partition(":")[0]


@dataclass(frozen=True)
class Aggregate:
    """What one decision sees and changes: an instance, its non-terminal jobs in order, and its effects by (slot, key)."""

    instance: Instance
    jobs: Mapping[JobId, Job] = field(default_factory=dict)
    effects: Mapping[tuple[str, str], Effect] = field(default_factory=dict)
    outlines: Mapping[ReleaseId, Any] = field(default_factory=dict)


def keys_absent(effects: Mapping[tuple[str, str], Effect]) -> tuple[tuple[str, str], ...]:
    """(slot, effect key) of what is wanted absent."""
    return tuple(sorted(place for place, effect in effects.items() if not effect.present))

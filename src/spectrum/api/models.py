"""The resources as the API takes and shows them: the fields of INTERFACES §2."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.fields import FieldInfo

from spectrum.core.errors import Actor, ErrorClass


def _matching(pattern: str, otherwise: str) -> tuple[AfterValidator, FieldInfo]:
    """Constraints of a text: `pattern` as a whole, and what is said where it does not fit."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise ValueError(otherwise)
        return value

    return AfterValidator(check), Field(json_schema_extra={"pattern": f"^{pattern}$"})


Name = Annotated[
    str,
    *_matching(
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        "must be a DNS label: 1 to 63 lower-case letters, digits and hyphens, with no hyphen at its ends",
    ),
]
Text = Annotated[
    str, *_matching(r"[^\x00-\x1f\x7f]{1,200}", "must have 1 to 200 characters, and no control characters among them")
]
LabelKey = Annotated[
    str,
    *_matching(
        r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?",
        "must have 1 to 63 letters, digits and . _ / -, with a letter or digit at its ends",
    ),
]
LabelValue = Annotated[
    str,
    *_matching(r"[^\x00-\x1f\x7f]{0,200}", "must have at most 200 characters, and no control characters among them"),
]
Address = Annotated[
    str, *_matching(r"[a-z]{1,20}://[^\x00-\x20\x7f]{0,480}", "must be an address such as process:///srv/spectrum")
]
Item = TypeVar("Item")

Hold = Literal["none", "quarantined", "frozen"]
Health = Literal["healthy", "degraded", "unhealthy", "unknown"]
Lifecycle = Literal["creating", "running", "stopped", "suspended", "deleted", "purged", "failed"]
JobState = Literal["waiting", "ready", "running", "cancelling", "unwinding", "succeeded", "failed", "cancelled"]
WaitsFor = Literal[
    "lease", "queue", "retry", "breaker", "brake", "limit", "worker", "soak", "window", "approval", "child"
]
StepState = Literal[
    "pending",
    "running",
    "retrying",
    "unknown",
    "replacing",
    "done",
    "failed",
    "undoing",
    "undone",
    "skipped",
    "undo_failed",
]


class Shown(BaseModel):
    """What is answered: exactly these fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Wish(BaseModel):
    """What is asked for. An unknown field is refused: it would be a wish that nobody fulfils."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Shown, Generic[Item]):
    items: list[Item]
    next_cursor: str | None


class ErrorPlace(Shown):
    pointer: str = ""
    file: str = ""
    line: int | None = None
    message: str
    hint: str = ""


class Problem(BaseModel):
    """RFC 9457. `type` is `urn:spectrum:problem:<slug>`; some problems have further members."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    instance: str
    docs: str
    request_id: str
    errors: list[ErrorPlace]


# Instances and jobs -------------------------------------------------------------------------------------------------


class InstanceSpec(Wish):
    """What an instance should be: the body of PUT, and of POST with a name."""

    product: Name
    release: Text | None = None
    plan: Text | None = None
    target: Name | None = None
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, max_length=64)
    parameters: dict[str, Any] = Field(default_factory=dict, max_length=256)
    desired_state: Literal["running", "stopped", "suspended"] = "running"


class NewInstance(InstanceSpec):
    name: Name


class Endpoint(Shown):
    name: str
    url: str
    primary: bool


class ServiceState(Shown):
    name: str
    state: str
    health: Health
    restarts: int
    ports: dict[str, int]


class Condition(Shown):
    type: str
    status: Literal["true", "false", "unknown"]
    reason: str
    message: str
    since: datetime | None


class ActionState(Shown):
    """Whether a verb may be asked for now, and why not."""

    verb: str
    allowed: bool
    reason: str | None = None


class Instance(Shown):
    """One customer's environment: requested, accepted and observed."""

    id: str
    name: str
    organization_id: str
    product: str
    release: str
    plan: str
    target: str
    labels: dict[str, str]
    generation: int
    accepted_generation: int
    desired_state: str
    lifecycle: Lifecycle
    hold: Hold
    health: Health
    observed_at: datetime | None
    parameters: dict[str, Any]
    outputs: dict[str, Any]
    endpoints: list[Endpoint]
    services: list[ServiceState]
    conditions: list[Condition]
    active_job_id: str | None
    actions: list[ActionState]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    purge_at: datetime | None


class Failure(Shown):
    """Why something failed, and who can do something about it."""

    kind: ErrorClass = Field(alias="class")
    code: str
    actor: Actor
    message: str
    evidence: list[str]
    next: str


class JobSubject(Shown):
    type: str
    id: str
    name: str | None


class Waiting(Shown):
    """What a job waits for, who holds that, since when, until when at most, and who could unblock it (P20)."""

    reason: WaitsFor = Field(alias="for")
    holder: str | None
    position: int | None
    since: datetime
    until: datetime
    unblock: str


class Progress(Shown):
    done: int
    total: int


class Attempt(Shown):
    number: int
    phase: Literal["do", "undo", "replace"]
    cause: Literal["first", "retry", "rescue"]
    fence: int
    token: int | None
    worker_id: str | None
    outcome: str | None
    intent_at: datetime | None
    outcome_at: datetime | None
    error: Failure | None


class Step(Shown):
    id: str
    name: str
    needs: list[str]
    slot: str | None
    state: StepState
    effect_key: str | None
    deadline: datetime | None
    retry_at: datetime | None
    attempts: list[Attempt]


class Job(Shown):
    """One execution of an operation."""

    id: str
    operation: str
    operation_version: int
    subject: JobSubject
    parent_id: str | None
    generation: int | None
    version: int
    state: JobState
    done: bool
    fence: int
    worker_id: str | None
    waiting: Waiting | None
    error: Failure | None
    residue: list[Any]
    plan_hash: str | None
    progress: Progress
    deadline: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    steps: list[Step]


class OpenStep(Shown):
    """A step of which something is to be told, with its last error."""

    name: str
    state: StepState
    attempts: int
    retry_at: datetime | None
    deadline: datetime | None
    error: Failure | None


class Why(Shown):
    """Why a job is where it is: what it waits for, who could unblock it, and what its open steps met last."""

    job_id: str
    operation: str
    state: JobState
    done: bool
    summary: str
    waiting: Waiting | None
    deadline: datetime | None
    error: Failure | None
    residue: list[Any]
    steps: list[OpenStep]


class PlannedStep(Shown):
    name: str
    needs: list[str]
    slot: str | None
    state: Literal["pending", "skipped"]
    irreversible: bool
    destructive: bool


class Plan(Shown):
    """What a command would do: the answer to `dry_run`. Nothing was changed, and no key used up."""

    operation: str
    plan_hash: str
    steps: list[PlannedStep]


# Organizations and tokens -------------------------------------------------------------------------------------------


class NewOrganization(Wish):
    name: Name


class Organization(Shown):
    id: str
    name: str
    created_at: datetime


class NewToken(Wish):
    name: Text
    scopes: tuple[Text, ...] = Field(default=("admin",), min_length=1, max_length=64)
    expires_at: AwareDatetime | None = None
    organization: Text | None = Field(default=None, description="Another one's name or id: for the platform's tokens.")


class Token(Shown):
    """An API token. `token` is the secret itself: shown once, in the answer that made it."""

    id: str
    name: str
    organization_id: str
    prefix: str
    scopes: list[str]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    token: str | None = None


# Products -----------------------------------------------------------------------------------------------------------


class Publication(Wish):
    """The texts of a product's files by relative path; `file` is the Compose file among them."""

    file: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    files: dict[Annotated[str, StringConstraints(min_length=1, max_length=255)], str] = Field(max_length=200)

    @model_validator(mode="after")
    def _file_is_among_the_files(self) -> Publication:
        if self.file not in self.files:
            raise ValueError(f"files does not hold {self.file!r}, which file names as the Compose file")
        return self


class Product(Shown):
    name: str
    latest: str | None
    releases: int
    created_at: datetime


class Release(Shown):
    """An immutable version of a product."""

    id: str
    product: str
    version: str
    digest: str
    plans: list[dict[str, Any]]
    parameters: dict[str, Any]
    warnings: list[ErrorPlace]
    created_at: datetime | None


# Where instances run ------------------------------------------------------------------------------------------------


class NewTarget(Wish):
    name: Name
    url: Address
    pool: Name | None = Field(default=None, description="The workers that can reach it; by default a pool of its name.")


class Target(Shown):
    id: str
    name: str
    url: str
    pool: str
    shared: bool
    state: Literal["up", "down", "gone"]
    created_at: datetime


class NewJoinToken(Wish):
    target: Name | None = None
    pool: Name | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> NewJoinToken:
        if (self.target is None) is (self.pool is None):
            raise ValueError("give either target or pool")
        return self


class JoinToken(Shown):
    """Lets one worker join one pool. `token` is the secret itself, shown once."""

    pool: str
    expires_at: datetime
    token: str | None = None


class Worker(Shown):
    id: str
    name: str
    pool: str
    shared: bool
    state: Literal["live", "lost", "draining", "revoked"]
    targets: list[str]
    seen_at: datetime | None
    created_at: datetime


# What happened ------------------------------------------------------------------------------------------------------


class Event(Shown):
    """A fact: CloudEvents 1.0, with the log's position and the subject's sequence."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    type: str
    source: str
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: str
    partitionkey: str
    sequence: str
    position: int
    traceparent: str | None
    data: dict[str, Any]


class AuditSeal(Shown):
    """A record's place in its organization's chain. Hashes are SHA-256 in hex."""

    number: int
    previous: str
    hash: str
    sealed_at: datetime


class AuditRecord(Shown):
    """Who did what to what. `seal` follows a moment after the record."""

    id: str
    organization_id: str
    recorded_at: datetime
    actor: str
    action: str
    subject: str
    request_id: str | None
    evidence: dict[str, Any]
    seal: AuditSeal | None


class AuditHead(Shown):
    """Where a chain ends. `key_id` is the Ed25519 public key in hex, `signature` its signature in hex."""

    organization_id: str
    number: int
    hash: str
    sealed_at: datetime
    key_id: str
    signature: str

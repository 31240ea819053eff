"""The resources as the API shows them (INTERFACES §2). Fields that a newer server adds are kept, not refused.

States are plain strings for the same reason: a word that this version does not know must not break a client.
Times are aware datetimes, UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from spectrum.core.moments import stamp

Moment = Annotated[datetime, PlainSerializer(stamp, when_used="json")]


class Model(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    def as_json(self) -> dict[str, Any]:
        """What the server sent, added fields included, ready for `json.dumps`."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Endpoint(Model):
    name: str
    url: str
    primary: bool = False


class ServiceState(Model):
    name: str
    state: str = "unknown"
    health: str = "unknown"
    restarts: int = 0
    ports: dict[str, int] = Field(default_factory=dict)


class Condition(Model):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: Moment | None = None


class Action(Model):
    verb: str
    allowed: bool
    reason: str | None = None


class Instance(Model):
    """One customer's environment."""

    id: str
    name: str
    product: str
    release: str = ""
    plan: str = ""
    target: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    generation: int = 1
    accepted_generation: int | None = None
    desired_state: str = "running"
    lifecycle: str = "creating"
    hold: str = "none"
    health: str = "unknown"
    observed_at: Moment | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, Any] = Field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()
    services: tuple[ServiceState, ...] = ()
    conditions: tuple[Condition, ...] = ()
    active_job_id: str | None = None
    actions: tuple[Action, ...] = ()
    created_at: Moment | None = None
    updated_at: Moment | None = None
    deleted_at: Moment | None = None
    purge_at: Moment | None = None

    @property
    def url(self) -> str:
        """The address of the primary endpoint (else of the first); empty while there is none."""
        return next((e.url for e in sorted(self.endpoints, key=lambda e: not e.primary)), "")


class Failure(Model):
    """Why something failed, who can do something about it, and the command that helps."""

    kind: str = Field(default="", alias="class")
    code: str = ""
    actor: str = "nobody"
    message: str = ""
    evidence: tuple[str, ...] = ()
    next: str = ""


class Subject(Model):
    type: str
    id: str
    name: str | None = None

    @property
    def label(self) -> str:
        return f"{self.type} {self.name or self.id}"


class Waiting(Model):
    """What a job waits for, since when, until when at most, and who could unblock it (P20)."""

    reason: str = Field(default="", alias="for")
    holder: str | None = None
    position: int | None = None
    since: Moment | None = None
    until: Moment | None = None
    unblock: str | None = None


class Attempt(Model):
    number: int
    phase: str = "do"
    cause: str = "first"
    outcome: str | None = None
    worker_id: str | None = None
    intent_at: Moment | None = None
    outcome_at: Moment | None = None
    error: Failure | None = None


class Step(Model):
    id: str = ""
    name: str
    state: str = "pending"
    slot: str | None = None
    needs: tuple[str, ...] = ()
    retry_at: Moment | None = None
    deadline: Moment | None = None
    attempts: tuple[Attempt, ...] = ()


class Progress(Model):
    done: int = 0
    total: int = 0


class Job(Model):
    """One execution of an operation."""

    id: str
    operation: str
    subject: Subject
    state: str
    done: bool = False
    version: int = 0
    generation: int | None = None
    parent_id: str | None = None
    worker_id: str | None = None
    waiting: Waiting | None = None
    error: Failure | None = None
    residue: tuple[Any, ...] = ()
    plan_hash: str | None = None
    progress: Progress = Progress()
    deadline: Moment | None = None
    created_at: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    steps: tuple[Step, ...] = ()


class Why(Model):
    """What stands in a job's way, in words."""

    job_id: str = ""
    state: str = ""
    summary: str = ""
    waiting: Waiting | None = None


class Plan(Model):
    """What a command would do: the answer to `?dry_run=true`."""

    plan_hash: str = ""
    operation: str = ""
    steps: tuple[Step, ...] = ()


class Product(Model):
    name: str
    latest: str | None = None
    releases: int | None = None
    created_at: Moment | None = None


class Release(Model):
    """An immutable version of a product."""

    id: str = ""
    product: str
    version: str
    digest: str = ""
    plans: tuple[Any, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    warnings: tuple[Any, ...] = ()
    created_at: Moment | None = None


class Target(Model):
    id: str = ""
    name: str
    url: str
    pool: str | None = None
    state: str = ""
    created_at: Moment | None = None


class Worker(Model):
    id: str
    name: str | None = None
    pool: str | None = None
    state: str = ""
    targets: tuple[str, ...] = ()
    seen_at: Moment | None = None
    created_at: Moment | None = None


class Token(Model):
    """An API or join token. `token` is the secret, shown once, when it is made."""

    id: str = ""
    name: str | None = None
    scopes: tuple[str, ...] = ()
    token: str | None = None
    expires_at: Moment | None = None
    created_at: Moment | None = None
    revoked_at: Moment | None = None


class Organization(Model):
    id: str
    name: str
    created_at: Moment | None = None


class Event(Model):
    """A fact: CloudEvents 1.0, with the log's `position` and the subject's `sequence`."""

    id: str
    type: str
    subject: str | None = None
    source: str | None = None
    time: Moment | None = None
    sequence: Any = None
    position: int | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class AuditSeal(Model):
    """A record's place in its organization's chain."""

    number: int
    hash: str
    previous: str = ""
    sealed_at: Moment | None = None


class AuditRecord(Model):
    """Who did what to what. `seal` follows a moment after the record."""

    id: str
    actor: str
    action: str
    subject: str
    organization_id: str = ""
    recorded_at: Moment | None = None
    request_id: str | None = None
    evidence: dict[str, Any] = Field(default_factory=dict)
    seal: AuditSeal | None = None


class AuditHead(Model):
    """Where a chain ends, signed with the cell's key, which `key_id` is."""

    organization_id: str
    number: int
    hash: str
    key_id: str
    signature: str
    sealed_at: Moment | None = None


class LogLine(Model):
    at: Moment | None = None
    service: str = ""
    stream: str = "stdout"
    text: str

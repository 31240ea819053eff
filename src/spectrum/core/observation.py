"""What is seen of an instance on its target: slots, their health, their ends, and the log lines of services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from spectrum.core.ids import InstanceId
from spectrum.core.product.resources import Facts


class Presence(StrEnum):
    """What an observation of a slot saw. UNKNOWN: looked, and could not decide."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class SlotHealth(StrEnum):
    """How the service in a slot is, by its own health check; the health of the whole instance is `core.jobs.table.Health`."""

    HEALTHY = "healthy"
    STARTING = "starting"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a one-shot unit ended: its exit code or signal, and the tail of its output."""

    code: int
    at: datetime
    tail: tuple[str, ...] = ()
    stdout_path: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """One slot as it is. `spec_digest` is of the resource that was asked for when it was made (`digest_of`)."""

    slot: str
    presence: Presence
    key: str = ""
    token: int = 0
    spec_digest: str = ""
    running: bool = False
    health: SlotHealth = SlotHealth.UNKNOWN
    restarts: int = 0
    exit: Exit | None = None
    ended: bool = False  # a service that the target does not start again by itself
    facts: Facts | None = None  # of the base
    ports: Mapping[str, int] = field(default_factory=dict)
    tail: tuple[str, ...] = ()  # last log lines, where it is not healthy
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """Something the target cannot do and says so, such as limits that it cannot enforce."""

    type: str
    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing on the target that carries our label."""

    instance: InstanceId
    slot: str
    key: str
    token: int


@dataclass(frozen=True, slots=True)
class LogLine:
    at: datetime
    service: str
    stream: str  # stdout, stderr, or supervisor
    text: str


def record_of(base: Observed) -> Mapping[str, Any]:
    """What of the base's observation goes into the instance's record: facts and conditions, as JSON."""
    if base.facts is None:
        return {}
    facts = base.facts
    return {
        "facts": {
            "ports": dict(facts.ports),
            "roots": dict(facts.roots),
            "hosts": dict(facts.hosts),
            "binds": dict(facts.binds),
            "addresses": dict(facts.addresses),
        },
        "conditions": [condition_as_json(condition) for condition in base.conditions],
    }


def condition_as_json(condition: Condition) -> Mapping[str, Any]:
    """A condition as the instance's record shows it (INTERFACES §2); the record adds since when."""
    return {
        "type": condition.type,
        "status": "true" if condition.status else "false",
        "reason": condition.reason,
        "message": condition.message,
    }

"""The provider contract (DESIGN §3.8, §3.9, §3.15): level-triggered calls on slots, fenced, safe to repeat.

Every call carries instance, slot, effect key, fence and token. A provider refuses (raises `StaleFence`) a fence lower than it has
seen for the instance and a token lower than it has seen for the slot, and records both before it answers, also where there is
nothing to do: only that keeps a late call out. Everything that a call makes is labelled with instance, slot, key and token.

Errors are `Fault`s, classified once. A call that is cancelled or times out may still happen: its outcome is unknown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from spectrum.core.ids import InstanceId
from spectrum.core.product.resources import Artifact, Base, Facts, File, Hook, Service, Volume

Resource = Base | Volume | Service | Hook


def digest_of(resource: Resource) -> str:
    """`sha256:…` of what was asked for, the same in every process. The content of secret files is left out (P18)."""
    content = json.dumps(_plain(resource), sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(f"{type(resource).__name__}:{content}".encode()).hexdigest()


def _plain(value: object) -> object:
    match value:
        case File(secret=True):
            return [value.target, value.mode, value.uid, value.gid]
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case tuple():
            return [_plain(item) for item in value]
        case _ if is_dataclass(value):
            return {member.name: _plain(getattr(value, member.name)) for member in fields(value)}
        case _:
            return value


class Strength(StrEnum):
    """How a provider fences: check and act in one (atomic), or markers checked right before (best effort)."""

    ATOMIC = "atomic"
    BEST_EFFORT = "best_effort"


class Presence(StrEnum):
    """What an observation of a slot saw. UNKNOWN: looked, and could not decide."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Health(StrEnum):
    HEALTHY = "healthy"
    STARTING = "starting"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, about what, and with which right. `slot` is `service/role`; `token` 0 is an observation."""

    instance: InstanceId
    slot: str
    key: str
    fence: int
    token: int = 0


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
    health: Health = Health.UNKNOWN
    restarts: int = 0
    exit: Exit | None = None
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


class Provider(Protocol):
    """One target. Instances of this class hold connections: `close` ends them."""

    kind: str  # process, docker, kubernetes, memory
    strength: Strength
    settle: float  # seconds between the two sightings that prove an absence

    async def stock(self, artifacts: tuple[Artifact, ...], images: tuple[str, ...]) -> None:
        """Make ready what a release needs: content-addressed, shared, idempotent, safe to run side by side."""

    async def observe(self, call: Call) -> Observed:
        """Deliver the call's fence, then say what is in the slot. The first act of a claim is an observation."""

    async def survey(self, instance: InstanceId, fence: int) -> tuple[Observed, ...]:
        """Deliver the fence, then say what is in every slot of the instance."""

    async def ensure(self, call: Call, resource: Resource, replaces: frozenset[str] = frozenset()) -> Observed:
        """Make the slot hold this resource under this key. Returns once it was made or started, not once it is healthy.

        The same key again is "already so", running or not made anew (a service that has ended is started again).
        A hook is started once per key and goes on by itself; `observe` says how it ended.
        Another key in the slot is removed first if it is in `replaces` (wanted absent), else `Fault(conflict)`: it never replaces.
        """

    async def remove(self, call: Call) -> Observed:
        """Make the slot hold nothing, whatever its key, gracefully first. Removing a volume or the base destroys its data.

        Already so is success, after the record of fence and token.
        """

    async def inventory(self) -> tuple[Item, ...]:
        """Everything on this target that carries our label, of every instance."""

    def logs(
        self, instance: InstanceId, service: str | None, since: datetime | None, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """Log lines, oldest first; follows until it is closed if asked to."""

    async def close(self) -> None:
        """Let go of connections. What runs on the target goes on."""

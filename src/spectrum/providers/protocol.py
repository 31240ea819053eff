"""The provider contract (DESIGN §3.8, §3.9, §3.15): level-triggered calls on slots, fenced, safe to repeat.

Every call carries instance, slot, effect key, fence and token. A provider refuses (raises `StaleFence`) a fence lower than it has
seen for the instance and a token lower than it has seen for the slot, and records both before it answers, also where there is
nothing to do: only that keeps a late call out. Everything that a call makes is labelled with instance, slot, key and token.

Errors are `Fault`s, classified once. A call that is cancelled or times out may still happen: its outcome is unknown.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from spectrum.core.ids import InstanceId
from spectrum.core.observation import Condition, Exit, Item, LogLine, Observed, Presence, SlotHealth
from spectrum.core.product.resources import Artifact, Base, Hook, Service, Volume

__all__ = [
    "Call",
    "Condition",
    "Exit",
    "Item",
    "LogLine",
    "Observed",
    "Presence",
    "Provider",
    "Resource",
    "SlotHealth",
    "Strength",
    "digest_of",
]

Resource = Base | Volume | Service | Hook


def digest_of(resource: Resource, key: bytes) -> str:
    """`hmac-sha256:…` of what was asked for, secrets included; the same in every process that has the target's `key`.

    A plain digest would let a short secret be found by trying (P18).
    """
    content = json.dumps(_plain(resource), sort_keys=True, separators=(",", ":"))
    return "hmac-sha256:" + hmac.new(key, f"{type(resource).__name__}:{content}".encode(), "sha256").hexdigest()


def _plain(value: object) -> object:
    match value:
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


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, about what, and with which right. `slot` is `service/role`; `token` 0 is an observation."""

    instance: InstanceId
    slot: str
    key: str
    fence: int
    token: int = 0


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

    async def revive(self) -> tuple[InstanceId, ...]:
        """Start again what is wanted running and is not, after a reboot. A target that does so by itself does nothing here."""

    def logs(
        self, instance: InstanceId, service: str | None, since: datetime | None, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """Log lines, oldest first; follows until it is closed if asked to."""

    async def close(self) -> None:
        """Let go of connections. What runs on the target goes on."""

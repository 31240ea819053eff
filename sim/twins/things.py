"""What exists on a memory target: one resource with its life so far, and what an observer sees of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import assert_never

from sim.hosts import EPOCH
from sim.loop import SimLoop
from spectrum.core.product.resources import Base, Facts, Hook, RestartPolicy, Service, Volume
from spectrum.providers.protocol import Call, Exit, Observed, Presence, Resource, SlotHealth, digest_of

DIGEST_KEY = b"the memory target's own"


@dataclass(frozen=True, slots=True)
class Script:
    """How a service or hook behaves.

    A service is healthy after `healthy_after` seconds (None: never) and `says` these lines at each start; one that is not
    to be restarted may end after `ends_after`. A hook `runs_for` seconds. Either ends with `code`. `tail` is the output of a hook,
    or what a service that is not healthy has to say.
    """

    healthy_after: float | None = 0.5
    ends_after: float | None = None
    runs_for: float = 0.5
    code: int = 0
    says: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()


@dataclass(slots=True)
class Thing:
    """One resource that exists. `call` made it; `data` is what a volume holds: the keys of the hooks that wrote to it."""

    id: int
    call: Call
    resource: Resource
    started: float
    script: Script
    running: bool = True
    sick: bool = False
    restarts: int = 0
    facts: Facts | None = None
    data: list[str] = field(default_factory=list)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self.digest = digest_of(self.resource, DIGEST_KEY)

    def end(self) -> bool:
        """Let its process end by itself. Whether the target starts it again, as its policy says."""
        restarted = isinstance(self.resource, Service) and self.resource.restart is not RestartPolicy.NO
        self.running = restarted
        if restarted:
            self.restarts += 1
            self.started = now()
        return restarted

    def seen(self) -> Observed:
        """What an observation tells of it."""
        age = now() - self.started
        seen = Observed(
            self.call.slot,
            Presence.PRESENT,
            key=self.call.key,
            token=self.call.token,
            spec_digest=self.digest,
            running=self.running,
            restarts=self.restarts,
            facts=self.facts,
        )
        match self.resource:
            case Hook():
                return self._hook(seen, age)
            case Service():
                return self._service(seen, self.resource, age)
            case Base() | Volume():
                return replace(seen, running=False)
            case _:
                assert_never(self.resource)

    def _hook(self, seen: Observed, age: float) -> Observed:
        if age < self.script.runs_for:
            return seen
        end = moment(self.started + self.script.runs_for)
        return replace(seen, running=False, exit=Exit(self.script.code, end, self.script.tail))

    def _service(self, seen: Observed, service: Service, age: float) -> Observed:
        ends, tail = self.script.ends_after, self.script.tail
        if self.running and ends is not None and age >= ends:
            end = Exit(self.script.code, moment(self.started + ends), tail)
            return replace(seen, running=False, health=SlotHealth.UNHEALTHY, exit=end, ended=True, tail=tail)
        health = self._health(service, age)
        return replace(seen, health=health, ended=not self.running, tail=() if health is SlotHealth.HEALTHY else tail)

    def _health(self, service: Service, age: float) -> SlotHealth:
        if not self.running or self.sick:
            return SlotHealth.UNHEALTHY
        after, check = self.script.healthy_after, service.health
        if after is not None and age >= after:
            return SlotHealth.HEALTHY
        patience = 0.0 if check is None else check.start_period + check.interval * check.retries
        return SlotHealth.STARTING if age < max(patience, after or 0.0) else SlotHealth.UNHEALTHY


def now() -> float:
    """Virtual seconds: a target has no clock of its own."""
    return SimLoop.current().now


def moment(at: float) -> datetime:
    return EPOCH + timedelta(seconds=at)

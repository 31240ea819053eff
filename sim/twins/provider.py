"""The twin of a provider: a target in memory, of either fencing strength, with a ledger of all that was done to it.

`MemoryTarget` is the target: it outlives workers. `MemoryProvider` is one worker's connection to it. On an atomic target check and
act are one; on a best-effort one the caller checks first and acts in a later call, and may crash or stand still in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar, assert_never

from sim.hosts import EPOCH, require_alive
from sim.loop import SimLoop
from sim.marks import declare, sometimes
from sim.twins.calls import Line
from sim.twins.faults import Faults
from spectrum.core.errors import ErrorClass, Fault, StaleFence
from spectrum.core.ids import InstanceId
from spectrum.core.product.resources import Artifact, Base, Facts, Hook, Service, Volume
from spectrum.providers.protocol import (
    Call,
    Exit,
    Health,
    Item,
    LogLine,
    Observed,
    Presence,
    Resource,
    Strength,
)

T = TypeVar("T")

STALE_FENCE = declare("a provider refused a stale fence", "a zombie reached the target")
STALE_TOKEN = declare("a provider refused a stale token", "a late call came in under its own fence")
ALREADY_SO = declare("an ensure found its own work", "the outcome of an earlier call was unknown")
TAKEN = declare("an ensure met a key that is wanted", "it must answer conflict, never replace")
REPLACED = declare("an ensure removed a key that is wanted absent", "an undecidable slot is being made anew")
NOTHING_THERE = declare("a remove found nothing", "its token has to be recorded all the same")
DRIFTED = declare("a resource vanished by itself", "healing starts from it")

FIRST_PORT = 20_000


class Bug(StrEnum):
    """What a target can be made to do wrong, so that the invariants can be seen to notice."""

    NO_FENCE = "takes calls under any fence"
    NO_TOKEN = "takes calls under any token"  # noqa: S105
    TWO_PER_SLOT = "makes a second resource where another key is"


class Act(StrEnum):
    """What the ledger records."""

    ARRIVED = "arrived"
    REFUSED = "refused"
    MADE = "made"
    STARTED = "started"
    REMOVED = "removed"
    DRIFTED = "vanished"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a target's ledger. `at` is virtual seconds."""

    at: float
    act: Act
    call: Call


@dataclass(frozen=True, slots=True)
class Script:
    """How a service or hook behaves. `healthy_after` seconds, None is never; a hook `runs_for` seconds and ends with `code`."""

    healthy_after: float | None = 0.5
    runs_for: float = 0.5
    code: int = 0
    tail: tuple[str, ...] = ()


@dataclass(slots=True)
class Thing:
    """One resource that exists."""

    id: int
    call: Call
    resource: Resource
    started: float
    script: Script
    digest: str
    running: bool = True
    facts: Facts | None = None


@dataclass(slots=True)
class MemoryTarget:
    """A target and everything on it. `things` and `ledger` are for tests and invariants to read."""

    faults: Faults
    strength: Strength = Strength.ATOMIC
    settle: float = 2.0
    bugs: frozenset[Bug] = frozenset()
    scripts: dict[str, Script] = field(default_factory=dict)  # by the name of a service or hook
    things: dict[int, Thing] = field(default_factory=dict)
    ledger: list[Entry] = field(default_factory=list)
    log: list[tuple[InstanceId, LogLine]] = field(default_factory=list)
    stocked: set[str] = field(default_factory=set)
    line: Line = field(init=False)
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # replaced whenever the log has grown
    _fences: dict[InstanceId, int] = field(default_factory=dict)
    _tokens: dict[tuple[InstanceId, str], int] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self.line = Line(self.faults, _unreachable)

    def connect(self) -> MemoryProvider:
        return MemoryProvider(self)

    def living(self, instance: InstanceId, slot: str) -> list[Thing]:
        return [thing for thing in self.things.values() if (thing.call.instance, thing.call.slot) == (instance, slot)]

    # Fencing

    def deliver(self, call: Call) -> None:
        """Check a call's fence and token against the highest seen, and remember them.

        Raises StaleFence for one that is lower.
        """
        self._record(Act.ARRIVED, call)
        fence, slot = self._fences.get(call.instance, 0), (call.instance, call.slot)
        if call.fence < fence and Bug.NO_FENCE not in self.bugs:
            sometimes(STALE_FENCE)
            raise self._refuse(call, f"fence {call.fence} is stale: {fence} was here")
        if call.token and call.token < self._tokens.get(slot, 0) and Bug.NO_TOKEN not in self.bugs:
            sometimes(STALE_TOKEN)
            raise self._refuse(call, f"token {call.token} is stale: {self._tokens[slot]} was here")
        self._fences[call.instance] = max(fence, call.fence)
        if call.token:
            self._tokens[slot] = max(self._tokens.get(slot, 0), call.token)

    def _refuse(self, call: Call, why: str) -> StaleFence:
        self._record(Act.REFUSED, call)
        return StaleFence(f"{call.slot} of {call.instance}: {why}. Let go of the job")

    # Effects

    def clear(self, call: Call, resource: Resource, replaces: frozenset[str]) -> None:
        """Remove what stands in an ensure's way.

        Raises Fault(conflict) where another key is in the slot and is not in `replaces`.
        """
        others = [thing for thing in self.living(call.instance, call.slot) if thing.call.key != call.key]
        if Bug.TWO_PER_SLOT in self.bugs:
            others = []
        for thing in others:
            if thing.call.key not in replaces:
                sometimes(TAKEN)
                raise Fault(ErrorClass.CONFLICT, "slot-taken", f"{call.slot} holds {thing.call.key}, not {call.key}")
        for thing in others:
            sometimes(REPLACED)
            self._take_away(thing, Act.REMOVED, call)

    def make(self, call: Call, resource: Resource) -> Observed:
        """Make the resource, or start it again where it has ended, unless it is there."""
        own = [thing for thing in self.living(call.instance, call.slot) if thing.call.key == call.key]
        if not own:
            self._create(call, resource)
        elif isinstance(resource, Service) and not own[0].running:
            own[0].running, own[0].started = True, _now()
            self._record(Act.STARTED, call)
        else:
            sometimes(ALREADY_SO)
        return self.look(call)

    def unmake(self, call: Call) -> Observed:
        """Remove whatever is in the slot."""
        living = self.living(call.instance, call.slot)
        sometimes(NOTHING_THERE, not living)
        for thing in living:
            self._take_away(thing, Act.REMOVED, call)
        return self.look(call)

    def lose(self, thing: Thing) -> None:
        """Let a resource vanish without anybody's call, as somebody with a shell on the machine would."""
        sometimes(DRIFTED)
        self._take_away(thing, Act.DRIFTED, thing.call)

    def stop(self, thing: Thing) -> None:
        """Let a service end by itself."""
        thing.running = False
        self._record(Act.DRIFTED, thing.call)

    def _create(self, call: Call, resource: Resource) -> None:
        self._count += 1
        thing = Thing(self._count, call, resource, _now(), self._script(resource), _digest(resource))
        if isinstance(resource, Base):
            thing.facts = self._facts(call.instance, resource)
        self.things[thing.id] = thing
        self._record(Act.MADE, call)

    def _script(self, resource: Resource) -> Script:
        script = self.scripts.get(resource.name, Script())
        match resource:
            case Service() if self.faults.strikes("service never healthy"):
                return Script(None, script.runs_for, script.code, ("it cannot find its feet",))
            case Hook() if self.faults.strikes("hook fails"):
                return Script(script.healthy_after, script.runs_for, 1, ("it did not work",))
            case Service() | Hook() | Base() | Volume():
                return script
            case _:
                assert_never(resource)

    def _facts(self, instance: InstanceId, base: Base) -> Facts:
        ports: dict[str, int] = {}
        for request in base.ports:
            self._count += 1
            ports[f"{request.service}/{request.port}"] = FIRST_PORT + self._count
        services = sorted({request.service for request in base.ports})
        return Facts(
            ports=ports,
            roots={service: f"/memory/{instance}/{service}" for service in services},
            hosts=dict.fromkeys(services, "127.0.0.1"),
            binds=dict.fromkeys(services, "127.0.0.1"),
            addresses={
                name: f"127.0.0.1:{ports[name]}"
                for request in base.ports
                if request.public and (name := f"{request.service}/{request.port}")
            },
        )

    def _take_away(self, thing: Thing, act: Act, call: Call) -> None:
        del self.things[thing.id]
        self._record(act, call)

    def _record(self, act: Act, call: Call) -> None:
        loop = SimLoop.current()
        self.ledger.append(Entry(loop.now, act, call))
        if act is not Act.ARRIVED:
            loop.tell(
                f"{call.slot} of {call.instance} {act.value} as {call.key} under {call.fence}/{call.token}", "target"
            )
        loop.changed()

    # Observations

    def look(self, call: Call) -> Observed:
        """What is in the slot."""
        living = self.living(call.instance, call.slot)
        if len(living) > 1:
            return Observed(call.slot, Presence.UNKNOWN)
        return _seen(living[0]) if living else Observed(call.slot, Presence.ABSENT)

    def write(self, instance: InstanceId, service: str, text: str, stream: str = "stdout") -> None:
        """Let a service write a line to its log."""
        self.log.append((instance, LogLine(_moment(_now()), service, stream, text)))
        self.wake.set()
        self.wake = asyncio.Event()


class MemoryProvider:
    """One worker's connection to a memory target: the Provider contract."""

    kind = "memory"

    def __init__(self, target: MemoryTarget) -> None:
        self.target = target
        self.strength = target.strength
        self.settle = target.settle
        self._open = True

    async def stock(self, artifacts: tuple[Artifact, ...], images: tuple[str, ...]) -> None:
        names = {artifact.name for artifact in artifacts} | set(images)
        await self._call("stock", lambda: self.target.stocked.update(names))

    async def observe(self, call: Call) -> Observed:
        if self.target.faults.strikes("provider.observe undecidable"):
            await self._call("observe", lambda: self.target.deliver(_reading(call)))
            return Observed(call.slot, Presence.UNKNOWN)
        return await self._call("observe", lambda: self._delivered(_reading(call), lambda: self.target.look(call)))

    async def survey(self, instance: InstanceId, fence: int) -> tuple[Observed, ...]:
        def everything() -> tuple[Observed, ...]:
            slots = {thing.call.slot for thing in self.target.things.values() if thing.call.instance == instance}
            return tuple(self.target.look(Call(instance, slot, "", fence)) for slot in sorted(slots))

        return await self._call("survey", lambda: self._delivered(Call(instance, "", "", fence), everything))

    async def ensure(self, call: Call, resource: Resource, replaces: frozenset[str] = frozenset()) -> Observed:
        target = self.target
        if self.strength is Strength.ATOMIC:

            def at_once() -> Observed:
                target.deliver(call)
                target.clear(call, resource, replaces)
                return target.make(call, resource)

            return await self._call("ensure", at_once)
        await self._call("check", lambda: target.deliver(call))
        await self._call("clear", lambda: target.clear(call, resource, replaces))

        def where_free() -> Observed:
            # The slot's name is taken for as long as anything is in it: the engine of a target sees to that.
            target.clear(call, resource, frozenset())
            return target.make(call, resource)

        return await self._call("ensure", where_free)

    async def remove(self, call: Call) -> Observed:
        target = self.target
        if self.strength is Strength.ATOMIC:
            return await self._call("remove", lambda: self._delivered(call, lambda: target.unmake(call)))
        await self._call("check", lambda: target.deliver(call))
        return await self._call("remove", lambda: target.unmake(call))

    async def inventory(self) -> tuple[Item, ...]:
        def everything() -> tuple[Item, ...]:
            calls = [thing.call for thing in self.target.things.values()]
            items = [Item(call.instance, call.slot, call.key, call.token) for call in calls]
            return tuple(sorted(items, key=lambda item: (item.instance, item.slot, item.key)))

        return await self._call("inventory", everything)

    async def logs(
        self, instance: InstanceId, service: str | None, since: datetime | None, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        def wanted(start: int) -> list[LogLine]:
            return [
                line
                for owner, line in self.target.log[start:]
                if owner == instance and service in (None, line.service) and (since is None or line.at >= since)
            ]

        require_alive()
        seen = len(self.target.log)
        for line in wanted(0)[-tail:] if tail else []:
            yield line
        while follow and self._open:
            if seen == len(self.target.log):
                await self.target.wake.wait()
            new, seen = wanted(seen), len(self.target.log)
            for line in new:
                yield line

    async def close(self) -> None:
        self._open = False

    async def _call(self, name: str, work: Callable[[], T]) -> T:
        if not self._open:
            raise RuntimeError("this connection is closed: open another one")
        return await self.target.line.call(f"provider.{name}", work)

    def _delivered(self, call: Call, then: Callable[[], T]) -> T:
        self.target.deliver(call)
        return then()


def _unreachable(why: str) -> Fault:
    return Fault(ErrorClass.DEPENDENCY, "target-unreachable", f"the memory target does not answer: {why}")


def _reading(call: Call) -> Call:
    return Call(call.instance, call.slot, call.key, call.fence)


def _seen(thing: Thing) -> Observed:
    over = _now() - thing.started
    seen = Observed(
        thing.call.slot,
        Presence.PRESENT,
        key=thing.call.key,
        token=thing.call.token,
        spec_digest=thing.digest,
        running=thing.running,
        health=_health(thing, over),
        facts=thing.facts,
    )
    match thing.resource:
        case Hook():
            return _ended(seen, thing, over)
        case Service():
            return seen if seen.health is Health.HEALTHY else replace(seen, tail=thing.script.tail)
        case Base() | Volume():
            return replace(seen, running=False)
        case _:
            assert_never(thing.resource)


def _ended(seen: Observed, thing: Thing, over: float) -> Observed:
    if over < thing.script.runs_for:
        return seen
    end = _moment(thing.started + thing.script.runs_for)
    return replace(seen, running=False, exit=Exit(thing.script.code, end, thing.script.tail))


def _health(thing: Thing, over: float) -> Health:
    if not isinstance(thing.resource, Service):
        return Health.UNKNOWN
    if not thing.running:
        return Health.UNHEALTHY
    after, check = thing.script.healthy_after, thing.resource.health
    if after is not None and over >= after:
        return Health.HEALTHY
    patience = 0.0 if check is None else check.start_period + check.interval * check.retries
    return Health.STARTING if over < max(patience, after or 0.0) else Health.UNHEALTHY


def _digest(resource: Resource) -> str:
    text = json.dumps({"kind": type(resource).__name__, **asdict(resource)}, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _now() -> float:
    return SimLoop.current().now


def _moment(at: float) -> datetime:
    return EPOCH + timedelta(seconds=at)

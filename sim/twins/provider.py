"""The twin of a provider: a target in memory, of either fencing strength, with a ledger of all that was done to it.

`MemoryTarget` is the target: it outlives workers. `MemoryProvider` is one worker's connection to it. On an atomic target check and
act are one; on a best-effort one the caller checks first and acts in a later call, and may crash or stand still in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from sim.hosts import require_alive
from sim.loop import SimLoop
from sim.marks import declare, sometimes
from sim.twins.calls import Line
from sim.twins.faults import Faults
from sim.twins.things import Script, Thing, moment, now
from spectrum.core.errors import ErrorClass, Fault, StaleFence
from spectrum.core.ids import InstanceId
from spectrum.core.product.resources import Artifact, Base, Facts, Hook, Service, Volume
from spectrum.providers.protocol import (
    Call,
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
TAKEN = declare(
    "an ensure met a key that is wanted", "no operation asks for a slot that another is wanted in", not_yet=True
)
REPLACED = declare("an ensure removed a key that is wanted absent", "an undecidable slot is being made anew")
NOTHING_THERE = declare("a remove found nothing", "its token has to be recorded all the same")
REFUSED = declare(
    "a target refused a call for good", "a step that fails for good unwinds, an undo that does leaves residue"
)
DRIFTED = declare("a resource vanished by itself", "nothing heals yet", not_yet=True)

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
    ENDED = "ended by itself"
    DRIFTED = "vanished"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a target's ledger: what became of which slot by which call. `at` is virtual seconds."""

    at: float
    act: Act
    call: Call
    slot: str


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
    aloud: str = "nothing"  # what programs on it say aloud where they fail
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

        Raises Fault(conflict) where another key is in the slot and is not in `replaces`, or where the instance has no base.
        """
        if not isinstance(resource, Base) and self._base(call.instance) is None:
            raise Fault(
                ErrorClass.CONFLICT, "no-base", f"{call.slot}: instance {call.instance} has no base; ensure it first"
            )
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
            own[0].running, own[0].started = True, now()
            self._record(Act.STARTED, call)
            self._speak(own[0])
        else:
            sometimes(ALREADY_SO)
        return self.look(call)

    def unmake(self, call: Call) -> Observed:
        """Remove whatever is in the slot. A base takes everything of its instance with it."""
        living = self.living(call.instance, call.slot)
        sometimes(NOTHING_THERE, not living)
        if any(isinstance(thing.resource, Base) for thing in living):
            living = [thing for thing in self.things.values() if thing.call.instance == call.instance]
        for thing in living:
            self._take_away(thing, Act.REMOVED, call)
        return self.look(call)

    # What happens by itself

    def lose(self, thing: Thing) -> None:
        """Let a resource vanish without anybody's call, as somebody with a shell on the machine would."""
        sometimes(DRIFTED)
        self._take_away(thing, Act.DRIFTED, thing.call)

    def kill(self, thing: Thing) -> None:
        """Let a service end by itself; the target starts it again if its policy says so."""
        if thing.end():
            self._speak(thing)
        self._record(Act.ENDED, thing.call)

    # Things

    def _base(self, instance: InstanceId) -> Thing | None:
        things = (thing for thing in self.things.values() if thing.call.instance == instance)
        return next((thing for thing in things if isinstance(thing.resource, Base)), None)

    def _create(self, call: Call, resource: Resource) -> None:
        self._count += 1
        thing = Thing(self._count, call, resource, now(), self._script(resource))
        if isinstance(resource, Base):
            thing.facts = self._facts(call.instance, resource)
        self.things[thing.id] = thing
        self._record(Act.MADE, call)
        self._speak(thing)

    def _speak(self, thing: Thing) -> None:
        """What starting it leaves behind: lines in the log, or data in the volumes that a hook sees."""
        match thing.resource:
            case Service(name=name):
                for text in thing.script.says:
                    self.write(thing.call.instance, name, text)
            case Hook(service=service):
                for mount in service.mounts:
                    for volume in self._volumes(thing.call.instance, mount.volume):
                        volume.data.append(thing.call.key)

    def _volumes(self, instance: InstanceId, name: str) -> list[Thing]:
        things = [thing for thing in self.things.values() if thing.call.instance == instance]
        return [thing for thing in things if isinstance(thing.resource, Volume) and thing.resource.name == name]

    def _script(self, resource: Resource) -> Script:
        script = self.scripts.get(resource.name, Script())
        if isinstance(resource, Service) and self.faults.strikes("service never healthy"):
            return replace(script, healthy_after=None, tail=(f"it cannot find its feet with {self.aloud}",))
        if isinstance(resource, Hook) and self.faults.strikes("hook fails"):
            return replace(script, code=1, tail=(f"it did not work with {self.aloud}",))
        return script

    def _facts(self, instance: InstanceId, base: Base) -> Facts:
        services = sorted({*base.services, *(request.service for request in base.ports)})
        ports = {f"{request.service}/{request.port}": self._port() for request in base.ports}
        public = [f"{request.service}/{request.port}" for request in base.ports if request.public]
        return Facts(
            ports=ports,
            roots={service: f"/memory/{instance}/{service}" for service in services},
            hosts=dict.fromkeys(services, "127.0.0.1"),
            binds=dict.fromkeys(services, "127.0.0.1"),
            addresses={name: f"127.0.0.1:{ports[name]}" for name in public},
        )

    def _port(self) -> int:
        self._count += 1
        return FIRST_PORT + self._count

    def _take_away(self, thing: Thing, act: Act, call: Call) -> None:
        del self.things[thing.id]
        self._record(act, call, thing)

    def _record(self, act: Act, call: Call, thing: Thing | None = None) -> None:
        loop = SimLoop.current()
        what = call if thing is None else thing.call
        self.ledger.append(Entry(loop.now, act, call, what.slot))
        if act is not Act.ARRIVED:
            right = f"under {call.fence}/{call.token}"
            loop.tell(f"{what.slot} of {call.instance}: {what.key or 'a call'} {act.value} {right}", "target")
        loop.changed(self)

    # Observations

    def look(self, call: Call) -> Observed:
        """What is in the slot."""
        living = self.living(call.instance, call.slot)
        if len(living) > 1:
            return Observed(call.slot, Presence.UNKNOWN)
        return living[0].seen() if living else Observed(call.slot, Presence.ABSENT)

    def write(self, instance: InstanceId, service: str, text: str, stream: str = "stdout") -> None:
        """Let a service write a line to its log."""
        self.log.append((instance, LogLine(moment(now()), service, stream, text)))
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

    async def revive(self) -> tuple[InstanceId, ...]:
        return ()

    async def close(self) -> None:
        self._open = False

    async def _call(self, name: str, work: Callable[[], T]) -> T:
        if not self._open:
            raise RuntimeError("this connection is closed: open another one")
        if sometimes(REFUSED, name in ("ensure", "remove") and self.target.faults.strikes(f"provider.{name} invalid")):
            raise Fault(ErrorClass.INVALID, "refused", "The target will never do this.")
        return await self.target.line.call(f"provider.{name}", work)

    def _delivered(self, call: Call, then: Callable[[], T]) -> T:
        self.target.deliver(call)
        return then()


def _unreachable(why: str) -> Fault:
    return Fault(ErrorClass.DEPENDENCY, "target-unreachable", f"the memory target does not answer: {why}")


def _reading(call: Call) -> Call:
    return Call(call.instance, call.slot, call.key, call.fence)

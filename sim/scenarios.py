"""The scenarios that `python -m sim` knows by name."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import sim.promises
import sim.rarities
import sim.rules  # noqa: F401 - all three register what watches the system
from sim.hosts import EPOCH, Host
from sim.nemesis import Nemesis
from sim.trials import TRIALS, everything
from sim.twins.faults import SLOW
from sim.twins.provider import Bug, MemoryTarget
from sim.world import Scenario, World
from spectrum.core.errors import Fault, StaleFence
from spectrum.core.ids import InstanceId, make
from spectrum.core.product.resources import Base, Hook, PortRequest, Service, Volume
from spectrum.ports import Entropy
from spectrum.providers.protocol import Call, Presence, Provider, Resource, Strength

BASE = "instance/base"
PATIENCE = 3.0  # seconds that a caller waits for the target
ATTEMPTS = 3  # under one fence
TROUBLE = 60.0  # seconds with faults
SETTLED = 4 * SLOW[-1]  # seconds after which no call is still on its way


@dataclass(slots=True)
class Wanted:
    """What the contenders of the provider scenario agree on: the counter of fences and tokens, and what each slot shall hold."""

    instance: InstanceId
    resources: dict[str, Resource]
    counter: int = 0
    fence: int = 0
    keys: dict[str, str | None] = field(default_factory=dict)  # None: the slot shall be empty

    def claim(self) -> int:
        """A new fence: whoever had the instance has lost it."""
        self.counter += 1
        self.fence = self.counter
        return self.fence

    def intend(self, fence: int) -> int:
        """A token for one more call.

        Raises StaleFence for a claim that is over.
        """
        if fence != self.fence:
            raise StaleFence(f"fence {fence} is stale: {self.fence} was given out")
        self.counter += 1
        return self.counter

    def change(self, fence: int, entropy: Entropy) -> None:
        """Want something else from now on: now and then nothing at all, mostly one slot made anew or emptied."""
        if entropy.uniform() < 0.1:
            self.keys = dict.fromkeys(self.resources)
            return
        self.keys[BASE] = self.keys[BASE] or f"{BASE}.{fence}"
        slot = list(self.keys)[1 + int(entropy.uniform() * (len(self.keys) - 1))]
        self.keys[slot] = f"{slot}.{fence}" if entropy.uniform() < 0.7 else None

    def undo(self) -> None:
        """Want nothing but the base."""
        self.keys = {slot: key if slot == BASE else None for slot, key in self.keys.items()}


def provider(strength: Strength, bugs: frozenset[Bug] = frozenset()) -> Scenario:
    """Workers take an instance from each other and reconcile its slots on one target."""

    async def scenario(world: World) -> None:
        target = MemoryTarget(world.faults, strength, bugs=bugs)
        world.watch(target)
        wanted = _wanted(world)
        for number in (1, 2, 3):
            world.host(f"worker-{number}", lambda host: _contend(world, host, target.connect(), wanted))
        nemesis = Nemesis(world, targets=(target,))
        nemesis.begin()
        await asyncio.sleep(TROUBLE)
        nemesis.heal()
        await asyncio.sleep(SETTLED)
        for host in world.hosts:
            host.crash()
        await _reconcile(world, target.connect(), wanted, wanted.claim())
        there = {thing.call.slot: thing.call.key for thing in target.things.values()}
        desired = {slot: key for slot, key in wanted.keys.items() if key is not None}
        world.require("P3", there == desired, f"the target holds {there}, wanted is {desired}")

    return scenario


def _wanted(world: World) -> Wanted:
    web = Service("web", ("serve",), ports=(PortRequest("web", 80, True),))
    resources: dict[str, Resource] = {
        BASE: Base("acme", web.ports),
        "db/volume": Volume("dbdata"),
        "web/container": web,
        "migrate/hook": Hook("migrate", web, ("migrate",), timeout=60.0),
    }
    instance = InstanceId(make("ins", EPOCH + timedelta(seconds=world.loop.seed), bytes(10)))
    return Wanted(instance, resources, keys=dict.fromkeys(resources))


async def _contend(world: World, host: Host, target: Provider, wanted: Wanted) -> None:
    """Take the instance, change a slot's mind now and then, and make the target follow, until somebody else has taken it."""
    while True:
        await host.clock.sleep(1 + 4 * host.entropy.uniform())
        fence = wanted.claim()
        world.loop.tell(f"takes the instance under fence {fence}")
        wanted.change(fence, host.entropy)
        try:
            await _do_or_undo(world, target, wanted, fence)
        except StaleFence:
            world.loop.tell(f"lets go: fence {fence} is stale")
        except (Fault, TimeoutError) as error:
            world.loop.tell(f"gives up for now: {error!r}")


async def _do_or_undo(world: World, target: Provider, wanted: Wanted, fence: int) -> None:
    """Under one fence: what cannot be done is undone, while calls of the doing may still be on their way."""
    try:
        await _reconcile(world, target, wanted, fence)
    except (TimeoutError, Fault) as error:
        if isinstance(error, StaleFence):
            raise
        world.loop.tell(f"undoes all but the base under fence {fence}")
        wanted.undo()
        await _reconcile(world, target, wanted, fence)


async def _reconcile(world: World, target: Provider, wanted: Wanted, fence: int) -> None:
    for slot in wanted.resources:
        await _make_so(world, target, wanted, fence, slot)


async def _make_so(world: World, target: Provider, wanted: Wanted, fence: int, slot: str) -> None:
    """Observe and act until the slot is as wanted; each attempt has a token of its own: an earlier call may still land.

    Raises StaleFence, or what the last attempt met.
    """
    for attempt in range(ATTEMPTS):
        try:
            async with asyncio.timeout(PATIENCE):
                await _attempt(target, wanted, fence, slot)
            return
        except StaleFence:
            raise
        except (Fault, TimeoutError) as error:
            if attempt == ATTEMPTS - 1 or world.faults.strikes("cancel"):
                raise
            world.loop.tell(f"tries {slot} again under fence {fence} after {error!r}")


async def _attempt(target: Provider, wanted: Wanted, fence: int, slot: str) -> None:
    seen = await target.observe(Call(wanted.instance, slot, "", fence))
    key = wanted.keys[slot]
    call = Call(wanted.instance, slot, key or "", fence, wanted.intend(fence))
    if key is None:
        await target.remove(call)
    elif seen.key != key or seen.presence is not Presence.PRESENT:
        await target.ensure(call, wanted.resources[slot], frozenset({seen.key} - {key}))


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "everything": everything,
    **TRIALS,
    "provider-atomic": lambda: provider(Strength.ATOMIC),
    "provider-best-effort": lambda: provider(Strength.BEST_EFFORT),
}


def find(name: str) -> Scenario:
    """A scenario by its name, or as `module:function`.

    Raises LookupError with the names that there are.
    """
    if name in SCENARIOS:
        return SCENARIOS[name]()
    module, _, attribute = name.partition(":")
    if attribute:
        found: Scenario = getattr(importlib.import_module(module), attribute)
        return found
    raise LookupError(f"no scenario {name!r}: use one of {', '.join(SCENARIOS)}, or module:function")

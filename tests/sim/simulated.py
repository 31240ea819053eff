"""Runs the body of a test inside a simulated world."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from sim.run import Outcome, run
from sim.twins.provider import Act, MemoryTarget
from sim.twins.things import Thing
from sim.world import World
from spectrum.core.ids import InstanceId
from spectrum.core.product.resources import Base, PortRequest
from spectrum.providers.protocol import Call, Strength

Body = Callable[[World], Coroutine[Any, Any, None]]


def simulate(body: Body, seed: int = 1, rates: Mapping[str, float] | None = None) -> Outcome:
    """Run the body with faults at these rates and no others; a failed assertion in it fails the test."""
    return run(body, seed, rates=rates, others=0.0)


INSTANCE = InstanceId("ins_019b76da-a800-7000-8000-000000000001")
BASE = Base("acme", ports=(PortRequest("web", 80, True),))


def grounded(world: World, strength: Strength = Strength.ATOMIC, **options: Any) -> MemoryTarget:
    """A target on which the instance has its base."""
    target = MemoryTarget(world.faults, strength, **options)
    target.make(Call(INSTANCE, "instance/base", "base.1", 0), BASE)
    return target


def things(target: MemoryTarget) -> list[Thing]:
    """What there is beside the base."""
    return [thing for thing in target.things.values() if not isinstance(thing.resource, Base)]


def acts(target: MemoryTarget) -> list[Act]:
    """What was done, beside the base."""
    return [entry.act for entry in target.ledger if entry.act is not Act.ARRIVED and entry.call.key != "base.1"]

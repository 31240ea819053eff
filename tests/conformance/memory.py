"""The harness of the provider's twin, on the seeded loop: the suite runs on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sim.choices import Choices
from sim.loop import Mode, SimLoop
from sim.twins.faults import Faults
from sim.twins.provider import MemoryTarget
from sim.twins.things import Script
from spectrum.core.ids import InstanceId
from spectrum.core.product.resources import (
    Base,
    Facts,
    HealthCheck,
    Hook,
    Mount,
    PortRequest,
    RestartPolicy,
    Service,
    Volume,
)
from spectrum.providers.protocol import Strength
from tests.conformance.harness import Harness

SEED = 1
PORT = PortRequest("web", 80, public=True)
SCRIPTS = {
    "web": Script(healthy_after=0.5, says=("listening",), tail=("listening",)),
    "count": Script(runs_for=0.5, code=3, tail=("counted",)),
}


def virtual_time() -> SimLoop:
    """The loop of a test. Calls made at once arrive in the order in which they were made, which the suite relies on."""
    return SimLoop(Choices(SEED), Mode.FIFO)


def web(facts: Facts) -> Service:
    return Service(
        "web",
        ("serve",),
        mounts=(Mount("data", "/data"),),
        ports=(PORT,),
        restart=RestartPolicy.ALWAYS,
        health=HealthCheck(("true",), interval=0.2, retries=2),
    )


def count(facts: Facts) -> Hook:
    return Hook("count", web(facts), ("count",), timeout=30)


@asynccontextmanager
async def memory_harness(strength: Strength) -> AsyncIterator[Harness]:
    # On an empty tape every call takes equally long.
    target = MemoryTarget(Faults(Choices(SEED, {}), others=0.0), strength, scripts=dict(SCRIPTS))
    provider = target.connect()

    async def sicken(instance: InstanceId) -> None:
        target.living(instance, "web/container")[0].sick = True

    async def kill(instance: InstanceId) -> None:
        target.kill(target.living(instance, "web/container")[0])

    async def runs(instance: InstanceId) -> int:
        return len(target.living(instance, "data/volume")[0].data)

    async def residue(instance: InstanceId) -> list[str]:
        return [thing.call.slot for thing in target.things.values() if thing.call.instance == instance]

    base = Base("acme", ports=(PORT,), services=("web",))
    yield Harness(provider, base, Volume("data"), web, count, sicken, kill, runs, residue)
    await provider.close()

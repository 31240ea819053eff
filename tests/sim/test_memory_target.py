"""The provider's twin: what it promises beyond the conformance suite, and how its calls can end."""

from __future__ import annotations

import asyncio

import pytest

from sim.hosts import Host
from sim.twins.faults import Ending
from sim.twins.provider import Act, MemoryProvider
from sim.twins.things import Script
from sim.world import World
from spectrum.core.errors import ErrorClass, Fault, StaleFence
from spectrum.core.product.resources import HealthCheck, Hook, PortRequest, Service, Volume
from spectrum.providers.protocol import Call, Presence, Resource, SlotHealth, Strength
from tests.sim.simulated import INSTANCE, acts, grounded, simulate, things

WEB = Service("web", ("serve",), ports=(PortRequest("web", 80, True),))
WHOLE: dict[str, Resource] = {
    "volume": Volume("data"),
    "web": WEB,
    "migrate": Hook("migrate", WEB, ("m",), 60.0),
}


def call(fence: int, token: int = 0, slot: str = "web/container", key: str = "web.1") -> Call:
    return Call(INSTANCE, slot, key, fence, token)


async def gone_by(provider: MemoryProvider, seconds: float, fence: int = 1, token: int = 1) -> None:
    """An ensure whose caller gives up after some seconds."""
    with pytest.raises((TimeoutError, Fault)):
        async with asyncio.timeout(seconds):
            await provider.ensure(call(fence, token), WEB)


@pytest.mark.parametrize("strength", list(Strength))
def test_an_observation_delivers_its_fence_and_keeps_lower_ones_out(strength: Strength) -> None:
    async def body(world: World) -> None:
        provider = grounded(world, strength).connect()
        await provider.observe(call(5))

        for late in (provider.observe(call(4)), provider.ensure(call(4, 9), WEB), provider.remove(call(4, 9))):
            with pytest.raises(StaleFence):
                await late
        with pytest.raises(StaleFence):
            await provider.survey(INSTANCE, 4)

    assert simulate(body).violation is None


@pytest.mark.parametrize("strength", list(Strength))
def test_a_token_is_recorded_also_where_there_is_nothing_to_do(strength: Strength) -> None:
    async def body(world: World) -> None:
        target = grounded(world, strength)
        provider = target.connect()
        await provider.remove(call(1, 7))

        with pytest.raises(StaleFence):
            await provider.ensure(call(1, 6), WEB)
        assert not things(target)

    assert simulate(body).violation is None


@pytest.mark.parametrize("strength", list(Strength))
def test_another_key_is_removed_only_where_it_is_wanted_absent(strength: Strength) -> None:
    async def body(world: World) -> None:
        provider = grounded(world, strength).connect()
        await provider.ensure(call(1, 1, key="web.1"), WEB)

        with pytest.raises(Fault, match="slot-taken") as taken:
            await provider.ensure(call(1, 2, key="web.2"), WEB)
        assert taken.value.failure.kind is ErrorClass.CONFLICT
        seen = await provider.ensure(call(1, 3, key="web.2"), WEB, frozenset({"web.1"}))
        assert (seen.key, seen.token) == ("web.2", 3)

    assert simulate(body).violation is None


def test_a_service_becomes_healthy_after_a_while_or_never() -> None:
    async def body(world: World) -> None:
        target = grounded(world, scripts={"sick": Script(healthy_after=None, tail=("no database",))})
        provider = target.connect()
        check = HealthCheck(("true",), interval=1, retries=3, start_period=2)
        await provider.ensure(call(1, 1), Service("web", ("serve",), health=check))
        await provider.ensure(call(1, 2, "sick/container", "sick.1"), Service("sick", ("serve",), health=check))

        assert (await provider.observe(call(1))).health is SlotHealth.STARTING
        await asyncio.sleep(10)
        assert (await provider.observe(call(1))).health is SlotHealth.HEALTHY
        sick = await provider.observe(call(1, slot="sick/container"))
        assert (sick.health, sick.tail) == (SlotHealth.UNHEALTHY, ("no database",))

    assert simulate(body).violation is None


def test_a_hook_runs_once_for_each_key_and_keeps_its_exit() -> None:
    async def body(world: World) -> None:
        target = grounded(world, scripts={"migrate": Script(runs_for=5, code=3, tail=("bad",))})
        provider = target.connect()
        hook = Hook("migrate", WEB, ("migrate",), timeout=60)
        begun = await provider.ensure(call(1, 1, "migrate/hook", "m.1"), hook)
        assert begun.running
        assert begun.exit is None
        await asyncio.sleep(10)
        again = await provider.ensure(call(1, 2, "migrate/hook", "m.1"), hook)

        assert not again.running
        assert again.exit is not None
        assert (again.exit.code, again.exit.tail) == (3, ("bad",))
        assert acts(target) == [Act.MADE]

    assert simulate(body).violation is None


def test_a_service_that_has_ended_is_started_again_under_the_same_key() -> None:
    async def body(world: World) -> None:
        target = grounded(world)
        provider = target.connect()
        await provider.ensure(call(1, 1), WEB)
        target.kill(target.living(INSTANCE, "web/container")[0])
        assert not (await provider.observe(call(1))).running

        assert (await provider.ensure(call(1, 2), WEB)).running
        assert acts(target) == [Act.MADE, Act.ENDED, Act.STARTED]

    assert simulate(body).violation is None


def test_the_survey_and_the_inventory_see_everything_that_was_made() -> None:
    async def body(world: World) -> None:
        target = grounded(world)
        provider = target.connect()
        for token, (slot, resource) in enumerate(WHOLE.items(), 1):
            await provider.ensure(call(1, token, slot, f"{slot}.1"), resource)

        assert [seen.slot for seen in await provider.survey(INSTANCE, 1)] == sorted(["instance/base", *WHOLE])
        assert [item.slot for item in await provider.inventory()] == sorted(["instance/base", *WHOLE])
        base = await provider.observe(call(1, slot="instance/base"))
        assert base.facts is not None
        assert base.facts.addresses == {"web/80": f"127.0.0.1:{base.facts.ports['web/80']}"}

        target.lose(target.living(INSTANCE, "volume")[0])
        assert (await provider.observe(call(1, slot="volume"))).presence is Presence.ABSENT

    assert simulate(body).violation is None


def test_a_call_goes_on_when_its_caller_crashes() -> None:
    async def body(world: World) -> None:
        target = grounded(world)

        async def work(host: Host) -> None:
            await target.connect().ensure(call(1, 1), WEB)

        host = world.host("worker", work)
        await asyncio.sleep(0.0005)
        assert not things(target)
        host.crash()
        await asyncio.sleep(1)

        assert len(things(target)) == 1

    assert simulate(body).violation is None


@pytest.mark.parametrize(
    ("ending", "made"),
    [
        (Ending.REFUSED, 0),
        (Ending.ANSWER_LOST, 1),
        (Ending.LATE, 1),
        (Ending.HANG, 0),
    ],
)
def test_a_call_that_ends_badly_has_done_its_work_or_not(ending: Ending, made: int) -> None:
    async def body(world: World) -> None:
        target = grounded(world)
        await gone_by(target.connect(), 30)
        await asyncio.sleep(30)

        assert len(things(target)) == made

    fault = f"provider.ensure {ending.name.lower()}"
    for seed in range(5):
        assert simulate(body, seed, {fault: 1e9}).violation is None


def test_a_call_that_is_done_twice_makes_one_thing() -> None:
    async def body(world: World) -> None:
        target = grounded(world)
        await target.connect().ensure(call(1, 1), WEB)
        await asyncio.sleep(30)

        assert acts(target) == [Act.MADE]
        assert [entry.act for entry in target.ledger].count(Act.ARRIVED) == 2

    assert simulate(body, rates={"provider.ensure twice": 1e9}).violation is None


@pytest.mark.parametrize(("strength", "left"), [(Strength.ATOMIC, 0), (Strength.BEST_EFFORT, 1)])
def test_only_an_atomic_target_refuses_a_call_that_was_checked_before_the_next_holder_came(
    strength: Strength, left: int
) -> None:
    async def body(world: World) -> None:
        target = grounded(world, strength)
        await gone_by(target.connect(), 0.25)
        await target.connect().remove(call(2, 2))
        await asyncio.sleep(30)

        assert len(things(target)) == left

    for seed in range(5):
        assert simulate(body, seed, {"provider.ensure late": 1e9}).violation is None


def test_logs_come_oldest_first_and_follow_until_they_are_closed() -> None:
    async def body(world: World) -> None:
        target = grounded(world)
        provider = target.connect()
        for number in range(5):
            target.write(INSTANCE, "web", f"line {number}")
        read: list[str] = []

        async def follow() -> None:
            async for line in provider.logs(INSTANCE, "web", None, tail=2, follow=True):
                read.append(line.text)

        following = asyncio.create_task(follow())
        await asyncio.sleep(1)
        target.write(INSTANCE, "db", "not of the web")
        target.write(INSTANCE, "web", "line 5")
        await asyncio.sleep(1)
        following.cancel()

        assert read == ["line 3", "line 4", "line 5"]

    assert simulate(body).violation is None


def test_a_target_that_is_away_refuses_everything() -> None:
    async def body(world: World) -> None:
        target = grounded(world)
        target.line.up = False

        with pytest.raises(Fault, match="target-unreachable") as away:
            await target.connect().ensure(call(1, 1), WEB)
        assert away.value.failure.kind is ErrorClass.DEPENDENCY

    assert simulate(body).violation is None

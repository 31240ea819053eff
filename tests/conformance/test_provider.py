"""The provider contract, as a suite that every provider passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
import pytest

from spectrum.core.errors import ErrorClass, Fault, StaleFence
from spectrum.core.product.resources import File, RestartPolicy
from spectrum.providers.protocol import Observed, Presence, SlotHealth, digest_of
from tests.conformance.hand import DEADLINE, Hand
from tests.conformance.harness import HARNESSES, Harness

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=sorted(HARNESSES))
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    async with HARNESSES[request.param]() as made:
        yield made


@pytest.fixture
async def hand(harness: Harness) -> Hand:
    return Hand(harness)


async def test_a_slot_that_nobody_filled_is_absent(hand: Hand) -> None:
    assert await hand.look("web/container") == Observed("web/container", Presence.ABSENT)
    assert await hand.provider.survey(hand.instance, hand.fence) == ()


async def test_a_base_gives_stable_facts_for_every_service_and_port(hand: Hand) -> None:
    facts = await hand.base()

    assert set(facts.ports) == {"web/80"}
    assert set(facts.roots) == set(facts.hosts) == set(facts.binds) == {"web"}
    assert (await hand.look("instance/base")).facts == facts
    assert (await hand.ensure("instance/base", hand.harness.base)).facts == facts


async def test_what_is_ensured_is_observed_with_key_token_and_digest(hand: Hand) -> None:
    service = hand.harness.web(await hand.ground())
    call = hand.call("web/container", "web.container.1.1")

    await hand.provider.ensure(call, service)
    seen = await hand.look("web/container")

    assert (seen.presence, seen.key, seen.token) == (Presence.PRESENT, "web.container.1.1", call.token)
    assert seen.spec_digest
    assert seen.running


async def test_a_digest_tells_a_changed_secret_and_does_not_let_it_be_guessed(hand: Hand) -> None:
    service = hand.harness.web(await hand.ground())

    async def digest(pin: str, content: str) -> str:
        asked = replace(
            service, environment={**service.environment, "PIN": pin}, files=(File("/pin", content, secret=True),)
        )
        seen = await hand.ensure("web/container", asked)
        await hand.provider.remove(hand.call("web/container", "key.1"))
        assert seen.spec_digest != digest_of(asked, b"")
        return seen.spec_digest

    first = await digest("1234", "1234")
    assert await digest("1234", "1234") == first
    assert await digest("1235", "1234") != first
    assert await digest("1234", "1235") != first


async def test_ensuring_twice_is_ensuring_once(hand: Hand) -> None:
    service = await hand.web()
    first = await hand.look("web/container")

    again = await hand.ensure("web/container", service)

    assert (again.key, again.token, again.restarts) == (first.key, first.token, 0)
    assert len([item for item in await hand.provider.inventory() if item.slot == "web/container"]) == 1


async def test_two_calls_at_once_make_one_thing(hand: Hand) -> None:
    facts = await hand.ground()
    hook = hand.harness.count(facts)

    call = hand.call("web/count", "key.1")
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(hand.provider.ensure, call, hook)
    await hand.until("web/count", lambda seen: seen.exit is not None)

    assert await hand.harness.runs(hand.instance) == 1


async def test_removing_twice_is_removing_once(hand: Hand) -> None:
    await hand.web()

    for _ in range(2):
        removed = await hand.provider.remove(hand.call("web/container", "key.1"))

        assert removed.presence is Presence.ABSENT
    assert (await hand.look("web/container")).presence is Presence.ABSENT


async def test_a_lower_fence_is_refused_everywhere(hand: Hand) -> None:
    facts = await hand.ground()
    late = hand.fence - 1

    with pytest.raises(StaleFence):
        await hand.provider.observe(hand.call("web/container", fence=late))
    with pytest.raises(StaleFence):
        await hand.provider.survey(hand.instance, hand.fence - 1)
    with pytest.raises(StaleFence):
        await hand.provider.ensure(hand.call("web/container", "key.1", late, token=2**40), hand.harness.web(facts))
    with pytest.raises(StaleFence):
        await hand.provider.remove(hand.call("data/volume", "key.1", late, token=2**40))
    assert (await hand.look("data/volume")).presence is Presence.PRESENT
    assert (await hand.look("web/container")).presence is Presence.ABSENT


async def test_an_observation_delivers_its_fence(hand: Hand) -> None:
    facts = await hand.ground()

    await hand.provider.observe(hand.call("data/volume", fence=hand.fence + 5, token=0))

    with pytest.raises(StaleFence):
        await hand.ensure("web/container", hand.harness.web(facts))


async def test_a_survey_delivers_its_fence(hand: Hand) -> None:
    facts = await hand.ground()

    await hand.provider.survey(hand.instance, hand.fence + 5)

    with pytest.raises(StaleFence):
        await hand.ensure("web/container", hand.harness.web(facts))


async def test_a_late_call_with_a_lower_token_is_refused_in_its_slot_alone(hand: Hand) -> None:
    facts = await hand.ground()
    await hand.provider.remove(hand.call("web/container", "key.1", token=500))

    with pytest.raises(StaleFence):
        await hand.provider.ensure(hand.call("web/container", "key.1", token=499), hand.harness.web(facts))

    assert (await hand.look("web/container")).presence is Presence.ABSENT
    seen = await hand.provider.ensure(hand.call("web/count", "key.1", token=499), hand.harness.count(facts))
    assert seen.presence is Presence.PRESENT


async def test_a_token_is_recorded_where_nothing_is_to_be_done(hand: Hand) -> None:
    service = await hand.web()
    await hand.provider.ensure(hand.call("web/container", "key.1", token=700), service)

    with pytest.raises(StaleFence):
        await hand.provider.remove(hand.call("web/container", "key.1", token=699))

    assert (await hand.look("web/container")).presence is Presence.PRESENT


async def test_a_refused_conflict_still_records_its_token(hand: Hand) -> None:
    service = await hand.web()
    with pytest.raises(Fault):
        await hand.provider.ensure(hand.call("web/container", "key.2", token=700), service)

    with pytest.raises(StaleFence):
        await hand.provider.remove(hand.call("web/container", "key.1", token=699))


async def test_the_same_token_may_come_again(hand: Hand) -> None:
    facts = await hand.ground()
    call = hand.call("web/container", "key.1")

    first = await hand.provider.ensure(call, hand.harness.web(facts))
    second = await hand.provider.ensure(call, hand.harness.web(facts))

    assert (first.key, first.token) == (second.key, second.token)


async def test_another_key_in_the_slot_is_a_conflict_and_never_replaced(hand: Hand) -> None:
    service = await hand.web()

    with pytest.raises(Fault) as refused:
        await hand.ensure("web/container", service, key="key.2")

    assert refused.value.failure.kind is ErrorClass.CONFLICT
    assert (await hand.look("web/container")).key == "key.1"


async def test_a_key_that_is_wanted_absent_is_replaced(hand: Hand) -> None:
    service = await hand.web()

    seen = await hand.provider.ensure(hand.call("web/container", "key.2"), service, frozenset({"key.1"}))

    assert (seen.key, seen.running) == ("key.2", True)
    assert [item.key for item in await hand.provider.inventory() if item.slot == "web/container"] == ["key.2"]


async def test_a_hook_runs_once_per_key_and_its_end_stays_until_it_is_removed(hand: Hand) -> None:
    hook = hand.harness.count(await hand.ground())
    await hand.ensure("web/count", hook)
    ended = await hand.until("web/count", lambda seen: seen.exit is not None)

    await hand.ensure("web/count", hook)
    later = await hand.look("web/count")

    assert ended.exit is not None and later.exit is not None
    assert (later.exit.code, later.running) == (3, False)
    assert "counted" in later.exit.tail
    assert await hand.harness.runs(hand.instance) == 1

    await hand.provider.remove(hand.call("web/count", "key.1"))
    await hand.ensure("web/count", hook, key="key.2")
    await hand.until("web/count", lambda seen: seen.exit is not None)
    assert await hand.harness.runs(hand.instance) == 2


async def test_the_inventory_names_everything_with_its_label(hand: Hand) -> None:
    await hand.web()
    other = Hand(hand.harness)
    await other.base()

    items = {(item.instance, item.slot, item.key) for item in await hand.provider.inventory()}

    assert items == {
        (hand.instance, "instance/base", "key.1"),
        (hand.instance, "data/volume", "key.1"),
        (hand.instance, "web/container", "key.1"),
        (other.instance, "instance/base", "key.1"),
    }


async def test_a_survey_sees_every_slot_of_its_instance(hand: Hand) -> None:
    await hand.web()
    await Hand(hand.harness).base()

    seen = await hand.provider.survey(hand.instance, hand.fence)

    assert {slot.slot: slot.presence for slot in seen} == {
        "instance/base": Presence.PRESENT,
        "data/volume": Presence.PRESENT,
        "web/container": Presence.PRESENT,
    }


async def test_a_purge_leaves_only_the_fence_record_and_a_late_call_is_refused_and_leaves_nothing(hand: Hand) -> None:
    service = await hand.web()
    await hand.provider.remove(hand.call("instance/base", "key.1", fence=hand.fence + 1, token=900))
    assert await hand.harness.residue(hand.instance) == []

    with pytest.raises(StaleFence):
        await hand.ensure("instance/base", hand.harness.base)
    with pytest.raises(StaleFence):
        await hand.ensure("web/container", service)

    assert await hand.harness.residue(hand.instance) == []
    assert [item for item in await hand.provider.inventory() if item.instance == hand.instance] == []


async def test_removing_a_base_that_never_was_is_success_and_records(hand: Hand) -> None:
    removed = await hand.provider.remove(hand.call("instance/base", "key.1", token=900))

    assert removed.presence is Presence.ABSENT
    with pytest.raises(StaleFence):
        await hand.provider.ensure(hand.call("instance/base", "key.1", token=899), hand.harness.base)


async def test_data_outlives_the_container_and_not_its_volume(hand: Hand) -> None:
    facts = await hand.ground()
    hook = hand.harness.count(facts)
    for key in ("key.1", "key.2"):
        await hand.ensure("web/count", hook, key=key)
        await hand.until("web/count", lambda seen: seen.exit is not None)
        await hand.provider.remove(hand.call("web/count", key))
    await hand.ensure("web/container", hand.harness.web(facts))
    await hand.provider.remove(hand.call("web/container", "key.1"))
    assert await hand.harness.runs(hand.instance) == 2

    await hand.provider.remove(hand.call("data/volume", "key.1"))
    await hand.ensure("data/volume", hand.harness.volume, key="key.2")
    await hand.ensure("web/count", hook)
    await hand.until("web/count", lambda seen: seen.exit is not None)

    assert await hand.harness.runs(hand.instance) == 1


async def test_a_container_without_its_base_is_a_conflict(hand: Hand) -> None:
    facts = await hand.ground()
    service = hand.harness.web(facts)
    await hand.provider.remove(hand.call("instance/base", "key.1"))

    with pytest.raises(Fault) as refused:
        await hand.ensure("web/container", service)

    assert refused.value.failure.kind is ErrorClass.CONFLICT


async def test_health_goes_from_starting_to_healthy_to_unhealthy(hand: Hand) -> None:
    service = hand.harness.web(await hand.ground())
    assert (await hand.ensure("web/container", service)).health is SlotHealth.STARTING

    await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)
    await hand.harness.sicken(hand.instance)
    sick = await hand.until("web/container", lambda seen: seen.health is SlotHealth.UNHEALTHY)

    assert sick.running
    assert sick.tail


async def test_a_service_that_dies_is_started_again_and_counted(hand: Hand) -> None:
    await hand.web()
    await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)

    await hand.harness.kill(hand.instance)
    seen = await hand.until("web/container", lambda seen: seen.restarts == 1 and seen.health is SlotHealth.HEALTHY)

    assert (seen.running, seen.key) == (True, "key.1")


async def test_a_service_that_dies_and_is_not_to_be_started_again_has_ended_until_it_is_ensured(hand: Hand) -> None:
    service = replace(hand.harness.web(await hand.ground()), restart=RestartPolicy.NO)
    await hand.ensure("web/container", service)
    before = await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)

    await hand.harness.kill(hand.instance)
    seen = await hand.until("web/container", lambda seen: seen.ended)
    again = await hand.ensure("web/container", service)

    assert (before.ended, seen.running, seen.restarts) == (False, False, 0)
    assert (again.ended, again.running) == (False, True)


async def test_logs_come_in_order_and_can_be_followed(hand: Hand) -> None:
    await hand.web()
    with anyio.fail_after(DEADLINE):
        async for line in hand.provider.logs(hand.instance, "web", None, 100, follow=True):
            if line.text == "listening":
                break

    lines = [line async for line in hand.provider.logs(hand.instance, None, None, 100, follow=False)]

    assert [line.at for line in lines] == sorted(line.at for line in lines)
    assert [(line.service, line.stream) for line in lines if line.text == "listening"] == [("web", "stdout")]


async def test_logs_of_an_instance_that_is_not_there_are_empty(hand: Hand) -> None:
    assert [line async for line in hand.provider.logs(hand.instance, None, None, 10, follow=False)] == []

"""How a worker learns that there may be work, as a suite that every way passes: long polls, Kafka, and Kafka's twin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.conformance.ways import ELSEWHERE, HERE, Way, by_kafka, by_polls

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["poll", "kafka"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[Way]:
    if request.param == "poll":
        return by_polls(request.getfixturevalue("database"), tmp_path)
    return by_kafka(request.getfixturevalue("kafka"))


@pytest.fixture(params=["poll", "kafka"])
def opened_alone(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[Way]:
    """That nobody else uses."""
    if request.param == "poll":
        return by_polls(request.getfixturevalue("database"), tmp_path)
    broker = request.getfixturevalue("make_broker")()
    return by_kafka(broker.address, broker)


@pytest.fixture
async def way(opened: AbstractAsyncContextManager[Way]) -> AsyncIterator[Way]:
    async with opened as here:
        yield here


@pytest.fixture
async def fragile(opened_alone: AbstractAsyncContextManager[Way]) -> AsyncIterator[Way]:
    """A way that may be taken away."""
    async with opened_alone as here:
        yield here


async def test_who_listens_hears_one_hint_after_the_other(way: Way) -> None:
    listener = await way.listener()
    for _ in range(3):
        await listener.hears(way.tell)
        with listener.hints.dealing():
            pass


async def test_a_hint_that_comes_while_another_is_dealt_with_is_heard(way: Way) -> None:
    listener = await way.listener()
    await listener.hears(way.tell)
    with listener.hints.dealing():
        await listener.hears(way.tell)


async def test_a_thousand_hints_at_once_are_heard_and_those_after_them(way: Way) -> None:
    listener = await way.listener()

    def tell() -> None:
        for _ in range(1000):
            way.tell()

    await listener.hears(tell)
    await listener.hears(way.tell)


async def test_of_several_listeners_somebody_hears_every_hint(way: Way) -> None:
    await way.listener("wrk_a")
    await way.listener("wrk_b")
    for _ in range(10):
        await way.heard_by_any()


async def test_what_is_told_while_there_is_no_room_is_heard_once_there_is(way: Way) -> None:
    listener = await way.listener()
    listener.hints.hold(True)
    way.tell()
    await listener.hears(lambda: listener.hints.hold(False))


async def test_hints_for_another_pool_are_not_heard(way: Way) -> None:
    here, elsewhere = await way.listener("wrk_a", HERE), await way.listener("wrk_b", ELSEWHERE)
    await here.hears(way.tell)
    before = here.count
    for _ in range(5):
        await elsewhere.hears(lambda: way.tell(ELSEWHERE))
    assert here.count - before <= 1  # the first may come twice: nobody has claimed


async def test_who_comes_back_after_an_end_hears_what_is_told_then(way: Way) -> None:
    first = await way.listener()
    await first.hears(way.tell)
    await first.hints.close()
    again = await way.listener()
    await again.hears(way.tell)


async def test_a_way_that_is_away_is_noticed_and_goes_on_by_itself_once_it_is_back(fragile: Way) -> None:
    listener = await fragile.listener()
    await fragile.remove()
    await listener.until(lambda: not listener.hints.listening)
    fragile.tell()
    before = listener.count
    await fragile.restore()
    await listener.until(lambda: listener.hints.listening and listener.count > before)
    await listener.hears(fragile.tell)

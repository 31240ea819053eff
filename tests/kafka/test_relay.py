"""The relay between a real PostgreSQL and a real Kafka: each fact arrives, in its subject's order, whatever is killed or hangs."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from spectrum.control.leader import Leader
from spectrum.control.relay import CONSUMER, relay
from spectrum.db.pools import Role
from spectrum.ports import SystemClock, SystemEntropy, Tasks
from spectrum.transports.kafka import topics
from spectrum.transports.kafka.facts import Facts
from tests.db.telling import Log, written_log
from tests.kafka.broker import Broker
from tests.kafka.conftest import made_topic, settings_of
from tests.kafka.reader import in_order, reading
from tests.kafka.shared import MakeBroker
from tests.keeper import REPOSITORY, python_environment
from tests.postgres import Database
from tests.waiting import eventually, until

pytestmark = pytest.mark.anyio

KILLS = int(os.environ.get("SPECTRUM_TEST_RELAY_KILLS", "8"))
EVENTS_FOR_EACH_KILL = 600
TERM_SECONDS = 0.5
SUBJECTS = 50
CURSOR = f"SELECT position FROM cursors WHERE consumer = '{CONSUMER}'"

Lines = list[MutableMapping[str, Any]]


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Log]:
    async with written_log(database) as made:
        yield made


@asynccontextmanager
async def relayed(here: Log, address: str, topic: str, name: str = "a") -> AsyncIterator[Leader]:
    tasks, outlet = Tasks(), Facts(settings_of(address), topic)
    leader = relay(here.reader(name), outlet, SystemClock(), SystemEntropy(), tasks, period=0.05)
    tasks.spawn(leader.run(), name)
    try:
        yield leader
    finally:
        await tasks.close()
        await outlet.close()


async def dealt_with(here: Log, position: int) -> None:
    async with asyncio.timeout(60):
        await until(lambda: here.admin.fetchval(f"SELECT ({CURSOR}) = $1", position))


def said(lines: Lines, what: str) -> Callable[[], bool]:
    return lambda: any(what in f"{line['event']} {line.get('why', '')}" for line in lines)


async def test_what_is_in_the_log_and_what_comes_is_told_once_and_in_order(here: Log, kafka: str, topic: str) -> None:
    await here.grow(first=1, count=1500, subjects=SUBJECTS)
    async with relayed(here, kafka, topic):
        await dealt_with(here, 1500)
        await here.grow(first=1501, count=10, subjects=SUBJECTS)
        await dealt_with(here, 1510)

    with reading(kafka, topic) as reader:
        read = reader.count(1510)
    assert sorted(int(event.get_extension("position")) for event in read) == list(range(1, 1511))
    assert in_order(read)


async def test_a_relay_that_is_killed_again_and_again_brings_everything_in_order(
    here: Log, kafka: str, topic: str
) -> None:
    """SIGKILL at random moments. With SPECTRUM_TEST_RELAY_KILLS=200 and more it is a proof; here it is a check."""
    chance = random.Random(KILLS)
    come_to = [0]
    for number in range(KILLS):
        await here.grow(number * EVENTS_FOR_EACH_KILL + 1, EVENTS_FOR_EACH_KILL, SUBJECTS)
        async with _process(here, kafka, topic) as process:
            with suppress(TimeoutError):  # on a busy machine some are killed before they have done anything
                if chance.random() < 0.8:
                    await until(lambda: here.admin.fetchval(f"SELECT coalesce(({CURSOR}), 0) > $1", come_to[-1]))
                await asyncio.wait_for(process.wait(), chance.choice((0.01, 0.1, 1.0)) * chance.random())
        come_to.append(await here.admin.fetchval(CURSOR) or 0)

    count = KILLS * EVENTS_FOR_EACH_KILL
    in_the_middle = sum(position % EVENTS_FOR_EACH_KILL > 0 for position in come_to)
    async with relayed(here, kafka, topic):
        await dealt_with(here, count)
    with reading(kafka, topic) as reader:
        read = reader.distinct(count, seconds=120)

    assert in_the_middle > KILLS / 5, "most were killed while they had nothing to do"
    assert {int(event.get_extension("position")) for event in read} == set(range(1, count + 1))
    assert in_order(read)


@asynccontextmanager
async def _process(here: Log, kafka: str, topic: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A relay that is killed at the end of the block."""
    arguments = (here.database.urls[Role.SYSTEM], kafka, topic, str(TERM_SECONDS))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.kafka.relaying", *arguments), cwd=REPOSITORY, env=python_environment()
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def hang(broker: Broker) -> Callable[[], None]:
    broker.freeze()
    return broker.thaw


def die(broker: Broker) -> Callable[[], None]:
    broker.kill()
    return broker.start


@pytest.mark.parametrize("harm", [hang, die])
async def test_while_the_broker_hangs_or_is_down_facts_wait_in_the_log_and_then_arrive_in_order(
    here: Log, make_broker: MakeBroker, harm: Callable[[Broker], Callable[[], None]]
) -> None:
    broker = make_broker()
    topic = made_topic(broker.address)
    with capture_logs() as lines:
        async with relayed(here, broker.address, topic):
            await here.grow(first=1, count=100, subjects=SUBJECTS)
            await dealt_with(here, 100)
            mend = harm(broker)
            await here.grow(first=101, count=4000, subjects=SUBJECTS)  # accepted all the same
            await eventually(said(lines, "facts wait in the log"))
            assert await here.admin.fetchval(CURSOR) == 100
            await asyncio.to_thread(mend)
            await dealt_with(here, 4100)
            await eventually(said(lines, "facts go on"))
            await here.grow(first=4101, count=100, subjects=SUBJECTS)
            await dealt_with(here, 4200)

    with reading(broker.address, topic) as reader:
        read = reader.distinct(4200)
    assert in_order(read)


async def test_a_broker_that_lost_its_disk_gets_everything_that_it_had_not_acknowledged(
    here: Log, make_broker: MakeBroker
) -> None:
    broker = make_broker()
    topic = made_topic(broker.address)
    with capture_logs() as lines:
        async with relayed(here, broker.address, topic):
            await here.grow(first=1, count=100, subjects=SUBJECTS)
            await dealt_with(here, 100)
            broker.kill()
            broker.lose_disk()
            await here.grow(first=101, count=400, subjects=SUBJECTS)
            await asyncio.to_thread(broker.start)
            await eventually(said(lines, "spectrum topics create"))
            await asyncio.to_thread(topics.create, settings_of(broker.address), 3, name=topic)
            await dealt_with(here, 500)

    with reading(broker.address, topic) as reader:
        read = reader.distinct(400)
    first_times = list(dict.fromkeys(int(event.get_extension("position")) for event in read))
    assert sorted(first_times) == list(range(101, 501))
    for subject in range(SUBJECTS):
        own = [position for position in first_times if position % SUBJECTS == subject]
        assert own == sorted(own)


async def test_a_leader_that_was_overtaken_while_the_broker_hung_turns_no_subject_around(
    here: Log, make_broker: MakeBroker
) -> None:
    broker = make_broker()
    topic = made_topic(broker.address)
    async with relayed(here, broker.address, topic, "a"):
        await here.grow(first=1, count=50, subjects=SUBJECTS)
        await dealt_with(here, 50)
        broker.freeze()
        await here.grow(first=51, count=2000, subjects=SUBJECTS)
        await here.admin.execute("UPDATE leader_terms SET expires_at = '-infinity'")
        assert await here.reader("b").leading.take(), "a renewed in that moment"
        async with relayed(here, broker.address, topic, "b"):
            await here.grow(first=2051, count=500, subjects=SUBJECTS)
            broker.thaw()
            await dealt_with(here, 2550)

    with reading(broker.address, topic) as reader:
        read = reader.distinct(2550)
    assert in_order(read)


async def test_copies_that_take_over_from_each_other_all_the_time_tell_everything_in_order(
    here: Log, kafka: str, topic: str
) -> None:
    async with relayed(here, kafka, topic, "a"), relayed(here, kafka, topic, "b"):
        holders: set[str] = set()
        first = 1
        while len(holders) < 2 or first < 3000:
            await here.grow(first, 200, SUBJECTS)
            first += 200
            await here.admin.execute("UPDATE leader_terms SET expires_at = '-infinity'")
            await until(lambda: here.admin.fetchval("SELECT expires_at > '-infinity' FROM leader_terms"))
            holders.add(await here.admin.fetchval("SELECT holder FROM leader_terms WHERE name = 'relay'"))
        await dealt_with(here, first - 1)

    with reading(kafka, topic) as reader:
        read = reader.distinct(first - 1)
    assert in_order(read)


async def test_a_relay_that_ends_leaves_no_thread_behind_though_the_broker_hangs(
    here: Log, make_broker: MakeBroker
) -> None:
    broker = make_broker()
    topic = made_topic(broker.address)
    threads = psutil.Process().num_threads()
    async with relayed(here, broker.address, topic) as leader:
        await here.grow(first=1, count=10, subjects=1)
        await dealt_with(here, 10)
        broker.freeze()
        await here.grow(first=11, count=10, subjects=1)
        leader.nudge()
        await until(lambda: here.admin.fetchval("SELECT true"))

    await eventually(lambda: psutil.Process().num_threads() <= threads)
    broker.thaw()

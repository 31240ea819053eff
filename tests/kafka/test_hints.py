"""Hints by Kafka, beyond what every way of hints does: groups, offsets, missing topics, brokers that hang or lose their disk."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient, ResourceType
from structlog.testing import capture_logs

from spectrum.core.ids import InstanceId, JobId
from spectrum.core.jobs.commands import Hint
from spectrum.ports import Tasks
from spectrum.settings import Kafka
from spectrum.transports.kafka import topics
from spectrum.transports.kafka.hints import KEPT, HintSender, KafkaHints
from spectrum.transports.protocol import hints_topic
from tests.conformance.ways import HERE, PATIENCE, Listener, by_kafka
from tests.kafka.authority import ADMIN, WORKER, guarded
from tests.kafka.conftest import settings_of
from tests.kafka.shared import MakeBroker
from tests.keeper import REPOSITORY, python_environment
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def hint(pool: str) -> Hint:
    return Hint(JobId("job_1"), InstanceId("ins_1"), pool)


@asynccontextmanager
async def telling(kafka: Kafka, lost: list[int] | None = None) -> AsyncIterator[HintSender]:
    tasks = Tasks()
    sender = HintSender(kafka, tasks, lambda count: lost.append(count) if lost is not None else None)
    tasks.spawn(sender.run(), "hints")
    try:
        yield sender
    finally:
        await tasks.close()
        await sender.close()


def waiting(address: str, topic: str) -> int:
    """How many hints nobody has dealt with, by the offsets of the group."""
    admin, consumer = AdminClient({"bootstrap.servers": address}), _reader(address)
    (future,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(topic)]).values()
    committed = {each.partition: each.offset for each in future.result(20).topic_partitions}
    try:
        parts = consumer.list_topics(topic).topics[topic].partitions
        ends = {part: consumer.get_watermark_offsets(TopicPartition(topic, part))[1] for part in parts}
    finally:
        consumer.close()
    return sum(end - max(0, committed.get(part, 0)) for part, end in ends.items())


def _reader(address: str) -> Consumer:
    return Consumer({"bootstrap.servers": address, "group.id": "nobody"})


async def test_what_was_dealt_with_is_committed_at_once_and_what_was_not_is_not(kafka: str) -> None:
    async with by_kafka(kafka) as way:
        topic = hints_topic(way.pools[HERE])
        listener = await way.listener()
        await listener.hears(way.tell)
        assert await asyncio.to_thread(waiting, kafka, topic) == 1
        with pytest.raises(ConnectionError), listener.hints.dealing():
            raise ConnectionError("the claim was not answered")
        assert await asyncio.to_thread(waiting, kafka, topic) == 1
        with listener.hints.dealing():
            pass
        await eventually(lambda: waiting(kafka, topic) == 0)


async def test_a_worker_without_room_stays_in_its_group_and_takes_nothing(kafka: str) -> None:
    """Through a rebalance too, after which a client would go on by itself."""
    async with by_kafka(kafka) as way:
        full = await way.listener("wrk_full")
        full.hints.hold(True)
        other = await way.listener("wrk_other")
        await other.hints.close()
        before = full.count
        for _ in range(20):
            way.tell()
        await eventually(lambda: waiting(kafka, hints_topic(way.pools[HERE])) == 20)
        assert full.count == before
        await full.hears(lambda: full.hints.hold(False))


async def test_a_topic_that_is_missing_is_made_by_the_control_plane(kafka: str) -> None:
    pool = f"pol_{secrets.token_hex(6)}"
    listener = Listener(KafkaHints(settings_of(kafka), "wrk_a"))
    async with telling(settings_of(kafka)) as sender:
        listener.hints.listen(hints_topic(pool), listener.note)
        sender.tell([hint(pool)])
        await listener.until(lambda: listener.hints.listening)
        await listener.hears(lambda: sender.tell([hint(pool)]))
    (found,) = [each for each in topics.check(settings_of(kafka)) if each.name == hints_topic(pool)]
    assert (found.settings["retention.ms"], found.faults) == ("3600000", ())
    await listener.hints.close()


async def test_while_nobody_takes_hints_they_are_counted_as_lost_and_only_so_many_are_kept() -> None:
    lost: list[int] = []
    async with telling(settings_of("127.0.0.1:1"), lost) as sender:
        for _ in range(KEPT // 100 + 10):
            sender.tell([hint("pol_x")] * 100)
        assert sum(lost) == 1000
        await eventually(lambda: sum(lost) > 1000)


async def test_a_worker_that_was_killed_hears_again_under_its_name(kafka: str) -> None:
    """Nobody told its group of its end, so its place is kept until the session is over."""
    async with by_kafka(kafka) as way:
        command = (sys.executable, "-m", "tests.kafka.hearing", kafka, hints_topic(way.pools[HERE]), "wrk_a")
        process = await asyncio.create_subprocess_exec(
            *command, cwd=REPOSITORY, env=python_environment(), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                async for line in process.stdout:  # its log comes first
                    if line == b"hears\n":
                        break
        finally:
            process.kill()
            await process.wait()
        again = await way.listener("wrk_a")
        await again.hears(way.tell)


async def test_a_broker_that_hangs_is_noticed_and_keeps_no_worker_from_ending(make_broker: MakeBroker) -> None:
    broker = make_broker()
    async with by_kafka(broker.address, broker) as way:
        listener, other = await way.listener("wrk_a"), await way.listener("wrk_b")
        broker.freeze()
        await listener.until(lambda: not listener.hints.listening)
        await other.hints.close()
        broker.thaw()
        await listener.until(lambda: listener.hints.listening)
        await listener.hears(way.tell)


async def test_after_a_broker_lost_its_disk_hints_come_again_by_themselves(make_broker: MakeBroker) -> None:
    broker = make_broker()
    async with by_kafka(broker.address, broker) as way:
        listener = await way.listener()
        await listener.hears(way.tell)
        await way.remove()
        broker.lose_disk()
        await way.restore()
        await listener.until(lambda: not listener.hints.listening)
        way.tell()  # the control plane finds that the topic is missing
        await listener.until(lambda: listener.hints.listening)
        await listener.hears(way.tell)


async def test_a_worker_needs_to_read_its_topic_and_its_group_and_nothing_else(
    make_broker: MakeBroker, tmp_path: Path
) -> None:
    here = guarded(make_broker, tmp_path)
    admin, topic = here.settings(ADMIN), hints_topic("pol_x")
    listener = Listener(KafkaHints(here.settings(WORKER), "wrk_a"))
    async with telling(admin) as sender:
        with capture_logs() as lines:
            await asyncio.to_thread(topics.make_hints, admin, topic)
            listener.hints.listen(topic, listener.note)
            here.allow(topic, AclOperation.READ, user=WORKER)
            here.allow(topic, AclOperation.READ, user=WORKER, kind=ResourceType.GROUP)
            await listener.until(lambda: listener.hints.listening)
        assert [line["event"] for line in lines if "hints" in line["event"]][-1] == "hints come by Kafka"
        await listener.hears(lambda: sender.tell([hint("pol_x")]))
    await listener.hints.close()


async def test_a_control_plane_that_may_not_make_a_topic_says_what_to_run(
    make_broker: MakeBroker, tmp_path: Path
) -> None:
    here = guarded(make_broker, tmp_path)
    here.allow(hints_topic("pol_x"), AclOperation.WRITE, user=WORKER)
    with capture_logs() as lines:
        async with telling(here.settings(WORKER)) as sender:
            sender.tell([hint("pol_x")])
            await eventually(
                lambda: any("spectrum topics create --pool pol_x" in str(line.get("why")) for line in lines)
            )

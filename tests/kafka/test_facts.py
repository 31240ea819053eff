"""Facts in a real Kafka: what is acknowledged is there, in its order, and what is refused is told with a remedy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from spectrum.core.events.envelope import Event
from spectrum.transports.kafka.facts import Facts
from spectrum.transports.protocol import Delivered
from tests.db.rows import make_id
from tests.kafka.conftest import made_topic, settings_of
from tests.kafka.reader import in_order, reading
from tests.kafka.shared import MakeBroker
from tests.waiting import eventually, until

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def event(subject: str, sequence: int, **data: Any) -> Event:
    return Event(
        id=make_id("evt"),
        type="io.spectrum.instance.running.v1",
        source="/v1/organizations/org_1",
        subject=subject,
        time=NOW,
        sequence=sequence,
        position=sequence,
        data=data or {"job_id": make_id("job")},
        traceparent=TRACE,
    )


@asynccontextmanager
async def facts(address: str, topic: str, **rest: Any) -> AsyncIterator[Facts]:
    made = Facts(settings_of(address, **rest), topic)
    yield made
    await made.close()


def limit(address: str, topic: str, size: int) -> None:
    """Let records of the topic have at most so many bytes."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": address})
    admin.incremental_alter_configs([resource])[resource].result(20)


async def test_an_independent_client_reads_what_was_published(kafka: str, topic: str) -> None:
    said = event("ins_a", 1, words="grüße", health=None)
    async with facts(kafka, topic) as outlet:
        assert await outlet.publish([said]) == Delivered(1)

    with reading(kafka, topic) as reader:
        (read,) = reader.count(1)
    assert (read.get_specversion(), read.get_id(), read.get_type()) == ("1.0", said.id, said.type)
    assert (read.get_source(), read.get_subject(), read.get_time()) == (said.source, "ins_a", NOW)
    assert read.get_dataschema() == f"urn:spectrum:schema:{said.type}"
    assert read.get_datacontenttype() == "application/json"
    assert read.get_data() == {"words": "grüße", "health": None}
    extensions = {name: read.get_extension(name) for name in ("sequence", "position", "partitionkey", "traceparent")}
    assert extensions == {"sequence": "1", "position": "1", "partitionkey": "ins_a", "traceparent": TRACE}
    assert reader.keys == [b"ins_a"]


async def test_every_subject_keeps_its_order_over_batches(kafka: str, topic: str) -> None:
    subjects = [f"ins_{number}" for number in range(20)]
    async with facts(kafka, topic) as outlet:
        for first in (1, 51):
            batch = [event(subject, sequence) for sequence in range(first, first + 50) for subject in subjects]
            assert await outlet.publish(batch) == Delivered(1000)

    with reading(kafka, topic) as reader:
        read = reader.count(2000)
    assert len(read) == 2000
    assert in_order(read)


async def test_after_a_record_that_is_too_large_for_the_topic_nothing_goes_out_until_it_fits(kafka: str) -> None:
    topic = made_topic(kafka, partitions=1)
    limit(kafka, topic, 5_000)
    batch = [event("ins_a", sequence, words="x" * (20_000 if sequence == 3 else 2_000)) for sequence in range(1, 9)]
    async with facts(kafka, topic) as outlet:
        done = 0
        while (delivered := await outlet.publish(batch[done:][:1])).count:
            done += delivered.count
        told = await outlet.publish(batch[done:])
        assert (done, told.count) == (2, 0)
        assert "raise max.message.bytes of the topic" in told.refusal
        assert topic in told.refusal
        limit(kafka, topic, 1_000_000)
        await outlet.publish(batch[done:])

    with reading(kafka, topic) as reader:
        read = reader.distinct(8)
    assert in_order(read)


async def test_a_record_that_fits_nowhere_is_refused_before_it_is_sent(kafka: str, topic: str) -> None:
    async with facts(kafka, topic) as outlet:
        told = await outlet.publish([event("ins_a", 1, words="x" * 11_000_000)])
        assert told.count == 0
        assert "raise max.message.bytes" in told.refusal
        assert await outlet.publish([event("ins_a", 1)]) == Delivered(1)


async def test_without_the_topic_it_is_told_how_to_make_it(make_broker: MakeBroker) -> None:
    broker = make_broker()
    async with facts(broker.address, "absent") as outlet:
        told = await outlet.publish([event("ins_a", 1)])
    assert told.count == 0
    assert "spectrum topics create" in told.refusal


async def test_what_is_dropped_while_no_broker_answers_ends_at_once_and_says_what_is_wrong() -> None:
    async with facts("127.0.0.1:1", "any") as outlet:
        publishing = asyncio.ensure_future(outlet.publish([event("ins_a", 1)]))
        await eventually(lambda: "can be reached from here" in outlet.trouble)
        assert not publishing.done()
        outlet.drop()
        assert await publishing == Delivered(0)


async def test_a_password_file_that_is_not_there_is_named() -> None:
    async with facts("127.0.0.1:1", "any", kafka_username="me", kafka_password_file="/nowhere/password") as outlet:
        told = await outlet.publish([event("ins_a", 1)])
    assert told.count == 0
    assert "SPECTRUM_KAFKA_PASSWORD_FILE: /nowhere/password can't be read" in told.refusal


async def test_an_outlet_at_rest_hears_that_its_brokers_are_gone(make_broker: MakeBroker) -> None:
    broker = make_broker()
    topic = made_topic(broker.address)
    async with facts(broker.address, topic) as outlet:
        await outlet.publish([event("ins_a", 1)])
        broker.kill()

        async def heard() -> str:
            await outlet.rest()
            return outlet.trouble

        await until(heard)
        assert "check that the brokers in SPECTRUM_BUS run" in outlet.trouble

"""A Kafka with TLS, passwords and access control: who may gets in, and who may not is told what to change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation

from spectrum.settings import Kafka
from spectrum.transports.kafka import topics
from spectrum.transports.kafka.facts import Facts
from spectrum.transports.protocol import Delivered
from tests.kafka.authority import ADMIN, PASSWORDS, RELAY, Authority, Guarded, guarded
from tests.kafka.reader import in_order, reading
from tests.kafka.shared import MakeBroker
from tests.kafka.test_facts import event
from tests.waiting import until, wait_until

pytestmark = pytest.mark.anyio

TOPIC = "facts"


@pytest.fixture
def here(make_broker: MakeBroker, tmp_path: Path) -> Guarded:
    made = guarded(make_broker, tmp_path)
    topics.create(made.settings(ADMIN), 1, name=TOPIC)
    return made


@asynccontextmanager
async def facts(kafka: Kafka) -> AsyncIterator[Facts]:
    made = Facts(kafka, TOPIC)
    yield made
    await made.close()


async def test_a_user_with_the_two_rights_publishes_and_without_them_is_told_what_is_missing(here: Guarded) -> None:
    async with facts(here.settings(RELAY)) as outlet:
        told = await outlet.publish([event("ins_a", 1)])
        assert told.count == 0
        assert f"{TOPIC}: " in told.refusal
        assert "let SPECTRUM's user describe and write the topic" in told.refusal

        here.allow(TOPIC, AclOperation.DESCRIBE, AclOperation.WRITE)
        for sequence in (1, 2):
            await until(partial(_published, outlet, sequence))  # rights spread within a moment

    secrets = {"sasl_plain_username": ADMIN, "sasl_plain_password": PASSWORDS[ADMIN], "sasl_mechanism": "SCRAM-SHA-512"}
    way = {"security_protocol": "SASL_SSL", "ssl_cafile": str(here.authority.file)}
    with reading(here.address, TOPIC, **secrets, **way) as reader:
        assert in_order(reader.distinct(2))


async def _published(outlet: Facts, sequence: int) -> bool:
    return (await outlet.publish([event("ins_a", sequence)])).count == 1


async def test_a_wrong_password_is_told_and_its_correction_in_the_file_is_enough(here: Guarded) -> None:
    here.allow(TOPIC, AclOperation.DESCRIBE, AclOperation.WRITE)
    wrong = here.settings(RELAY, password="not-the-secret")
    async with facts(wrong) as outlet:
        told = await outlet.publish([event("ins_a", 1)])
        assert told.count == 0
        assert "the password in SPECTRUM_KAFKA_PASSWORD_FILE" in told.refusal
        assert "not-the-secret" not in told.refusal

        here.settings(RELAY)  # writes the right one into the same file
        assert await outlet.publish([event("ins_a", 1)]) == Delivered(1)


async def test_a_broker_whose_certificate_somebody_else_signed_gets_nothing(here: Guarded, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with facts(here.settings(RELAY, kafka_ca_file=Authority(elsewhere).file)) as outlet:
        told = await outlet.publish([event("ins_a", 1)])
    assert told.count == 0
    assert "SPECTRUM_KAFKA_CA_FILE holds who signed the brokers' certificates" in told.refusal


async def test_topics_are_checked_by_who_may_describe_them(here: Guarded) -> None:
    kafka = here.settings(RELAY)
    with pytest.raises(topics.TopicsError, match=r"facts: .*uthoriz"):
        await asyncio.to_thread(topics.check, kafka, TOPIC)
    here.allow(TOPIC, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
    (found,) = await asyncio.to_thread(wait_until, lambda: _checked(kafka))
    assert (found.partitions, found.faults) == (1, ())


def _checked(kafka: Kafka) -> tuple[topics.Topic, ...]:
    """Nothing before the rights have spread."""
    with suppress(topics.TopicsError):
        return topics.check(kafka, TOPIC)
    return ()

"""Topics: made as they have to be, and what of those that are there endangers a promise is told with what to do about it."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from spectrum.core.events.catalogue import FACTS
from spectrum.transports.kafka import topics
from spectrum.transports.kafka.topics import Topic, TopicsError, faults
from spectrum.transports.protocol import hints_topic
from tests.kafka.conftest import settings_of
from tests.kafka.shared import MakeBroker

GOOD = Topic("t", 12, 3, {"cleanup.policy": "delete", "min.insync.replicas": "2", "max.message.bytes": "1048588"})


def altered(**settings: str) -> Topic:
    changed = {name.replace("_", "."): value for name, value in settings.items()}
    return replace(GOOD, settings={**GOOD.settings, **changed})


def test_a_topic_as_it_has_to_be_has_no_fault() -> None:
    assert list(faults(GOOD, brokers=3)) == []
    assert list(faults(replace(GOOD, replicas=1, settings={}), brokers=1)) == []


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        (altered(cleanup_policy="compact,delete"), "it is compacted"),
        (altered(unclean_leader_election_enable="true"), "unclean election"),
        (altered(max_message_bytes="5000"), "max.message.bytes=1000000"),
        (altered(min_insync_replicas="1"), "min.insync.replicas=2"),
        (altered(min_insync_replicas="3"), "while one broker is away nothing is taken: .*min.insync.replicas=2"),
        (replace(GOOD, replicas=1), "kept by one broker alone"),
    ],
)
def test_what_endangers_a_promise_is_told(topic: Topic, why: str) -> None:
    (told,) = faults(topic, brokers=3)
    assert re.search(why, told)


def test_what_is_missing_is_made_once_and_what_is_there_stays_as_it_is(kafka: str) -> None:
    name, settings = f"test-{secrets.token_hex(6)}", settings_of(kafka)
    missing = topics.check(settings, name)[0]
    assert missing.faults == ("it is missing: spectrum topics create",)
    (planned,) = topics.create(settings, 5, name=name, dry_run=True)
    assert (planned.partitions, topics.check(settings, name)[0]) == (5, missing)

    (made,) = topics.create(settings, 5, name=name)
    (again,) = topics.create(settings, 7, name=name)

    assert (made.partitions, made.replicas, made.faults) == (5, 1, ())
    assert made.settings["retention.ms"] == str(7 * 86_400_000)
    assert again == made


def test_a_compacted_topic_is_told_of(kafka: str) -> None:
    name = f"test-{secrets.token_hex(6)}"
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, 1, 1, config={"cleanup.policy": "compact"})])[name].result(20)
    found = topics.check(settings_of(kafka), name)[0]
    assert [fault.partition(",")[0] for fault in found.faults] == ["it is compacted"]


def test_more_replicas_than_brokers_are_refused_in_words(kafka: str) -> None:
    with pytest.raises(TopicsError, match="eplication factor"):
        topics.create(settings_of(kafka), replicas=3, name=f"test-{secrets.token_hex(6)}")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def spectrum(*arguments: str, **variables: str) -> Ended:
    """The command, as an operator runs it beside the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPECTRUM_")}
    command = [sys.executable, "-m", "spectrum.cli", *arguments]
    done = subprocess.run(command, env=kept | variables, capture_output=True, text=True, timeout=60)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_the_command_makes_and_checks_the_topics_of_the_server_s_settings(make_broker: MakeBroker) -> None:
    bus = {"SPECTRUM_BUS": f"kafka://{make_broker().address}"}
    missing = spectrum("topics", "check", **bus)
    assert (missing.code, missing.err) == (1, f"error: {FACTS}: it is missing: spectrum topics create\n")

    made = spectrum("topics", "create", "--partitions", "6", **bus)
    assert (made.code, made.out.split()[4:7]) == (0, [FACTS, "6", "1"])

    checked = spectrum("topics", "check", "-o", "json", **bus)
    (item,) = json.loads(checked.out)["items"]
    assert (checked.code, item["name"], item["partitions"], item["faults"]) == (0, FACTS, 6, [])

    assert spectrum("topics", "create", "--pool", "pol_x", **bus).code == 0
    names = [item["name"] for item in json.loads(spectrum("topics", "check", "-o", "json", **bus).out)["items"]]
    assert names == [FACTS, hints_topic("pol_x")]


def test_without_kafka_the_command_says_which_variable_names_it() -> None:
    ended = spectrum("topics", "check")
    assert ended.code == 2
    assert "SPECTRUM_BUS names no Kafka" in ended.err
    assert "next: export SPECTRUM_BUS=kafka://HOST:9092" in ended.err


def test_a_kafka_that_does_not_answer_is_told_with_a_remedy() -> None:
    ended = spectrum("topics", "check", SPECTRUM_BUS="kafka://127.0.0.1:1")
    assert ended.code == 1
    assert "check that the brokers in SPECTRUM_BUS run" in ended.err


def test_a_relay_without_kafka_does_not_start() -> None:
    ended = spectrum("server", "--parts", "relay")
    assert ended.code == 1
    assert "A relay needs Kafka: set SPECTRUM_BUS, such as to kafka://HOST:9092." in ended.err


def test_a_server_whose_settings_for_kafka_do_not_go_together_does_not_start() -> None:
    ended = spectrum(
        "server", SPECTRUM_BUS="kafka", SPECTRUM_KAFKA_USERNAME="me", SPECTRUM_DATABASE_URL="postgresql://x/y"
    )
    assert ended.code == 1
    assert "SPECTRUM_KAFKA_USERNAME and SPECTRUM_KAFKA_PASSWORD_FILE go together" in ended.err

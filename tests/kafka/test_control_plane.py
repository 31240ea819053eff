"""A control plane with Kafka: what the API lists as events is what an independent client reads there."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from spectrum.core.events.catalogue import FACTS
from spectrum.transports.kafka import topics
from tests.api.support import Api, serving
from tests.api.vendor import vendor
from tests.contracts import faults
from tests.kafka.conftest import settings_of
from tests.kafka.reader import in_order, reading
from tests.kafka.shared import MakeBroker
from tests.postgres import Database
from tests.waiting import until

pytestmark = pytest.mark.anyio

PARTS = frozenset({"sequencer", "relay"})


async def lag(api: Api, name: str) -> float | None:
    """A gauge of the relay's, as a scrape reads it."""
    scraped = (await api.http.get("/metrics")).text
    samples = (sample for family in text_string_to_metric_families(scraped) for sample in family.samples)
    return next((s.value for s in samples if s.name == name and s.labels == {"consumer": "relay"}), None)


async def test_every_event_of_an_instance_s_life_arrives_as_the_api_lists_it(
    database: Database, tmp_path: Path, make_broker: MakeBroker
) -> None:
    broker = make_broker()
    await asyncio.to_thread(topics.create, settings_of(broker.address))
    async with serving(database, tmp_path, bus=f"kafka://{broker.address}") as api, vendor(api) as here:
        api.plane.begin(PARTS)
        await here.running("acme")
        await here.admin.post("/v1/instances/acme:stop")
        await here.hands.work()
        await until(lambda: _all_have_a_position(api))
        listed = (await here.admin.get("/v1/events?limit=100")).body["items"]
        await until(lambda: _relayed(api, len(listed)))
        assert (await lag(api, "spectrum_log_lag_events"), await lag(api, "spectrum_log_lag_seconds")) == (0, 0)

    with reading(broker.address, FACTS) as reader:
        read = {event.get_id(): event for event in reader.distinct(len(listed))}
    assert {event["type"] for event in listed} >= {
        "io.spectrum.instance.created.v1",
        "io.spectrum.instance.stopped.v1",
        "io.spectrum.job.succeeded.v1",
        "io.spectrum.release.published.v1",
    }
    assert in_order(reader.events)
    for event in listed:
        record = read.pop(event["id"])
        attributes = {name: record.get_extension(name) for name in ("sequence", "partitionkey", "traceparent")}
        assert (record.get_type(), record.get_source(), record.get_data()) == (
            event["type"],
            event["source"],
            event["data"],
        )
        assert record.get_time() == datetime.fromisoformat(event["time"])
        assert attributes == {name: event[name] for name in attributes}
        assert list(faults(record.get_type(), event["data"])) == []
    assert not read


async def _all_have_a_position(api: Api) -> bool:
    (row,) = await api.as_admin("SELECT count(*) > 0 AND count(*) = count(position) AS all FROM events")
    return bool(row["all"])


async def _relayed(api: Api, count: int) -> bool:
    rows = await api.as_admin("SELECT position FROM cursors WHERE consumer = 'relay'")
    return [row["position"] for row in rows] == [count]


async def test_while_kafka_is_away_changes_are_accepted_and_the_lag_grows(database: Database, tmp_path: Path) -> None:
    async with serving(database, tmp_path, bus="kafka://127.0.0.1:1") as api, vendor(api) as here:
        api.plane.begin(PARTS)
        await here.running("acme")
        await until(lambda: _all_have_a_position(api))
        (count,) = await api.as_admin("SELECT count(*) AS events FROM events")
        await until(lambda: _relayed(api, 0))
        assert await lag(api, "spectrum_log_lag_events") == count["events"]
        assert (await lag(api, "spectrum_log_lag_seconds") or 0) > 0


async def test_without_kafka_there_is_no_relay_and_nothing_lags(database: Database, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as api, vendor(api) as here:
        api.plane.begin(PARTS)
        await here.running("acme")
        await until(lambda: _all_have_a_position(api))
        assert await lag(api, "spectrum_log_lag_events") is None
        assert await api.as_admin("SELECT FROM cursors WHERE consumer = 'relay'") == []

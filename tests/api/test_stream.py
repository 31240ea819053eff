"""Following events: each once and in order, wherever a client joins, however slow it is, and through whichever copy."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spectrum.api import stream
from spectrum.control import tail
from tests.api.streaming import DEADLINE, TYPE, Client, Scene, sequences, streaming
from tests.postgres import Database
from tests.waiting import eventually, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def scene(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    async with streaming(database, tmp_path) as made:
        yield made


@pytest.fixture
async def pair(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    async with streaming(database, tmp_path, copies=2) as made:
        yield made


async def test_without_a_place_to_begin_from_only_what_is_new_is_told(scene: Scene) -> None:
    await scene.tell(3)
    await scene.placed(3)
    client = await scene.following()
    assert client.header("content-type").startswith("text/event-stream")
    await scene.tell(2)
    events = await client.events(2)
    assert [(event["position"], event["sequence"]) for event in events] == [(4, "4"), (5, "5")]
    assert (events[0]["specversion"], events[0]["subject"], client.position) == ("1.0", "ins_a", 5)


async def test_after_a_position_all_that_follows_is_told_and_the_last_event_id_goes_before_it(scene: Scene) -> None:
    await scene.tell(250)
    await scene.placed(250)
    assert await (await scene.following("?after=0")).positions(250) == list(range(1, 251))
    client = await scene.following("?after=0", last_event_id="248")
    await scene.tell(1)
    assert await client.positions(3) == [249, 250, 251]


async def test_events_of_another_organization_are_never_seen(scene: Scene) -> None:
    acme, other = await scene.following("?after=0"), await scene.following("?after=0", name="other")
    for _ in range(20):
        await scene.tell(2, "acme", "ins_a")
        await scene.tell(3, "other", "ins_b")
    late = await scene.following("?after=0", name="other")
    assert {event["subject"] for event in await acme.events(40)} == {"ins_a"}
    for client in (other, late):
        assert sequences([e for e in await client.events(60) if e["subject"] == "ins_b"]) == list(range(1, 61))


async def test_only_what_was_asked_for_is_told(scene: Scene) -> None:
    kinds = {
        path: await scene.following(path) for path in ("?subject=ins_b", "?type=io.spectrum.worker", f"?type={TYPE}")
    }
    both = await scene.following(f"?type=io.spectrum.job&type={TYPE}&subject=ins_b")
    await scene.tell(5, subject="ins_a")
    await scene.tell(1, subject="ins_b")
    await scene.tell(1, subject="ins_a", type_=TYPE)
    await scene.tell(1, subject="ins_b", type_=TYPE)
    found = {path: [(e["subject"], e["type"]) for e in await client.events(2)] for path, client in kinds.items()}
    assert found == {
        "?subject=ins_b": [("ins_b", "test.told.v1"), ("ins_b", TYPE)],
        "?type=io.spectrum.worker": [("ins_a", TYPE), ("ins_b", TYPE)],
        f"?type={TYPE}": [("ins_a", TYPE), ("ins_b", TYPE)],
    }
    assert [(e["subject"], e["type"]) for e in await both.events(1)] == [("ins_b", TYPE)]
    again = await scene.following(f"?after=0&type={TYPE}&subject=ins_b")
    assert [event["position"] for event in await again.events(1)] == [8]


async def test_what_can_not_be_followed_is_a_problem_that_says_why(scene: Scene) -> None:
    await scene.tell(2)
    await scene.placed(2)
    for path, words in {
        "?after=3": "the log ends with position 2",
        "?type=io.spectrum.jobs": "no event 'io.spectrum.jobs'",
        "?instance=acme&subject=ins_a": "`subject`",
        "?typ=x": "Did you mean type?",
        "?after=-1": "after",
    }.items():
        status, slug, detail = await scene.refused(path)
        assert (status, slug, words in detail) == (422, "invalid-parameter", True), detail
    assert (await scene.refused(last_event_id="abc"))[:2] == (422, "invalid-parameter")
    assert (await scene.refused(last_event_id="3"))[:2] == (422, "invalid-parameter")
    assert (await scene.refused("?instance=acme"))[:2] == (404, "not-found")
    assert (await scene.refused(authorization="Bearer spk_nobody"))[:2] == (401, "unauthenticated")
    assert len(scene.copies[0].plane.tail) == 0


async def test_a_heartbeat_moves_the_place_to_go_on_from_past_what_was_not_asked_for(scene: Scene) -> None:
    scene.limit(heartbeat=0.05)
    client = await scene.following("?subject=ins_b")
    await scene.tell(7, subject="ins_a")
    async with asyncio.timeout(DEADLINE):
        while await client.heartbeat() < 7:
            pass


async def test_there_is_room_for_so_many_clients_and_for_fewer_of_one_organization(scene: Scene) -> None:
    scene.limit(clients=4)
    first, second = await scene.following(), await scene.following()
    assert (await scene.refused())[:2] == (429, "rate-limited")
    await scene.following(name="other")
    await scene.following(name="other")
    refused = await scene.asked(name="third")
    problem = await refused.problem()
    assert (refused.status, problem["type"], refused.header("retry-after")) == (
        503,
        "urn:spectrum:problem:unavailable",
        "5",
    )
    assert "SPECTRUM_STREAM_LIMIT" in problem["detail"]
    first.close()
    await eventually(lambda: len(scene.copies[0].plane.tail) == 3)
    await scene.following(name="third")
    second.close()


async def test_a_client_that_does_not_read_is_cut_off_and_goes_on_where_it_was(scene: Scene, logs: io.StringIO) -> None:
    plane, patience = scene.copies[0].plane, scene.copies[0].plane.tail.limits.stall
    client = await scene.following("?after=0")
    client.stall()
    scene.limit(stall=0.5)
    for _ in range(15):
        await scene.tell(100, size=2000)
    await eventually(lambda: len(plane.tail) == 0)
    assert plane.metrics.registry.get_sample_value("spectrum_streams_dropped_total") == 1
    assert plane.metrics.registry.get_sample_value("spectrum_stream_clients") == 0

    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    seen = []
    with pytest.raises(ConnectionError):
        async for message in client.messages():
            seen += [message.id] if message.data else []
    assert len(seen) < 400  # of 3 MB only what is in the buffers on the way arrived
    scene.limit(stall=patience)
    again = await scene.following("?after=0", last_event_id=str(client.position))
    assert seen + await again.positions(1500 - len(seen)) == list(range(1, 1501))
    assert "Exception" not in logs.getvalue()
    assert "without completing" not in logs.getvalue()


async def test_who_reads_is_told_beside_one_who_does_not(scene: Scene) -> None:
    client, healthy = await scene.following("?after=0"), await scene.following("?after=0")
    client.stall()
    listening = asyncio.ensure_future(healthy.positions(1500))
    for _ in range(15):
        await scene.tell(100, size=2000)
    assert await listening == list(range(1, 1501))
    assert len(scene.copies[0].plane.tail) == 2


async def test_who_is_slower_than_the_log_grows_misses_nothing_and_holds_up_nobody(scene: Scene) -> None:
    scene.limit(window=20_000, chunk=4_000)
    clients = [await scene.following("?after=0") for _ in range(3)]
    quick = asyncio.ensure_future(clients[0].positions(1200))
    for _ in range(40):
        await scene.tell(30, size=500)
    assert await quick == list(range(1, 1201))
    for client in clients[1:]:
        assert await client.positions(1200) == list(range(1, 1201))
    assert scene.copies[0].plane.tail.size <= 20_000


async def test_the_window_is_kept_once_for_all_and_only_while_somebody_follows(scene: Scene) -> None:
    clients = [await scene.following() for _ in range(5)]
    await scene.tell(10, size=1000)
    for client in clients:
        await client.events(10)
    assert 10 * 1000 < scene.copies[0].plane.tail.size < 2 * 10 * 1000
    for client in clients:
        client.close()
    await eventually(lambda: len(scene.copies[0].plane.tail) == 0)
    await scene.tell(1)
    await eventually(lambda: scene.copies[0].plane.tail.size == 0)


async def test_what_one_copy_places_is_told_by_the_other_at_once(pair: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "RECHECK_SECONDS", 2 * DEADLINE)
    client = await pair.following(copy=1)
    for number in range(1, 6):
        await pair.tell(1)
        assert await client.positions(1) == [number]


async def test_a_wake_up_that_is_lost_costs_a_moment(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "RECHECK_SECONDS", 0.05)
    client = await scene.following()
    monkeypatch.setattr(scene.copies[0].plane.tail, "nudge", lambda: None)
    await scene.tell(2)
    assert await client.positions(2) == [1, 2]


async def test_a_copy_that_stops_ends_its_streams_in_good_order_and_the_other_goes_on(pair: Scene) -> None:
    client = await pair.following("?after=0", copy=1)
    await pair.tell(5)
    assert await client.positions(5) == [1, 2, 3, 4, 5]
    stopping = asyncio.ensure_future(pair.copies[1].stop())
    assert [message for message in await client.rest() if message.data] == []
    await stopping
    await pair.tell(1)
    again = await pair.following(copy=0, last_event_id=str(client.position))
    assert await again.positions(1) == [6]


async def test_a_client_that_does_not_read_does_not_hold_up_the_end(pair: Scene) -> None:
    client = await pair.following(copy=1)
    client.stall()
    for _ in range(10):
        await pair.tell(50, size=2000)
    follower = next(iter(pair.copies[1].plane.tail._following))
    await eventually(lambda: follower._patience is not None)
    async with asyncio.timeout(DEADLINE):
        await pair.copies[1].stop()


async def test_a_copy_that_is_being_stopped_takes_nobody_in(scene: Scene) -> None:
    scene.copies[0].plane.let_go()
    status, slug, detail = await scene.refused()
    assert (status, slug, "being stopped" in detail) == (503, "unavailable", True)


async def test_a_token_that_is_revoked_meanwhile_ends_its_stream(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHECK_SECONDS", 0.0)
    client = await scene.following()
    await scene.tell(1)
    await client.events(1)
    await scene.admin.execute("UPDATE tokens SET revoked_at = now()")
    await scene.tell(1)
    assert len([message for message in await client.rest() if message.data]) <= 1
    assert (await scene.refused())[:2] == (401, "unauthenticated")


async def test_who_reconnects_again_and_again_under_load_misses_nothing_and_sees_nothing_twice(pair: Scene) -> None:
    pair.limit(window=30_000)
    await pair.organization("acme")
    count = 1500

    async def restless(seed: int) -> list[int]:
        seen: list[int] = []
        position, turn = "0", seed
        while len(seen) < count:
            turn += 1
            client: Client = await pair.following("?after=0", copy=turn % 2, last_event_id=position)
            seen += await client.positions(min(37 + 11 * (turn % 7), count - len(seen)))
            position = str(client.position)
            client.close()
        return seen

    clients = [asyncio.ensure_future(restless(seed)) for seed in range(6)]
    for _ in range(count // 20):
        await pair.tell(10, size=300)
        await pair.tell(10, subject="ins_b")
    for client in clients:
        assert await client == list(range(1, count + 1))


async def test_where_the_log_was_set_back_everybody_is_let_go_and_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "RECHECK_SECONDS", 0.05)
    client = await scene.following()
    await scene.tell(9)
    await client.events(9)
    await scene.admin.execute("DELETE FROM events WHERE position > 3")
    await scene.admin.execute("UPDATE cursors SET position = 3 WHERE consumer = 'sequencer'")
    await client.rest()
    assert "the log ends with position 3" in (await scene.refused(last_event_id=str(client.position)))[2]


async def test_while_the_database_is_away_streams_stay_and_nothing_is_missed(scene: Scene) -> None:
    scene.limit(heartbeat=0.1)
    client = await scene.following()
    await scene.tell(1)
    await client.events(1)
    await scene.admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await client.heartbeat()
    late = asyncio.ensure_future(scene.following("?after=0"))
    await scene.tell(3)
    assert await client.positions(3) == [2, 3, 4]
    assert await (await late).positions(4) == [1, 2, 3, 4]


async def test_metrics_say_who_follows_and_how_far_the_last_one_is_behind(scene: Scene) -> None:
    sample = scene.copies[0].plane.metrics.registry.get_sample_value
    client = await scene.following()
    client.stall()
    healthy = await scene.following()
    assert (sample("spectrum_stream_clients"), sample("spectrum_stream_lag_events")) == (2, 0)
    for _ in range(6):
        await scene.tell(100, size=2000)
    await healthy.events(600)
    await until(lambda: _lags(scene))
    assert 1_200_000 < (sample("spectrum_stream_window_bytes") or 0) < 2_000_000


async def _lags(scene: Scene) -> bool:
    return bool(scene.copies[0].plane.metrics.registry.get_sample_value("spectrum_stream_lag_events"))

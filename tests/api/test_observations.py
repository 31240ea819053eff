"""Observations: a worker looks at what runs, each instance about once an interval, and the instance's row tells it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from spectrum.core.errors import Problem
from spectrum.core.ids import InstanceId, PoolId
from spectrum.transports.protocol import Look, Room, Sighting
from tests.api.watching import CLOCK, DEADLINE, LONG_AGO, Scene
from tests.db.rows import insert_row, make_id

pytestmark = pytest.mark.anyio
LOOKS = Room(looks=32)
LONG_SECONDS = 3600.0  # no test waits for the end of it


async def polled(stage: Scene) -> Look:
    """A look at the instance that a worker of its own was asked for, and does not do."""
    link, incarnation = await stage.link()
    answer = await link.poll(incarnation, DEADLINE, LOOKS)
    assert not answer.work
    (look,) = answer.requests.looks
    return look


async def test_a_worker_sees_by_itself_how_an_instance_is(stage: Scene) -> None:
    await stage.worker()
    well = await stage.until(lambda row: row["health"] == "healthy")
    (web,) = json.loads(well["services"])
    assert (web["name"], web["state"], web["health"]) == ("web", "running", "healthy")
    assert web["ports"]
    await stage.hand.harness.sicken(stage.hand.instance)
    ill = await stage.until(lambda row: row["health"] == "unhealthy")
    assert ill["observed_at"] > well["observed_at"]
    assert ill["health_since"] is not None
    facts = await stage.admin.fetch(
        "SELECT type, data ->> 'health' AS health FROM events WHERE subject = $1", ill["id"]
    )
    assert [tuple(fact) for fact in facts][:2] == [
        ("io.spectrum.instance.health_changed.v1", "healthy"),
        ("io.spectrum.instance.health_changed.v1", "unhealthy"),
    ]


async def test_a_condition_of_the_target_is_shown_with_its_beginning(stage: Scene) -> None:
    await stage.worker()
    first = await stage.until(lambda row: row["health"] == "healthy")
    later = await stage.until(lambda row: row["observed_at"] > first["observed_at"])
    assert later["conditions"] == first["conditions"]


async def test_each_due_look_goes_to_one_of_all_who_ask_at_once(stage: Scene) -> None:
    others = [f"ins_00000000-0000-7000-8000-{number:012d}" for number in range(1, 20)]
    for number, other in enumerate(others):
        await insert_row(stage.admin, "instances", {**stage.rows["instances"], "id": other, "name": f"i{number}"})
        await insert_row(stage.admin, "watches", {**stage.rows["watches"], "instance_id": other})
    moment, pool = CLOCK.now(), PoolId(stage.rows["pools"]["id"])
    handed = await asyncio.gather(*(stage.copies[n % 2].plane.watch.due(pool, 7, moment) for n in range(6)))
    seen = [look.instance_id for looks in handed for look in looks]
    assert sorted(seen) == sorted([*others, stage.hand.instance])
    assert max(len(looks) for looks in handed) <= 7
    assert await stage.copies[0].plane.watch.due(pool, 32, moment) == ()


async def test_a_poll_with_no_room_is_asked_for_no_look(stage: Scene) -> None:
    link, incarnation = await stage.link()
    answer = await link.poll(incarnation, 0.0, Room())
    assert not answer.requests


async def test_what_has_a_job_or_is_deleted_is_not_looked_at_and_what_is_purged_never_again(stage: Scene) -> None:
    watch, pool = stage.copies[0].plane.watch, PoolId(stage.rows["pools"]["id"])
    job = {**stage.rows["jobs"], "subject_id": stage.hand.instance, "instance_id": stage.hand.instance}
    await insert_row(stage.admin, "jobs", job)
    for active, lifecycle in ((job["id"], "running"), (None, "failed")):
        await stage.admin.execute("UPDATE instances SET active_job_id = $1, lifecycle = $2", active, lifecycle)
        await stage.admin.execute("UPDATE watches SET look_at = $1", LONG_AGO)
        assert await watch.due(pool, 32, CLOCK.now()) == ()
        assert await stage.admin.fetchval("SELECT count(*) FROM watches") == 1
    await stage.admin.execute("UPDATE instances SET lifecycle = 'purged', purged_at = now()")
    await stage.admin.execute("UPDATE watches SET look_at = $1", LONG_AGO)
    assert await watch.due(pool, 32, CLOCK.now()) == ()
    assert await stage.admin.fetchval("SELECT count(*) FROM watches") == 0


async def test_a_stopped_instance_is_looked_at_seldom(stage: Scene) -> None:
    watch, pool, now = stage.copies[0].plane.watch, PoolId(stage.rows["pools"]["id"]), CLOCK.now()
    looked = []
    for seen_at in (now - timedelta(seconds=watch.interval * 2), now - timedelta(seconds=watch.interval * 31)):
        await stage.admin.execute("UPDATE instances SET lifecycle = 'stopped', observed_at = $1", seen_at)
        await stage.admin.execute("UPDATE watches SET look_at = $1", LONG_AGO)
        looked.append(len(await watch.due(pool, 32, now)))
    assert looked == [0, 1]


async def test_a_sighting_under_an_older_fence_changes_nothing(stage: Scene) -> None:
    look = await polled(stage)
    before = await stage.instance()
    await stage.admin.execute("UPDATE instances SET counter = counter + 1")
    link, incarnation = await stage.link()
    await link.observed(incarnation, [Sighting(look, True, ({"name": "web", "state": "gone", "health": "unknown"},))])
    after = await stage.instance()
    assert after == {**before, "counter": before["counter"] + 1}


async def test_a_sighting_that_arrives_twice_counts_once(stage: Scene) -> None:
    look = await polled(stage)
    await stage.admin.execute("UPDATE instances SET health = 'healthy'")
    link, incarnation = await stage.link()
    ill = Sighting(look, True, ({"name": "web", "state": "exited", "health": "unhealthy", "restarts": 1, "ports": {}},))
    await link.observed(incarnation, [ill])
    await link.observed(incarnation, [ill])
    after = await stage.instance()
    assert (after["health"], after["health_seen"], after["health_streak"]) == ("healthy", "unhealthy", 1)


async def test_a_sighting_of_an_instance_of_another_pool_is_refused_and_written_down(stage: Scene) -> None:
    look = await polled(stage)
    link, incarnation = await stage.link()
    stranger = replace(look, instance_id=InstanceId(make_id("ins")))
    with pytest.raises(Problem, match="forbidden"):
        await link.observed(incarnation, [Sighting(look, False), Sighting(stranger, False)])
    assert (await stage.instance())["health_seen"] is None
    assert await stage.admin.fetchval("SELECT count(*) FROM audit WHERE action = 'call.refused'") == 1


async def test_an_ended_incarnation_is_neither_asked_nor_heard(stage: Scene) -> None:
    look = await polled(stage)
    link, incarnation = await stage.link()
    await link.start("the next one")
    for call in (link.poll(incarnation, 0.0, LOOKS), link.observed(incarnation, [Sighting(look, False)])):
        with pytest.raises(Problem) as refused:
            await call
        assert refused.value.extra == {"lease": "ended"}


# ---- what comes with a poll besides


async def test_a_hint_that_came_between_a_claim_and_the_next_poll_is_not_lost(stage: Scene) -> None:
    link, incarnation = await stage.link()
    plane, pool = stage.copies[0].plane, PoolId(stage.rows["pools"]["id"])
    assert await link.claim(incarnation, 1, 8, False) == []
    plane.wakeups.wake(pool)

    answer = await link.poll(incarnation, LONG_SECONDS, Room())

    assert answer.work
    assert not (await link.poll(incarnation, 0.0, Room())).work  # it is told once


async def test_a_poll_that_waits_for_requests_alone_neither_tells_a_hint_nor_uses_it_up(stage: Scene) -> None:
    link, incarnation = await stage.link()
    plane, pool = stage.copies[0].plane, PoolId(stage.rows["pools"]["id"])
    assert await link.claim(incarnation, 1, 8, False) == []
    plane.wakeups.wake(pool)

    assert not (await link.poll(incarnation, 0.0, Room(), work=False)).work
    assert (await link.poll(incarnation, LONG_SECONDS, Room())).work


async def test_a_worker_that_gets_one_hint_after_the_other_is_told_of_looks_all_the_same(stage: Scene) -> None:
    link, incarnation = await stage.link()
    plane, pool = stage.copies[0].plane, PoolId(stage.rows["pools"]["id"])
    assert await link.claim(incarnation, 1, 8, False) == []
    assert not (await link.poll(incarnation, 0.0, Room())).requests.looks  # looked for just now, and there was no room
    told: tuple[Look, ...] = ()
    while not told:
        plane.wakeups.wake(pool)
        answer = await link.poll(incarnation, LONG_SECONDS, LOOKS)
        assert answer.work
        told = answer.requests.looks

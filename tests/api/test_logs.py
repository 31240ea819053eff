"""Logs: read by a worker on the target, sent in pieces to any copy of the control plane, passed on by the one that was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from spectrum.control import streams
from spectrum.core.errors import Problem
from spectrum.transports.poll import PollLink
from spectrum.transports.protocol import Chunk, Incarnation, LogsAsked, Onward, Room
from tests.api.support import Answered, Caller
from tests.api.watching import DEADLINE, Scene
from tests.waiting import eventually, until

pytestmark = pytest.mark.anyio
PATH = "/v1/instances/acme/logs"
LINE = {"at": "2026-11-23T10:00:00Z", "service": "web", "stream": "stdout", "text": "hello"}


@asynccontextmanager
async def following(
    caller: Caller, path: str = PATH + "?follow=true", **headers: str
) -> AsyncIterator[httpx2.Response]:
    sent = {"authorization": f"Bearer {caller.token}", **headers}
    async with asyncio.timeout(DEADLINE), caller.http.stream("GET", path, headers=sent) as response:
        assert response.status_code == 200
        yield response


async def lines_of(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.strip():
            yield json.loads(line)


@asynccontextmanager
async def reader(stage: Scene, path: str = PATH) -> AsyncIterator[asyncio.Task[httpx2.Response]]:
    """Somebody who reads logs meanwhile, to their end."""
    caller = await stage.caller()
    headers = {"authorization": f"Bearer {caller.token}"}
    task = stage.tasks.spawn(caller.http.get(path, headers=headers, timeout=DEADLINE), "reader")
    try:
        yield task
    finally:
        task.cancel()


async def taken(link: PollLink, incarnation: Incarnation) -> LogsAsked:
    """The request for logs, by a worker that reads nothing by itself."""
    async with asyncio.timeout(DEADLINE):
        while not (found := (await link.poll(incarnation, 5.0, Room(streams=1))).requests.logs):
            pass
    return found[0]


async def test_lines_come_through_another_copy_than_the_worker_speaks_to(stage: Scene) -> None:
    await stage.worker(copy=0)
    async with following(await stage.caller(copy=1), PATH) as response:
        assert response.headers["content-type"].startswith("application/x-ndjson")
        lines = [line async for line in lines_of(response)]
    assert ("web", "stdout", "listening") in {(line["service"], line["stream"], line["text"]) for line in lines}


async def test_new_lines_are_followed_and_closing_ends_the_workers_reading(stage: Scene) -> None:
    worker = await stage.worker(copy=0)
    async with following(await stage.caller(copy=1)) as response:
        lines = lines_of(response)
        while (await anext(lines))["text"] != "listening":
            pass
        await stage.hand.harness.kill(stage.hand.instance)
        while (await anext(lines))["text"] != "listening":
            pass
        assert worker.errands.streaming == 1
    await eventually(lambda: worker.errands.streaming == 0)


async def test_server_sent_events_are_given_to_who_asks_for_them(stage: Scene) -> None:
    await stage.worker()
    async with following(await stage.caller(), PATH, accept="text/event-stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        data = [line async for line in response.aiter_lines() if line.startswith("data: ")]
    assert json.loads(data[-1].removeprefix("data: "))["service"] == "web"


async def test_without_a_worker_or_a_target_that_is_up_the_answer_is_a_problem_at_once(stage: Scene) -> None:
    acme = await stage.caller()
    nobody = await acme.get(PATH)
    assert (nobody.status, nobody.slug, "worker" in nobody.body["detail"]) == (503, "unavailable", True)
    await stage.link()
    await stage.admin.execute("UPDATE targets SET down_since = now()")
    down = await acme.get(PATH)
    assert (down.slug, "target local" in down.body["detail"]) == ("unavailable", True)
    assert await stage.admin.fetchval("SELECT count(*) FROM worker_requests") == 0


@pytest.mark.parametrize("limit", ["TAKE_SECONDS", "SILENCE_SECONDS"])
async def test_a_worker_that_does_not_take_it_up_or_falls_silent_is_not_waited_for(
    stage: Scene, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(streams, limit, 0.3)
    link, incarnation = await stage.link()
    async with reader(stage) as reading:
        if limit == "SILENCE_SECONDS":
            await taken(link, incarnation)
        answer = await reading
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:spectrum:problem:unavailable")


async def test_what_breaks_off_a_stream_is_its_last_line(stage: Scene) -> None:
    link, incarnation = await stage.link()
    async with reader(stage) as reading:
        asked = await taken(link, incarnation)
        await link.stream(incarnation, Chunk(asked.id, 1, (LINE,)))
        await link.stream(incarnation, Chunk(asked.id, 2, ends=True, problem="the disk is gone"))
        lines = [json.loads(line) for line in (await reading).text.splitlines() if line]
    assert lines[0] == LINE
    assert (lines[-1]["stream"], lines[-1]["text"]) == ("spectrum", "the disk is gone")


async def test_a_request_that_can_not_be_done_at_all_is_a_problem(stage: Scene) -> None:
    link, incarnation = await stage.link()
    async with reader(stage) as reading:
        asked = await taken(link, incarnation)
        await link.stream(incarnation, Chunk(asked.id, 1, ends=True, problem="the disk is gone"))
        answer = await reading
    assert (answer.status_code, answer.json()["detail"]) == (503, "the disk is gone")


async def test_a_piece_that_is_sent_again_is_read_once_and_none_is_skipped(stage: Scene) -> None:
    link, incarnation = await stage.link()
    async with reader(stage) as reading:
        asked = await taken(link, incarnation)
        first = Chunk(asked.id, 1, (LINE,))
        assert await link.stream(incarnation, first) == Onward(taken=True, wanted=True)
        assert await link.stream(incarnation, first) == Onward(taken=True, wanted=True)
        with pytest.raises(Problem, match="malformed"):
            await link.stream(incarnation, Chunk(asked.id, 3))
        last = Chunk(asked.id, 2, (LINE,), ends=True)
        assert await link.stream(incarnation, last) == Onward(taken=True, wanted=False)
        assert (await reading).text.count("hello") == 2
    assert await link.stream(incarnation, last) == Onward(taken=True, wanted=False)


async def test_a_stream_that_nobody_reads_takes_so_much_and_no_more(
    stage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FULL_SECONDS", 0.1)
    monkeypatch.setattr(streams, "UNREAD_BYTES", 1000)
    monkeypatch.setattr(streams, "SILENCE_SECONDS", 0.3)
    link, incarnation = await stage.link()
    async with reader(stage) as reading:
        asked = await taken(link, incarnation)
        await reading
        await until(lambda: _closed(stage))
        await stage.admin.execute("UPDATE worker_requests SET closed_at = NULL")
        large = ({**LINE, "text": "x" * 900},)
        assert await link.stream(incarnation, Chunk(asked.id, 1, large)) == Onward(taken=True, wanted=True)
        assert await link.stream(incarnation, Chunk(asked.id, 2, large)) == Onward(taken=False, wanted=True)
        await stage.admin.execute("DELETE FROM request_chunks")
        assert await link.stream(incarnation, Chunk(asked.id, 2, large)) == Onward(taken=True, wanted=True)


async def _closed(stage: Scene) -> bool:
    return bool(await stage.admin.fetchval("SELECT bool_and(closed_at IS NOT NULL) FROM worker_requests"))


async def test_a_request_belongs_to_the_worker_that_took_it_up(stage: Scene) -> None:
    link, incarnation = await stage.link()
    stranger, elsewhere = await stage.link()
    async with reader(stage):
        asked = await taken(link, incarnation)
        assert (await stranger.poll(elsewhere, 0.0, Room(streams=5))).requests.logs == ()
        with pytest.raises(Problem, match="forbidden"):
            await stranger.stream(elsewhere, Chunk(asked.id, 1, (LINE,)))
    assert await stage.admin.fetchval("SELECT count(*) FROM audit WHERE action = 'call.refused'") == 1


async def test_logs_are_for_the_instances_own_organization_and_its_own_services(stage: Scene) -> None:
    await stage.worker()
    assert (await (await stage.caller("other")).get(PATH)).slug == "not-found"
    unknown: Answered = await (await stage.caller()).get(PATH + "?service=nonsense")
    assert (unknown.slug, "there are web" in unknown.body["detail"]) == ("invalid-parameter", True)


async def test_a_request_that_is_over_leaves_nothing_behind(stage: Scene) -> None:
    link, incarnation = await stage.link()
    async with reader(stage) as reading:
        asked = await taken(link, incarnation)
        await link.stream(incarnation, Chunk(asked.id, 1, (LINE,), ends=True))
        await reading
    await stage.admin.execute("UPDATE worker_requests SET expires_at = now() - interval '1 second'")
    stage.tasks.spawn(stage.copies[0].plane.streams.run(), "forgetting")
    await until(lambda: _nothing_left(stage))


async def _nothing_left(stage: Scene) -> bool:
    return not await stage.admin.fetchval("SELECT count(*) FROM worker_requests")

"""When PostgreSQL is away: callers are told to come back, and what they sent twice is done once."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.support import Api

pytestmark = pytest.mark.anyio


async def test_a_connection_that_is_cut_is_told_as_unavailable_and_the_next_request_works(api: Api) -> None:
    acme = await api.administrator()
    await api.as_admin(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'test'"
    )
    statuses = [(await acme.get("/v1/tokens")).status for _ in range(12)]
    assert set(statuses) <= {200, 503}
    assert statuses[-1] == 200


async def test_a_lock_that_is_not_given_is_told_as_unavailable(api: Api) -> None:
    acme = await api.administrator()
    await acme.post("/v1/targets", {"name": "local", "url": "process:///srv"})
    async with api.holding("LOCK TABLE targets IN ACCESS EXCLUSIVE MODE"):
        refused = await acme.get("/v1/targets")
    assert (refused.status, refused.slug) == (503, "unavailable")
    assert refused.headers["retry-after"] == "1"
    assert (await acme.get("/v1/targets")).status == 200


async def test_requests_under_one_key_that_race_are_done_once(api: Api) -> None:
    acme = await api.administrator()
    wish = {"name": "local", "url": "process:///srv"}
    answers = await asyncio.gather(*(acme.post("/v1/targets", wish, key="same") for _ in range(6)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["id"] for answer in answers}) == 1
    assert len(await api.as_admin("SELECT 1 FROM audit WHERE action = 'target.add'")) == 1

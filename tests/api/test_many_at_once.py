"""One key, one job, the same answer (P9), with many callers at once on two copies of the control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.api.support import Answered, Caller, serving
from tests.api.vendor import vendor
from tests.postgres import Database

pytestmark = pytest.mark.anyio

CREATES, TIMES, AT_ONCE = 200, 20, 8
BUSY = 503


async def insist(caller: Caller, key: str, body: Mapping[str, Any]) -> Answered:
    """As the client library does: a copy that has no connection to spare is asked again, under the same key."""
    answered = await caller.post("/v1/instances", body, key=key)
    return await insist(caller, key, body) if answered.status == BUSY else answered


async def test_two_hundred_creates_that_are_each_sent_twenty_times_at_once_make_two_hundred_instances(
    database: Database, tmp_path: Path
) -> None:
    async with serving(database, tmp_path) as one, serving(database, tmp_path) as other, vendor(one) as made:
        callers = [made.admin, other.caller(made.admin.token)]
        gate = asyncio.Semaphore(AT_ONCE)

        async def create(number: int) -> None:
            body = {"name": f"i{number}", "product": "hello"}
            async with gate:
                sent = (insist(callers[time % 2], f"key-{number}", body) for time in range(TIMES))
                answers = await asyncio.gather(*sent)
            assert {answer.status for answer in answers} == {202}
            assert all(answer.body == answers[0].body for answer in answers)
            assert len({answer.headers["location"] for answer in answers}) == 1
            assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1

        await asyncio.gather(*(create(number) for number in range(CREATES)))

        for table in ("instances", "jobs"):
            assert await made.count(table) == CREATES
        submitted = await one.as_admin(
            "SELECT count(*) AS n, count(DISTINCT subject) AS subjects FROM audit WHERE action LIKE 'job.submit%'"
        )
        assert (submitted[0]["n"], submitted[0]["subjects"]) == (CREATES, CREATES)

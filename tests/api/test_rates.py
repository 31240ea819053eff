"""Requests above a token's rate are refused, however many copies of the control plane there are."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from spectrum.api.app import create_app
from spectrum.control.rates import BLOCK_SECONDS
from tests.api.support import PUBLIC_URL, Api, Caller, control_plane
from tests.postgres import Database

pytestmark = pytest.mark.anyio

RATE = 0.1
BURST = 3


async def copies(stack: AsyncExitStack, database: Database, folder: Path, number: int, rate: float) -> list[Caller]:
    """The same administrator at each of some copies."""
    made = []
    for _ in range(number):
        plane = await control_plane(stack, database, folder, rate_limit=rate)
        transport = httpx2.ASGITransport(create_app(plane.services(), PUBLIC_URL), raise_app_exceptions=False)
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url=PUBLIC_URL))
        made.append(Caller(http))
    return made


async def test_copies_share_what_a_token_may_ask_for(api: Api, database: Database, tmp_path: Path) -> None:
    token = (await api.administrator()).token
    clock = api.services.clock
    async with AsyncExitStack() as stack:
        callers = await copies(stack, database, tmp_path, 3, RATE)
        began = clock.monotonic()
        for caller in callers:
            caller.token = token
        answers = await asyncio.gather(*(caller.get("/v1/tokens") for caller in callers for _ in range(20)))
        earned = (clock.monotonic() - began) * RATE
    statuses = Counter(answer.status for answer in answers)
    assert BURST <= statuses[200] <= BURST + earned + 0.01
    assert statuses[200] + statuses[429] == 60
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.slug == "rate-limited"
    assert 1 <= int(refused.headers["retry-after"]) == refused.body["retry_after"] <= 1 / RATE
    assert f"more than {RATE} requests a second" in refused.body["detail"]


async def test_one_tokens_flood_is_not_anothers(api: Api, database: Database, tmp_path: Path) -> None:
    loud, quiet = await api.administrator(), await api.administrator()
    async with AsyncExitStack() as stack:
        (caller,) = await copies(stack, database, tmp_path, 1, RATE)
        caller.token = loud.token
        while (await caller.get("/v1/tokens")).status == 200:
            pass
        caller.token = quiet.token
        assert (await caller.get("/v1/tokens")).status == 200


async def test_requests_are_paid_for_in_blocks_and_not_one_by_one(api: Api, database: Database, tmp_path: Path) -> None:
    token = (await api.administrator()).token
    async with AsyncExitStack() as stack:
        (caller,) = await copies(stack, database, tmp_path, 1, 20.0)
        caller.token = token
        spent = []
        for _ in range(int(20.0 * BLOCK_SECONDS) + 1):
            assert (await caller.get("/v1/tokens")).status == 200
            (row,) = await api.as_admin("SELECT spent_until FROM tokens WHERE spent_until IS NOT NULL")
            spent.append(row["spent_until"])
    assert len(set(spent)) == 2
    assert len(set(spent[:-1])) == 1


async def test_a_refused_request_does_nothing_and_its_key_stays_free(
    api: Api, database: Database, tmp_path: Path
) -> None:
    token = (await api.administrator()).token
    async with AsyncExitStack() as stack:
        first, fresh = await copies(stack, database, tmp_path, 2, RATE)
        first.token = fresh.token = token
        while (await first.get("/v1/tokens")).status == 200:
            pass
        refused = await first.post("/v1/targets", {"name": "local", "url": "process:///srv"}, key="k")
        assert refused.status == 429
        await api.as_admin("UPDATE tokens SET spent_until = NULL")
        made = await fresh.post("/v1/targets", {"name": "local", "url": "process:///srv"}, key="k")
        assert (made.status, "idempotency-replayed" in made.headers) == (201, False)


async def test_without_a_limit_nothing_is_counted(api: Api, database: Database, tmp_path: Path) -> None:
    token = (await api.administrator()).token
    async with AsyncExitStack() as stack:
        (caller,) = await copies(stack, database, tmp_path, 1, 0)
        caller.token = token
        for _ in range(20):
            assert (await caller.get("/v1/tokens")).status == 200
    assert await api.as_admin("SELECT FROM tokens WHERE spent_until IS NOT NULL") == []

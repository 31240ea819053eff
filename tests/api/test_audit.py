"""Who did what, over HTTP: listed, narrowed down, sealed, exported; read by whom it belongs to alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from spectrum.core.audit import head_line, header_line, line, verify
from spectrum.core.signing import genuine
from tests.api.support import Api, Caller, serving
from tests.postgres import Database
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(database: Database, tmp_path: Path) -> AsyncIterator[Api]:
    """With a sealer that runs."""
    async with serving(database, tmp_path) as made:
        made.plane.begin(frozenset({"sealer"}))
        yield made


async def all_sealed(api: Api) -> None:
    async def asked() -> bool:
        (row,) = await api.as_admin("SELECT count(*) = count(seal_number) AS sealed FROM audit")
        return bool(row["sealed"])

    await until(asked)


async def paged(caller: Caller, query: str) -> list[dict[str, Any]]:
    """All items, two at a time."""
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await caller.get(f"/v1/audit?limit=2&{query}{cursor}")).body
        assert len(page["items"]) <= 2
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = f"&cursor={page['next_cursor']}"


async def busy(api: Api, name: str = "acme", changes: int = 5) -> Caller:
    caller = await api.administrator(name)
    for number in range(changes):
        made = await caller.post("/v1/tokens", {"name": f"ci-{number}"})
        await caller.delete(f"/v1/tokens/{made.body['id']}")
    return caller


async def test_what_the_api_shows_is_an_export_that_verifies(api: Api) -> None:
    acme, other = await busy(api), await busy(api, "other", 1)
    await all_sealed(api)
    for caller, count in ((acme, 11), (other, 3)):
        head = (await caller.get("/v1/audit/head")).body
        lines = [line(record) for record in await paged(caller, "after=0")]
        export = [header_line(head["organization_id"], 0), *lines, head_line(head)]
        assert verify(export, genuine, api.keys.signing_key_id).last == count


async def test_a_chain_goes_on_with_the_changes_that_follow(api: Api) -> None:
    acme = await busy(api, changes=1)
    await all_sealed(api)
    before = await paged(acme, "after=0")
    await busy(api, changes=1)
    await all_sealed(api)
    assert (await paged(acme, "after=0"))[: len(before)] == before
    later = await paged(acme, f"after={len(before)}")
    assert [record["seal"]["number"] for record in later] == [4, 5, 6]
    assert later[0]["seal"]["previous"] == before[-1]["seal"]["hash"]


async def test_records_are_narrowed_down(api: Api) -> None:
    acme = await busy(api)
    await all_sealed(api)
    everything = await paged(acme, "")
    assert [record["action"] for record in everything] == ["token.create", *["token.create", "token.revoke"] * 5]
    for query in ("", "after=0&"):
        created = await paged(acme, f"{query}action=token.create")
        assert created == [record for record in everything if record["action"] == "token.create"]
        assert [r["actor"] for r in await paged(acme, f"{query}actor=system:bootstrap")] == ["system:bootstrap"]
        assert len(await paged(acme, f"{query}subject={created[1]['subject']}")) == 2
        assert await paged(acme, f"{query}actor=nobody") == []


@pytest.mark.parametrize("query", ["after=-1", "after=x", "after=99999999999999999999", "sort=id"])
async def test_a_bad_filter_is_refused_or_finds_nothing(api: Api, query: str) -> None:
    acme = await api.administrator()
    answer = await acme.get(f"/v1/audit?{query}")
    if query.endswith("9"):
        assert (answer.status, answer.body["items"]) == (200, [])
    else:
        assert (answer.status, answer.slug) == (422, "invalid-parameter")


async def test_a_cursor_of_the_other_order_is_refused(api: Api) -> None:
    acme = await busy(api)
    await all_sealed(api)
    by_time = (await acme.get("/v1/audit?limit=2")).body["next_cursor"]
    refused = await acme.get(f"/v1/audit?after=0&cursor={by_time}")
    assert (refused.status, refused.slug) == (422, "invalid-parameter")


async def test_an_organization_reads_its_own_chain_alone(api: Api) -> None:
    await busy(api)
    other = await busy(api, "other", 1)
    await all_sealed(api)
    head = (await other.get("/v1/audit/head")).body
    assert head["number"] == 3
    assert {record["organization_id"] for record in await paged(other, "")} == {head["organization_id"]}


@pytest.mark.parametrize(("scope", "status"), [("audit:read", 200), ("admin", 200), ("read", 403), ("deploy", 403)])
async def test_reading_takes_a_scope_of_its_own(api: Api, scope: str, status: int) -> None:
    acme = await api.administrator()
    made = await acme.post("/v1/tokens", {"name": "auditor", "scopes": [scope]})
    await all_sealed(api)
    caller = api.caller(made.body["token"])
    for path in ("/v1/audit", "/v1/audit?after=0", "/v1/audit/head"):
        assert (await caller.get(path)).status == status, path


async def test_what_is_not_sealed_yet_is_listed_without_a_seal(database: Database, tmp_path: Path) -> None:
    async with serving(database, tmp_path) as api:  # no copy seals
        acme = await busy(api, changes=1)
        assert [record["seal"] for record in await paged(acme, "")] == [None] * 3
        assert await paged(acme, "after=0") == []
        missing = await acme.get("/v1/audit/head")
        assert (missing.status, missing.slug) == (404, "not-found")

"""Products through the API: published once, unchangeable, with every mistake told."""

from __future__ import annotations

import pytest

from tests.api.support import Answered, Api, Caller

pytestmark = pytest.mark.anyio

COMPOSE = """\
services:
  web:
    image: hello:1
    command: [serve]
    expose: ["8080"]
x-spectrum:
  format: 1
  product: hello
  version: "{version}"
  plans:
    small: {{default: true}}
    large: {{}}
"""


async def publish(caller: Caller, version: str = "1.0.0", text: str = COMPOSE, query: str = "") -> Answered:
    files = {"compose.yaml": text.format(version=version)}
    return await caller.post(f"/v1/products/hello/releases{query}", {"file": "compose.yaml", "files": files})


async def test_a_release_is_published_listed_and_shown(api: Api) -> None:
    acme = await api.administrator()
    made = await publish(acme)
    assert (made.status, made.body["version"]) == (201, "1.0.0")
    assert made.headers["location"] == "/v1/products/hello/releases/1.0.0"
    shown = await acme.get("/v1/products/hello/releases/1.0.0")
    assert shown.body == {**made.body, "warnings": []}
    assert shown.body["plans"] == [{"name": "large", "default": False}, {"name": "small", "default": True}]
    product = await acme.get("/v1/products/hello")
    assert (product.body["latest"], product.body["releases"]) == ("1.0.0", 1)
    assert (await acme.get("/v1/products")).body["items"] == [product.body]


async def test_releases_are_listed_newest_first_page_by_page(api: Api) -> None:
    acme = await api.administrator()
    for version in ("1", "2", "3"):
        assert (await publish(acme, version)).status == 201
    first = await acme.get("/v1/products/hello/releases?limit=2")
    rest = await acme.get(f"/v1/products/hello/releases?limit=2&cursor={first.body['next_cursor']}")
    assert [item["version"] for item in first.body["items"] + rest.body["items"]] == ["3", "2", "1"]
    assert rest.body["next_cursor"] is None
    assert (await acme.get("/v1/products/hello")).body["latest"] == "3"


async def test_the_same_text_again_is_the_same_release(api: Api) -> None:
    acme = await api.administrator()
    made = await publish(acme)
    again = await publish(acme)
    assert (again.status, again.body["id"]) == (200, made.body["id"])
    assert len(await api.as_admin("SELECT 1 FROM events")) == 1


async def test_a_release_never_changes(api: Api) -> None:
    acme = await api.administrator()
    await publish(acme)
    refused = await publish(acme, text=COMPOSE.replace("hello:1", "hello:2"))
    assert (refused.status, refused.slug) == (409, "not-allowed-now")


async def test_a_dry_run_publishes_nothing(api: Api) -> None:
    acme = await api.administrator()
    checked = await publish(acme, query="?dry_run=true")
    assert (checked.status, checked.body["version"], checked.body["id"]) == (200, "1.0.0", "")
    assert (await acme.get("/v1/products")).body["items"] == []


async def test_every_mistake_is_told_with_its_line(api: Api) -> None:
    acme = await api.administrator()
    refused = await publish(acme, text=COMPOSE.replace("command:", "comand:").replace("format: 1", "format: 7"))
    assert (refused.status, refused.slug) == (422, "invalid-product")
    assert {(error["file"], error["line"]) for error in refused.body["errors"]} >= {("compose.yaml", 4)}
    assert (await acme.get("/v1/products")).body["items"] == []


async def test_a_product_is_published_under_its_own_name(api: Api) -> None:
    acme = await api.administrator()
    files = {"compose.yaml": COMPOSE.format(version="1")}
    refused = await acme.post("/v1/products/other/releases", {"file": "compose.yaml", "files": files})
    assert (refused.slug, refused.body["errors"][0]["pointer"]) == ("invalid-product", "/x-spectrum/product")


async def test_the_compose_file_must_be_among_the_files(api: Api) -> None:
    acme = await api.administrator()
    refused = await acme.post("/v1/products/hello/releases", {"file": "a.yaml", "files": {"b.yaml": ""}})
    assert (refused.status, refused.slug) == (422, "invalid-parameter")


async def test_another_organizations_product_is_not_there(api: Api) -> None:
    await publish(await api.administrator("other"))
    acme = await api.administrator("acme")
    for path in ("", "/hello", "/hello/releases", "/hello/releases/1.0.0"):
        answered = await acme.get(f"/v1/products{path}")
        assert answered.status == 404 or answered.body["items"] == []


async def test_events_are_read_by_position_and_only_once_they_have_one(api: Api) -> None:
    acme = await api.administrator()
    for version in ("1", "2"):
        await publish(acme, version)
    assert (await acme.get("/v1/events")).body["items"] == []
    await api.as_admin(
        "UPDATE events e SET position = n FROM (SELECT id, row_number() OVER (ORDER BY id) n FROM events) o WHERE o.id = e.id"
    )
    first = await acme.get("/v1/events?limit=1")
    event = first.body["items"][0]
    assert (event["type"], event["position"], event["sequence"]) == ("io.spectrum.release.published.v1", 1, "1")
    assert event["data"]["version"] == "1"
    rest = await acme.get(f"/v1/events?cursor={first.body['next_cursor']}")
    assert [item["position"] for item in rest.body["items"]] == [2]
    assert (await acme.get("/v1/events?after=1")).body["items"] == rest.body["items"]
    assert (await (await api.administrator("other")).get("/v1/events")).body["items"] == []

"""Every answer that says no has one form, and tells what was wrong, where, and what to do."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from spectrum.api.problems import CATALOGUE
from spectrum.control.commands import Reply
from spectrum.core.errors import STATUS
from tests import golden
from tests.api.fakes import BODY_LIMIT, FakeIdempotency, Ready, served

pytestmark = pytest.mark.anyio

ALL = {"authorization": "Bearer all"}
WRITE = {**ALL, "idempotency-key": "k", "content-type": "application/json"}
CASES: dict[str, dict[str, Any]] = {
    "no token": {"method": "GET", "url": "/v1/things"},
    "unknown token": {"method": "GET", "url": "/v1/things", "headers": {"authorization": "Bearer nobody"}},
    "a scope is missing": {
        "method": "POST",
        "url": "/v1/things",
        "headers": {**WRITE, "authorization": "Bearer reader"},
        "content": b"{}",
    },
    "no such path": {"method": "GET", "url": "/v1/nonsense", "headers": ALL},
    "no such thing": {"method": "GET", "url": "/v1/things/other", "headers": ALL},
    "no such method": {"method": "PATCH", "url": "/v1/things/other", "headers": WRITE},
    "no key": {"method": "POST", "url": "/v1/things", "headers": ALL, "content": b"{}"},
    "a bad key": {"method": "POST", "url": "/v1/things", "headers": {**WRITE, "idempotency-key": "x" * 256}},
    "broken JSON": {"method": "POST", "url": "/v1/things", "headers": WRITE, "content": b'{"name": '},
    "a doubled key": {
        "method": "POST",
        "url": "/v1/things",
        "headers": WRITE,
        "content": b'{"name": "a", "name": "b"}',
    },
    "a NUL": {"method": "POST", "url": "/v1/things", "headers": WRITE, "content": b'{"name": "a\\u0000"}'},
    "half a surrogate": {"method": "POST", "url": "/v1/things", "headers": WRITE, "content": b'{"name": "\\ud800"}'},
    "not a number": {"method": "POST", "url": "/v1/things", "headers": WRITE, "content": b'{"size": NaN}'},
    "too deep": {"method": "POST", "url": "/v1/things", "headers": WRITE, "content": b"[" * 65 + b"]" * 65},
    "not UTF-8": {"method": "POST", "url": "/v1/things", "headers": WRITE, "content": b'{"name": "\xff"}'},
    "another format": {
        "method": "POST",
        "url": "/v1/things",
        "headers": {**WRITE, "content-type": "text/yaml"},
        "content": b"name: a",
    },
    "wrong fields": {
        "method": "POST",
        "url": "/v1/things",
        "headers": WRITE,
        "content": b'{"name": "Not A Label", "size": "big", "colour": "red"}',
    },
    "no body": {"method": "POST", "url": "/v1/things", "headers": WRITE},
    "too large": {"method": "POST", "url": "/v1/things", "headers": WRITE, "content": b"x" * (BODY_LIMIT + 1)},
    "an unknown parameter": {"method": "GET", "url": "/v1/things?limits=3", "headers": ALL},
    "a bad limit": {"method": "GET", "url": "/v1/things?limit=1000", "headers": ALL},
    "a bad cursor": {"method": "GET", "url": "/v1/things?cursor=nonsense", "headers": ALL},
    "a bad wait": {"method": "GET", "url": "/v1/things?wait=long", "headers": ALL},
    "a bad ETag": {
        "method": "PUT",
        "url": "/v1/things/a",
        "headers": {**WRITE, "if-match": "3"},
        "content": b'{"name":"a"}',
    },
    "a NUL in the path": {"method": "GET", "url": "/v1/things/a%00b", "headers": ALL},
    "a line break in the query": {"method": "GET", "url": "/v1/things?cursor=a%0Ab", "headers": ALL},
    "away": {"method": "GET", "url": "/v1/things/away", "headers": ALL},
    "broken": {"method": "GET", "url": "/v1/things/broken", "headers": ALL},
    "no such problem": {"method": "GET", "url": "/problems/nonsense"},
    "the root": {"method": "GET", "url": "/"},
}


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with served() as (client, _, _):
        yield client


async def test_problem_bodies_are_what_other_programs_rely_on(http: httpx2.AsyncClient) -> None:
    found = {}
    for name, case in CASES.items():
        response = await http.request(**case)
        body = response.json()
        assert response.headers["content-type"] == "application/problem+json", name
        assert body.pop("request_id") == response.headers["x-request-id"], name
        assert (body["status"], body["type"].rpartition(":")[2]) == (response.status_code, _slug(body)), name
        headers = {
            key: response.headers[key]
            for key in ("allow", "retry-after", "www-authenticate")
            if key in response.headers
        }
        found[name] = {**body, "headers": headers}
    golden.check("problems.json", found)


def _slug(body: dict[str, Any]) -> str:
    return str(body["docs"].rpartition("/")[2])


def test_every_slug_has_a_status_a_title_and_a_remedy() -> None:
    assert CATALOGUE.keys() == STATUS.keys()


async def test_an_unexpected_error_leaks_nothing(http: httpx2.AsyncClient) -> None:
    response = await http.get("/v1/things/broken", headers=ALL)
    assert response.status_code == 500
    assert "password" not in response.text
    assert "RuntimeError" not in response.text


async def test_an_unexpected_error_is_logged_with_its_request(http: httpx2.AsyncClient, logs: io.StringIO) -> None:
    response = await http.get("/v1/things/broken", headers=ALL)
    lines = [json.loads(line) for line in logs.getvalue().splitlines()]
    error = next(line for line in lines if line["level"] == "error")
    assert error["request_id"] == response.headers["x-request-id"]
    assert "RuntimeError" in error["exception"]


@pytest.mark.parametrize("path", ["/v1/things", "/worker/v1/heartbeat"])
async def test_a_caller_that_hangs_up_in_the_middle_of_its_body_is_no_error_of_ours(
    http: httpx2.AsyncClient, logs: io.StringIO, path: str
) -> None:
    transport: Any = http._transport
    headers = [(name.encode(), value.encode()) for name, value in {**WRITE, "content-length": "9"}.items()]
    said: list[Any] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    answered: list[Any] = []

    async def receive() -> Any:
        return said.pop(0)

    async def send(message: Any) -> None:
        answered.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers, "scheme": "http"}
    await transport.app(scope, receive, send)

    lines = [json.loads(line) for line in logs.getvalue().splitlines()]
    assert answered == []
    assert [(line["level"], line["status"]) for line in lines] == [("info", 499)]


async def test_a_problem_links_to_what_it_means(http: httpx2.AsyncClient) -> None:
    refused = await http.get("/v1/things")
    page = await http.get(refused.json()["docs"])
    assert (page.status_code, page.json()["type"]) == (200, refused.json()["type"])
    assert page.json()["remedy"]


async def test_who_asks_is_settled_before_what_they_ask(http: httpx2.AsyncClient) -> None:
    nonsense = await http.post("/v1/things?nonsense=1", content=b"{", headers={"content-type": "text/plain"})
    assert nonsense.status_code == 401
    reader = await http.post("/v1/things", content=b"{", headers={"authorization": "Bearer reader"})
    assert reader.status_code == 403


async def test_a_known_key_is_answered_before_the_body_is_looked_at() -> None:
    async with served() as (http, idempotency, _):
        assert isinstance(idempotency, FakeIdempotency)
        idempotency.stored["k"] = Reply(201, {"name": "before"}, "/v1/things/before", repeated=True)
        response = await http.post("/v1/things", content=b"{", headers=WRITE)
    assert (response.status_code, response.json()) == (201, {"name": "before"})
    assert response.headers["location"] == "/v1/things/before"
    assert response.headers["idempotency-replayed"] == "true"


async def test_a_quoted_key_is_the_same_as_a_bare_one(http: httpx2.AsyncClient) -> None:
    response = await http.post("/v1/things", content=b'{"name":"a"}', headers={**WRITE, "idempotency-key": '"k"'})
    assert response.json()["key"] == "k"


async def test_a_body_in_chunks_is_limited_too(http: httpx2.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * (BODY_LIMIT // 2)

    response = await http.post("/v1/things", content=chunks(), headers=WRITE)
    assert (response.status_code, response.json()["type"]) == (413, "urn:spectrum:problem:too-large")


async def test_a_body_of_just_the_limit_is_read(http: httpx2.AsyncClient) -> None:
    body = b'{"name":"a"}'
    response = await http.post("/v1/things", content=body + b" " * (BODY_LIMIT - len(body)), headers=WRITE)
    assert response.status_code == 201


async def test_preconditions_are_read_from_headers(http: httpx2.AsyncClient) -> None:
    async def put(**headers: str) -> Any:
        sent = {**WRITE, **{name.replace("_", "-"): value for name, value in headers.items()}}
        response = await http.put("/v1/things/a", content=b'{"name":"a"}', headers=sent)
        return response.json()["generation"], response.json()["absent"]

    assert await put() == (None, False)
    assert await put(if_match='"3"') == (3, False)
    assert await put(if_match="*") == (None, False)
    assert await put(if_none_match="*") == (None, True)


@pytest.mark.parametrize(("given", "seconds"), [("30s", 30), ("5", 5), ("250ms", 0.25), ("1m", 60), ("9000s", 60)])
async def test_a_wait_is_a_duration_and_never_too_long(http: httpx2.AsyncClient, given: str, seconds: float) -> None:
    response = await http.get(f"/v1/things?wait={given}", headers=ALL)
    assert response.json()["wait"] == seconds


async def test_a_request_keeps_a_harmless_id_and_its_trace(http: httpx2.AsyncClient) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {**ALL, "x-request-id": "my-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    kept = await http.get("/v1/things", headers=headers)
    assert kept.headers["x-request-id"] == "my-1"
    assert kept.headers["traceparent"].split("-")[1] == trace
    assert kept.headers["traceparent"] != headers["traceparent"]
    made = await http.get("/v1/things", headers={**ALL, "x-request-id": "no spaces please", "traceparent": "nonsense"})
    assert made.headers["x-request-id"].startswith("req_")


async def test_readiness_says_what_is_missing() -> None:
    async with served() as (http, _, ready):
        assert isinstance(ready, Ready)
        assert (await http.get("/readyz")).json() == {"status": "ok", "checks": {"database": "ok"}}
        ready.trouble["database"] = "it does not answer"
        response = await http.get("/readyz")
        assert (response.status_code, response.json()["checks"]["database"]) == (503, "it does not answer")
        assert (await http.get("/livez")).status_code == 200


async def test_requests_are_counted_by_route_and_not_by_path(http: httpx2.AsyncClient) -> None:
    await http.get("/v1/things/one", headers=ALL)
    await http.get("/v1/things/two", headers=ALL)
    metrics = (await http.get("/metrics")).text
    assert 'spectrum_http_requests_total{method="GET",route="/v1/things/{name}",status="404"} 2.0' in metrics

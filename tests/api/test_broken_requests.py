"""What is wrong with a request is said as a whole: every answer of the real API to these is kept, and was read by a person."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from spectrum.core.access import TOKEN_ENTROPY, make_token
from tests import golden
from tests.api.support import Api
from tests.api.vendor import HELLO, texts, vendor

pytestmark = pytest.mark.anyio

INSTANCES, JOBS, TOKENS, PRODUCTS = "/v1/instances", "/v1/jobs", "/v1/tokens", "/v1/products"
HELLO_SPEC = {"product": "hello"}
NEW = {"name": "new", **HELLO_SPEC}
DEEP = b'{"name": "new", "product": "hello", "parameters": {"a": ' + b"[" * 70 + b"]" * 70 + b"}}"


@dataclass(frozen=True)
class Sent:
    """A request. `body` is JSON unless it is bytes; `who` is whose token it carries."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str | None] | None = None
    who: str = "admin"


def get(path: str, who: str = "admin", **headers: str) -> Sent:
    return Sent("GET", path, headers=headers, who=who)


def post(path: str, body: Any = None, who: str = "admin", **headers: str | None) -> Sent:
    return Sent("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()}, who)


def put(body: Any = HELLO_SPEC, name: str = "shop", **headers: str) -> Sent:
    return Sent("PUT", f"{INSTANCES}/{name}", body, {key.replace("_", "-"): value for key, value in headers.items()})


def create(who: str = "admin", **changes: Any) -> Sent:
    return post(INSTANCES, {**NEW, **changes}, who)


BROKEN: dict[str, Sent] = {
    # who
    "no token": get(INSTANCES, "nobody"),
    "another way to sign in": get(INSTANCES, "basic"),
    "a token that is no token": get(INSTANCES, "nonsense"),
    "a token with a typing error": get(INSTANCES, "mistyped"),
    "a forged token": get(INSTANCES, "forged"),
    "an expired token": get(INSTANCES, "expired"),
    "a revoked token": get(INSTANCES, "revoked"),
    "a join token": get(INSTANCES, "joining"),
    # whether
    "a reader that creates": create("reader"),
    "a reader that looks at the audit": get("/v1/audit", "reader"),
    "a deployer that makes a token": post(TOKENS, {"name": "t"}, "deployer"),
    "a token that gives more than it has": post(TOKENS, {"name": "t", "scopes": ["admin"]}, "tokens only"),
    "an organization made by a customer": post("/v1/organizations", {"name": "mine"}),
    "a token for somebody else's organization": post(TOKENS, {"name": "t", "organization": "rival"}),
    "an instance of somebody else, by id": get(f"{INSTANCES}/{{rival instance}}"),
    "an instance of somebody else, by name": get(f"{INSTANCES}/theirs"),
    "a job of somebody else": get(f"{JOBS}/{{rival job}}"),
    "a cancel of somebody else's job": post(f"{JOBS}/{{rival job}}:cancel"),
    "an instance on somebody else's target": create(target="{rival target}"),
    # what for
    "no such path": get("/v1/instance"),
    "a trailing slash": get("/v1/instances/"),
    "no such method": Sent("PATCH", f"{INSTANCES}/shop", {}),
    "no such verb": post(f"{INSTANCES}/shop:explode"),
    "no such instance": get(f"{INSTANCES}/shopp"),
    "no such job": get(f"{JOBS}/job_00000000-0000-7000-8000-00000000dead"),
    "a job that is no id": get(f"{JOBS}/none"),
    "no such product": create(product="helo"),
    "no such release": create(release="9.9"),
    "no such release to look at": get(f"{PRODUCTS}/hello/releases/9.9"),
    "no such plan": create(plan="huge"),
    "no such target": create(target="mars"),
    "no such target to look at": get("/v1/targets/mars"),
    "no such worker": post("/v1/workers/wrk_00000000-0000-7000-8000-00000000dead:drain"),
    "no such token": Sent("DELETE", f"{TOKENS}/tok_00000000-0000-7000-8000-00000000dead"),
    "logs of nobody": get(f"{INSTANCES}/nobody/logs"),
    "logs of no such service": get(f"{INSTANCES}/idle/logs?service=wep"),
    # the key
    "no key": post(INSTANCES, NEW, idempotency_key=None),
    "an empty key": post(INSTANCES, NEW, idempotency_key=" "),
    "a key that is too long": post(INSTANCES, NEW, idempotency_key="k" * 256),
    "a key that was used for something else": post(INSTANCES, NEW, idempotency_key="shop"),
    # the form of the body
    "no body": post(INSTANCES),
    "a form": post(INSTANCES, b"name=new", content_type="application/x-www-form-urlencoded"),
    "a body of no type": post(INSTANCES, b"{}", content_type=None),
    "broken JSON": post(INSTANCES, b'{"name": "new", "product": }'),
    "two values": post(INSTANCES, b"{} {}"),
    "a list": post(INSTANCES, []),
    "null": post(INSTANCES, b"null"),
    "bad UTF-8": post(INSTANCES, b'{"name": "\xc3\x28"}'),
    "UTF-16": post(INSTANCES, '{"name": "new"}'.encode("utf-16")),
    "a NUL byte": post(INSTANCES, b'{"name": "ne\\u0000w", "product": "hello"}'),
    "half a surrogate pair": post(INSTANCES, b'{"name": "\\udfff", "product": "hello"}'),
    "a key twice": post(INSTANCES, b'{"name": "a", "name": "b", "product": "hello"}'),
    "a number that is none": post(INSTANCES, b'{"name": "new", "product": "hello", "parameters": {"a": NaN}}'),
    "a number of too many digits": post(
        INSTANCES, b'{"name": "new", "product": "hello", "parameters": {"a": ' + b"9" * 5000 + b"}}"
    ),
    "nested too deep": post(INSTANCES, DEEP),
    "too large": post(INSTANCES, b" " * (2 * 1024 * 1024 + 1)),
    # what the body says
    "nothing that is needed": post(INSTANCES, {}),
    "an unknown field": create(colour="red"),
    "a misspelt field": create(paramters={}),
    "a name with a capital": create(name="New"),
    "a name that is too long": create(name="n" * 64),
    "a name that is a number": create(name=7),
    "labels that are a list": create(labels=["a"]),
    "a label with a bad key": create(labels={"a b": "c"}),
    "a label with a line break": create(labels={"a": "b\nc"}),
    "a state that there is not": create(desired_state="paused"),
    "a state that is not possible yet": create(desired_state="suspended"),
    "an unknown parameter": create(parameters={"greting": "Hi"}),
    "a parameter of the wrong type": create(parameters={"greeting": 7}),
    "a parameter that is too long": create(parameters={"greeting": "x" * 101}),
    "a parameter with a control character": create(parameters={"greeting": "a\tb"}),
    "a name that is taken": create(name="shop"),
    "no scopes": post(TOKENS, {"name": "t", "scopes": []}),
    "an unknown scope": post(TOKENS, {"name": "t", "scopes": ["root"]}),
    "an end without a time zone": post(TOKENS, {"name": "t", "expires_at": "2030-01-01T00:00:00"}),
    "an end that has passed": post(TOKENS, {"name": "t", "expires_at": "2020-01-01T00:00:00Z"}),
    "a target without an address": post("/v1/targets", {"name": "t", "url": "srv"}),
    "a target of an unknown kind": post("/v1/targets", {"name": "t", "url": "gopher:///srv"}),
    "a target that exists": post("/v1/targets", {"name": "local", "url": "process:///srv/other"}),
    "a target that is in use": Sent("DELETE", "/v1/targets/local"),
    "a join token for two things": post("/v1/workers:join-token", {"target": "local", "pool": "local"}),
    "a join token for nothing": post("/v1/workers:join-token", {}),
    "a publication without its file": post(f"{PRODUCTS}/hello/releases", {"file": "compose.yaml", "files": {}}),
    "a publication that is no product": post(
        f"{PRODUCTS}/hello/releases", {"file": "compose.yaml", "files": {"compose.yaml": "services: {}\n"}}
    ),
    "a publication under another name": post(
        f"{PRODUCTS}/other/releases", {"file": "compose.yaml", "files": texts(HELLO)}
    ),
    # in which state
    "a stale ETag": put(if_match='"7"'),
    "an ETag without quotes": put(if_match="1"),
    "an ETag of somebody else's making": put(if_match='"abc"'),
    "created again": put(if_none_match="*"),
    "an If-None-Match that is not understood": put(if_none_match='"1"'),
    "an action on a stale ETag": post(f"{INSTANCES}/shop:stop", if_match='"7"'),
    "a change of an instance": put({**HELLO_SPEC, "parameters": {"greeting": "Hi"}}),
    "undelete of what is not deleted": post(f"{INSTANCES}/idle:undelete"),
    "cancel of what is over": post(f"{JOBS}/{{ended job}}:cancel"),
    # the query
    "an unknown filter": get(f"{INSTANCES}?lifecyle=running"),
    "a filter with a value that there is not": get(f"{INSTANCES}?lifecycle=asleep"),
    "a label filter without a value": get(f"{INSTANCES}?label=a"),
    "a limit of zero": get(f"{INSTANCES}?limit=0"),
    "a limit that is too high": get(f"{INSTANCES}?limit=201"),
    "a limit that is no number": get(f"{INSTANCES}?limit=ten"),
    "a cursor that nobody gave": get(f"{INSTANCES}?cursor=abc"),
    "a cursor of another list": get("/v1/events?cursor={cursor}"),
    "a position below zero": get("/v1/events?after=-1"),
    "a wait that is no duration": post(f"{INSTANCES}?wait=soon", NEW),
    "a dry run that is neither": post(f"{INSTANCES}?dry_run=perhaps", NEW),
    "a since that is no time": get(f"{INSTANCES}/idle/logs?since=yesterday"),
    "a NUL in the query": get(f"{INSTANCES}?product=a%00b"),
    "a NUL in one of two filters": get(f"{INSTANCES}?label=a%3Db%00&label=c%3Dd"),
    "another method before a verb": Sent("PUT", f"{INSTANCES}/shop:start", {}),
    "bad UTF-8 in the path": get(f"{INSTANCES}/%ff%fe"),
    "a NUL in the path": get(f"{INSTANCES}/a%00b"),
    # workers
    "an unsigned call": Sent("POST", "/worker/v1/poll", {}, who="nobody"),
    "a call that there is not": Sent("POST", "/worker/v1/dance", {}, who="nobody"),
}


async def situation(api: Api) -> tuple[dict[str, str | None], dict[str, str]]:
    """Tokens by their holder, and what stands for the words in braces."""
    async with vendor(api) as made, vendor(api, "rival") as rival:
        admin = made.admin
        tokens: dict[str, str | None] = {"admin": admin.token, "nobody": None, "nonsense": "hunter2"}
        for name, scopes in (("reader", ["read"]), ("deployer", ["deploy"]), ("tokens only", ["tokens:write"])):
            tokens[name] = (await admin.post(TOKENS, {"name": name, "scopes": scopes})).body["token"]
        for name in ("expired", "revoked"):
            token = (await admin.post(TOKENS, {"name": name, "scopes": ["read"]})).body
            tokens[name] = token["token"]
            column = {"expired": "expires_at", "revoked": "revoked_at"}[name]
            await api.as_admin(f"UPDATE tokens SET {column} = '2026-01-01Z' WHERE id = $1", token["id"])
        tokens["forged"] = make_token(b"forged".ljust(TOKEN_ENTROPY, b"!")).text
        tokens["mistyped"] = f"{str(admin.token)[:-1]}{'a' if str(admin.token)[-1] != 'a' else 'b'}"
        tokens["joining"] = (await admin.post("/v1/workers:join-token", {"target": "local"})).body["token"]
        await made.running("idle")
        await admin.post(INSTANCES, {"name": "shop", **HELLO_SPEC}, key="shop")
        theirs = (await rival.create("theirs")).body
        ended = (await admin.get(f"{JOBS}?state=succeeded")).body["items"][0]
        listed = (await admin.get(f"{INSTANCES}?limit=1")).body
        words = {
            "rival instance": theirs["subject"]["id"],
            "rival job": theirs["id"],
            "rival target": "rival",
            "ended job": ended["id"],
            "cursor": listed["next_cursor"],
        }
        return tokens, words


async def test_every_broken_request_is_told_what_is_wrong_where_and_what_to_do(api: Api) -> None:
    tokens, words = await situation(api)
    found = {name: await _answer(api.http, sent, tokens, words) for name, sent in BROKEN.items()}
    golden.check("broken-requests.json", found)


def test_there_are_enough_of_them_to_mean_something() -> None:
    assert len(BROKEN) >= 60


async def _answer(
    http: httpx2.AsyncClient, sent: Sent, tokens: Mapping[str, str | None], words: Mapping[str, str]
) -> dict[str, Any]:
    headers: dict[str, str | None] = {"content-type": "application/json"} if sent.body is not None else {}
    if sent.method != "GET":
        headers["idempotency-key"] = "a-new-one"
    if sent.who == "basic":
        headers["authorization"] = "Basic YWxhZGRpbjpvcGVu"
    elif tokens[sent.who]:
        headers["authorization"] = f"Bearer {tokens[sent.who]}"
    headers |= sent.headers or {}
    content = sent.body if isinstance(sent.body, bytes) else None
    if sent.body is not None and content is None:
        content = _filled(json.dumps(sent.body), words).encode()
    given = {name: value for name, value in headers.items() if value is not None}
    response = await http.request(sent.method, _filled(sent.path, words), content=content, headers=given)
    assert response.headers["content-type"] == "application/problem+json", (sent, response.text)
    body = response.json()
    assert body.pop("request_id") == response.headers["x-request-id"]
    assert body["status"] == response.status_code < 500
    assert body["docs"].endswith("/problems/" + body["type"].rpartition(":")[2])
    told = ("allow", "retry-after", "www-authenticate")
    body["headers"] = {name: response.headers[name] for name in told if name in response.headers}
    for member in ("docs", "title"):  # they hang on the type alone
        body.pop(member)
    steady = re.sub(r"_[0-9a-f]{8}-[0-9a-f-]{27}", "_…", json.dumps(body))
    return dict(json.loads(re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "…Z", steady)))


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", value)
    return text

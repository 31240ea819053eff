"""Organizations and tokens through the API: who gets in, how far, and what is never told twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from spectrum.core.access import TOKEN_ENTROPY, make_token
from tests.api.support import ENTROPY, Api

pytestmark = pytest.mark.anyio


async def test_the_platforms_token_makes_an_organization_and_its_first_token(api: Api) -> None:
    platform = await api.administrator("platform")
    made = await platform.post("/v1/organizations", {"name": "acme"})
    assert (made.status, made.body["name"]) == (201, "acme")
    assert made.headers["location"] == f"/v1/organizations/{made.body['id']}"
    token = await platform.post("/v1/tokens", {"name": "first", "organization": "acme"})
    assert token.status == 201
    acme = api.caller(token.body["token"])
    mine = await acme.get("/v1/organizations")
    assert [item["name"] for item in mine.body["items"]] == ["acme"]


async def test_an_organizations_administrator_makes_no_organizations_and_no_tokens_for_others(api: Api) -> None:
    await api.administrator("other")
    acme = await api.administrator("acme")
    refused = await acme.post("/v1/organizations", {"name": "more"})
    assert (refused.status, refused.slug) == (403, "forbidden")
    assert "a token of the platform" in refused.body["detail"]
    hidden = await acme.post("/v1/tokens", {"name": "spy", "organization": "other"})
    assert (hidden.status, hidden.slug) == (404, "not-found")


async def test_the_platform_does_not_see_into_organizations(api: Api) -> None:
    acme = await api.administrator("acme")
    await acme.post("/v1/targets", {"name": "local", "url": "process:///srv"})
    platform = await api.administrator("platform")
    assert (await platform.get("/v1/targets")).body["items"] == []
    assert (await platform.get("/v1/targets/local")).status == 404


async def test_an_organization_name_is_taken_once(api: Api) -> None:
    platform = await api.administrator("platform")
    await platform.post("/v1/organizations", {"name": "acme"})
    again = await platform.post("/v1/organizations", {"name": "acme"})
    assert (again.status, again.slug) == (409, "not-allowed-now")


async def test_a_token_is_listed_without_its_secret(api: Api) -> None:
    acme = await api.administrator()
    made = await acme.post("/v1/tokens", {"name": "ci", "scopes": ["deploy"]})
    listed = await acme.get("/v1/tokens")
    entry = next(item for item in listed.body["items"] if item["id"] == made.body["id"])
    assert entry == {**made.body, "token": None}
    assert made.body["token"].startswith(made.body["prefix"] + "_")
    assert entry["scopes"] == ["deploy"]


async def test_no_token_and_no_hash_of_one_is_readable_in_the_database(api: Api) -> None:
    acme = await api.administrator()
    made = await acme.post("/v1/tokens", {"name": "ci"})
    for table in ("tokens", "idempotency_keys", "audit", "events"):
        rows = await api.as_admin(f"SELECT t::text AS row FROM {table} t")
        assert all(made.body["token"] not in row["row"] for row in rows)


async def test_a_repeated_request_gets_the_same_secret_for_an_hour_and_a_note_afterwards(api: Api) -> None:
    acme = await api.administrator()
    first = await acme.post("/v1/tokens", {"name": "ci"}, key="k")
    again = await acme.post("/v1/tokens", {"name": "ci"}, key="k")
    assert (again.status, again.body, again.headers["location"]) == (201, first.body, first.headers["location"])
    assert again.headers["idempotency-replayed"] == "true"
    await api.as_admin("UPDATE idempotency_keys SET ciphertext_expires_at = now() - interval '1 second'")
    later = await acme.post("/v1/tokens", {"name": "ci"}, key="k")
    assert (later.status, later.body["secret_shown"]) == (201, True)
    assert "token" not in later.body
    assert len((await acme.get("/v1/tokens")).body["items"]) == 2


async def test_a_key_used_for_another_request_is_refused(api: Api) -> None:
    acme = await api.administrator()
    await acme.post("/v1/tokens", {"name": "one"}, key="k")
    other = await acme.post("/v1/tokens", {"name": "two"}, key="k")
    assert (other.status, other.slug) == (422, "idempotency-key-reused")


async def test_a_refused_request_does_not_use_its_key_up(api: Api) -> None:
    acme = await api.administrator()
    refused = await acme.post("/v1/tokens", {"name": "ci", "scopes": ["nonsense"]}, key="k")
    assert (refused.status, refused.slug) == (422, "invalid-parameter")
    assert (await acme.post("/v1/tokens", {"name": "ci"}, key="k")).status == 201


async def test_two_organizations_may_use_the_same_key(api: Api) -> None:
    acme, other = await api.administrator("acme"), await api.administrator("other")
    mine = await acme.post("/v1/tokens", {"name": "ci"}, key="k")
    theirs = await other.post("/v1/tokens", {"name": "other"}, key="k")
    assert (mine.status, theirs.status) == (201, 201)


async def test_a_revoked_token_is_refused_at_once(api: Api) -> None:
    acme = await api.administrator()
    made = await acme.post("/v1/tokens", {"name": "ci"})
    caller = api.caller(made.body["token"])
    assert (await caller.get("/v1/tokens")).status == 200
    assert (await acme.delete(f"/v1/tokens/{made.body['id']}")).status == 204
    refused = await caller.get("/v1/tokens")
    assert (refused.status, refused.slug) == (401, "unauthenticated")
    assert "revoked" in refused.body["detail"]
    assert refused.headers["www-authenticate"].startswith("Bearer")


async def test_an_expired_token_is_refused(api: Api) -> None:
    acme = await api.administrator()
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = await acme.post("/v1/tokens", {"name": "ci", "expires_at": ends})
    await api.as_admin("UPDATE tokens SET expires_at = now() WHERE id = $1", made.body["id"])
    refused = await api.caller(made.body["token"]).get("/v1/tokens")
    assert refused.status == 401
    assert "expired" in refused.body["detail"]


async def test_a_token_that_expires_in_the_past_is_not_made(api: Api) -> None:
    acme = await api.administrator()
    refused = await acme.post("/v1/tokens", {"name": "ci", "expires_at": "2020-01-01T00:00:00Z"})
    assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "/expires_at")


async def test_nobody_gives_away_more_than_they_have(api: Api) -> None:
    acme = await api.administrator()
    made = await acme.post("/v1/tokens", {"name": "ops", "scopes": ["tokens:write", "read"]})
    refused = await api.caller(made.body["token"]).post("/v1/tokens", {"name": "more", "scopes": ["admin"]})
    assert (refused.status, refused.slug) == (403, "forbidden")


async def test_another_organizations_token_can_not_be_revoked(api: Api) -> None:
    acme, other = await api.administrator("acme"), await api.administrator("other")
    made = await other.post("/v1/tokens", {"name": "ci"})
    assert (await acme.delete(f"/v1/tokens/{made.body['id']}")).status == 404
    assert (await api.caller(made.body["token"]).get("/v1/tokens")).status == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Basic abc", "Bearer spk_nonsense"])
async def test_without_a_token_nothing_is_told(api: Api, header: str) -> None:
    stranger = api.caller(None)
    refused = await stranger.get("/v1/tokens", authorization=header)
    assert (refused.status, refused.slug) == (401, "unauthenticated")


async def test_a_well_formed_token_of_another_installation_is_refused(api: Api) -> None:
    refused = await api.caller(make_token(ENTROPY.token(TOKEN_ENTROPY))).get("/v1/tokens")
    assert (refused.status, refused.slug) == (401, "unauthenticated")


async def test_a_token_remembers_that_it_was_used(api: Api) -> None:
    acme = await api.administrator()
    await acme.get("/v1/tokens")
    listed = await acme.get("/v1/tokens")
    assert listed.body["items"][0]["last_used_at"] is not None


async def test_bootstrap_may_run_at_every_start(api: Api) -> None:
    token = make_token(ENTROPY.token(TOKEN_ENTROPY))
    first = await api.identity.bootstrap("acme", token)
    assert await api.identity.bootstrap("acme", token) == first
    assert len((await api.caller(token).get("/v1/tokens")).body["items"]) == 1


async def test_every_change_leaves_an_audit_record_with_its_actor(api: Api) -> None:
    acme = await api.administrator()
    made = await acme.post("/v1/tokens", {"name": "ci"}, x_request_id="my-request")
    await acme.delete(f"/v1/tokens/{made.body['id']}")
    records = (await acme.get(f"/v1/audit?subject={made.body['id']}")).body["items"]
    assert [record["action"] for record in records] == ["token.create", "token.revoke"]
    assert records[0]["request_id"] == "my-request"
    assert records[0]["actor"].startswith("token:tok_")

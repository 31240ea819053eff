"""Targets, join tokens and workers: how a worker comes to be trusted, and how trust ends."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from spectrum.control.workers import Applicant, Enrolled
from spectrum.core.access import read_token
from spectrum.core.errors import Problem
from tests.api.support import ENTROPY, Api, Caller

pytestmark = pytest.mark.anyio


def applicant(signing: bytes | None = None) -> Applicant:
    return Applicant("worker-1", signing or ENTROPY.token(32), ENTROPY.token(32), 1, {"create": [1]})


async def with_target(api: Api, organization: str = "acme") -> Caller:
    caller = await api.administrator(organization)
    made = await caller.post("/v1/targets", {"name": "local", "url": "process:///srv/spectrum"})
    assert made.status == 201
    return caller


async def join_token(caller: Caller) -> str:
    made = await caller.post("/v1/workers:join-token", {"target": "local"})
    assert made.status == 201
    return str(made.body["token"])


async def refusal(api: Api, token: str, who: Applicant) -> str:
    with pytest.raises(Problem) as caught:
        await api.workers.enrol(token, who)
    assert caught.value.slug == "join-token-invalid"
    return caught.value.detail


async def test_a_target_is_added_with_a_pool_of_its_name_and_found_by_name_and_id(api: Api) -> None:
    acme = await with_target(api)
    shown = await acme.get("/v1/targets/local")
    assert (shown.body["pool"], shown.body["state"], shown.body["shared"]) == ("local", "up", False)
    assert (await acme.get(f"/v1/targets/{shown.body['id']}")).body == shown.body
    assert (await acme.get("/v1/targets")).body == {"items": [shown.body], "next_cursor": None}


async def test_a_target_name_is_taken_once_and_free_again_after_removal(api: Api) -> None:
    acme = await with_target(api)
    wish = {"name": "local", "url": "docker:///run/docker.sock"}
    refused = await acme.post("/v1/targets", wish)
    assert (refused.status, refused.slug) == (409, "not-allowed-now")
    assert (await acme.delete("/v1/targets/local")).status == 204
    assert (await acme.get("/v1/targets/local")).status == 404
    assert (await acme.post("/v1/targets", wish)).status == 201


async def test_a_target_of_no_known_kind_is_refused(api: Api) -> None:
    acme = await api.administrator()
    refused = await acme.post("/v1/targets", {"name": "local", "url": "mainframe://ibm"})
    assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "/url")


async def test_a_lost_target_can_not_be_forgotten_yet(api: Api) -> None:
    acme = await with_target(api)
    refused = await acme.delete("/v1/targets/local?gone=true")
    assert (refused.status, refused.slug) == (409, "operation-not-available")


async def test_the_platforms_targets_are_seen_by_all_and_changed_by_it_alone(api: Api) -> None:
    await with_target(api, "platform")
    acme = await api.administrator("acme")
    assert (await acme.get("/v1/targets/local")).body["shared"] is True
    refused = await acme.delete("/v1/targets/local")
    assert (refused.status, refused.slug) == (403, "forbidden")
    assert (await acme.post("/v1/workers:join-token", {"target": "local"})).status == 404


async def test_another_organizations_target_is_not_there(api: Api) -> None:
    await with_target(api, "other")
    acme = await api.administrator("acme")
    assert (await acme.get("/v1/targets/local")).status == 404
    assert (await acme.get("/v1/targets")).body["items"] == []


async def test_a_join_token_carries_the_cells_key_and_lasts_fifteen_minutes(api: Api) -> None:
    acme = await with_target(api)
    made = await acme.post("/v1/workers:join-token", {"pool": "local"})
    text = read_token(made.body["token"])
    assert text is not None
    assert text.cell_key == api.keys.signing_key_id
    (row,) = await api.as_admin("SELECT created_at, expires_at FROM join_tokens")
    assert (row["expires_at"] - row["created_at"]).total_seconds() == 900
    assert abs((datetime.fromisoformat(made.body["expires_at"]) - row["expires_at"]).total_seconds()) < 0.001


async def test_a_worker_joins_once_and_is_listed(api: Api) -> None:
    acme = await with_target(api)
    enrolled = await api.workers.enrol(await join_token(acme), applicant())
    listed = (await acme.get("/v1/workers")).body["items"]
    assert [(item["id"], item["pool"], item["targets"]) for item in listed] == [
        (enrolled.worker_id, "local", ["local"])
    ]
    assert listed[0]["state"] == "lost"  # it has not opened a lease yet
    (event,) = await api.as_admin("SELECT type, subject, sequence FROM events")
    assert tuple(event) == ("io.spectrum.worker.enrolled.v1", enrolled.worker_id, 1)


async def test_the_same_token_with_the_same_key_gets_the_same_answer_even_after_it_expired(api: Api) -> None:
    acme = await with_target(api)
    token, who = await join_token(acme), applicant()
    first = await api.workers.enrol(token, who)
    await api.as_admin("UPDATE join_tokens SET expires_at = now() - interval '1 hour'")
    assert await api.workers.enrol(token, who) == first
    assert len(await api.as_admin("SELECT 1 FROM workers")) == 1


async def test_of_two_keys_that_use_a_token_at_once_one_gets_in(api: Api) -> None:
    acme = await with_target(api)
    token = await join_token(acme)
    results: list[Any] = await asyncio.gather(
        *(api.workers.enrol(token, applicant()) for _ in range(4)), return_exceptions=True
    )
    assert [isinstance(result, Enrolled) for result in results].count(True) == 1
    assert all(isinstance(result, Enrolled | Problem) for result in results)
    assert len(await api.as_admin("SELECT 1 FROM workers")) == 1


async def test_a_join_token_that_is_used_expired_foreign_or_unknown_lets_nobody_in(api: Api) -> None:
    acme = await with_target(api)
    token = await join_token(acme)
    known = applicant()
    await api.workers.enrol(token, known)
    assert "used by another worker" in await refusal(api, token, applicant())
    assert "joined before" in await refusal(api, await join_token(acme), applicant(known.signing_key))
    late = await join_token(acme)
    await api.as_admin("UPDATE join_tokens SET expires_at = now() WHERE used_at IS NULL")
    assert "expired" in await refusal(api, late, applicant())
    assert "not a join token of this cell" in await refusal(api, "spj_nonsense", applicant())
    assert "not a join token of this cell" in await refusal(api, str(acme.token), applicant())
    await api.as_admin("DELETE FROM join_tokens")
    assert "Nobody knows" in await refusal(api, token, known)


async def test_a_key_is_known_until_its_worker_is_revoked(api: Api) -> None:
    acme = await with_target(api)
    who = applicant(api.keys.signer.key.public_key().public_bytes_raw())
    enrolled = await api.workers.enrol(await join_token(acme), who)
    known = await api.workers.by_key(who.signing_key.hex())
    assert (known.id, known.sealing_key, known.draining) == (enrolled.worker_id, who.sealing_key, False)
    revoked = await acme.post(f"/v1/workers/{enrolled.worker_id}:revoke")
    assert (revoked.status, revoked.body["state"]) == (200, "revoked")
    with pytest.raises(Problem, match="revoked"):
        await api.workers.by_key(who.signing_key.hex())
    again = await acme.post(f"/v1/workers/{enrolled.worker_id}:revoke")
    assert again.status == 200
    events = await api.as_admin("SELECT type, sequence FROM events ORDER BY sequence")
    assert [tuple(event) for event in events] == [
        ("io.spectrum.worker.enrolled.v1", 1),
        ("io.spectrum.worker.revoked.v1", 2),
    ]


@pytest.mark.parametrize("key_id", ["", "nonsense", "00" * 32])
async def test_a_key_of_nobody_is_refused(api: Api, key_id: str) -> None:
    with pytest.raises(Problem, match="signature-invalid"):
        await api.workers.by_key(key_id)


async def test_a_worker_is_drained_by_its_organization_alone(api: Api) -> None:
    acme, other = await with_target(api), await api.administrator("other")
    enrolled = await api.workers.enrol(await join_token(acme), applicant())
    assert (await other.post(f"/v1/workers/{enrolled.worker_id}:drain")).status == 404
    drained = await acme.post(f"/v1/workers/{enrolled.worker_id}:drain")
    assert drained.body["state"] == "draining"
    assert (await acme.get(f"/v1/workers/{enrolled.worker_id}")).body == drained.body


async def test_a_join_token_is_for_a_target_or_for_a_pool(api: Api) -> None:
    acme = await with_target(api)
    for wish in ({}, {"target": "local", "pool": "local"}):
        refused = await acme.post("/v1/workers:join-token", wish)
        assert (refused.status, refused.slug) == (422, "invalid-parameter")

"""Instances through the API, from being asked for to being purged, on a real database."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from spectrum.api import models
from spectrum.core.jobs.table import JobState
from spectrum.core.sealing import Context, Sealed
from spectrum.sdk import models as sdk
from tests.api.support import Answered, Caller
from tests.api.vendor import KINTO, URL, Vendor, failing, publish

pytestmark = pytest.mark.anyio


def allowed(instance: dict[str, Any]) -> set[str]:
    return {action["verb"] for action in instance["actions"] if action["allowed"]}


def pointers(refused: Answered) -> list[str]:
    assert (refused.status, refused.slug) == (422, "invalid-parameter")
    return [error["pointer"] for error in refused.body["errors"]]


# ---- making one


async def test_a_create_is_answered_by_its_job_and_ends_in_a_running_instance(here: Vendor) -> None:
    made = await here.create(labels={"tier": "gold"}, parameters={"greeting": "Salve"})
    job = models.Job.model_validate(made.body)
    assert made.headers["location"] == f"/v1/jobs/{job.id}"
    assert (job.operation, job.state, job.generation, job.progress.done) == ("create", "ready", 1, 0)
    assert job.waiting is not None and job.waiting.reason == "worker"
    creating = await here.instance()
    assert (creating["lifecycle"], creating["active_job_id"]) == ("creating", job.id)

    await here.hands.work()

    shown = await here.admin.get("/v1/instances/acme")
    instance = models.Instance.model_validate(shown.body)
    assert shown.headers["etag"] == '"1"'
    assert (instance.product, instance.release, instance.plan, instance.target) == (
        "hello",
        "1.0.0",
        "default",
        "local",
    )
    assert (instance.lifecycle, instance.health, instance.accepted_generation) == ("running", "healthy", 1)
    assert (instance.parameters, instance.labels) == ({"greeting": "Salve"}, {"tier": "gold"})
    assert [endpoint.url for endpoint in instance.endpoints] == [URL]
    assert [service.ports for service in instance.services] == [{"8080": 21045}]
    assert instance.conditions[0].reason == "no_cgroup"
    assert instance.active_job_id is None
    assert shown.body == (await here.admin.get(f"/v1/instances/{instance.id}")).body


async def test_a_job_that_has_ended_shows_every_attempt(here: Vendor) -> None:
    made = await here.create()
    await here.hands.work()
    body = (await here.admin.get(made.headers["location"])).body
    job = models.Job.model_validate(body)
    assert (job.state, job.done, job.waiting, job.deadline) == ("succeeded", True, None, None)
    assert job.progress.done == job.progress.total == len(job.steps)
    assert [[attempt.outcome for attempt in step.attempts] for step in job.steps] == [["done"]] * len(job.steps)
    assert {attempt.worker_id for step in job.steps for attempt in step.attempts} == {here.hands.caller.worker_id}
    assert sdk.Job.model_validate(body).done


async def test_secrets_are_made_sealed_and_never_shown(here: Vendor) -> None:
    await publish(here.admin, KINTO)
    given = {"db_password": "a-secret-of-the-customer"}
    made = await here.admin.post("/v1/instances", {"name": "k", "product": "kinto", "parameters": given}, key="kinto")
    assert made.status == 202, made.body

    instance = await here.instance("k")

    assert instance["parameters"]["db_password"] == {"secret": True, "version": 1}
    assert instance["parameters"]["hmac_secret"] == {"secret": True, "version": 1}
    assert instance["parameters"]["project_name"] == "Kinto"
    secrets = await here.api.as_admin("SELECT * FROM secrets ORDER BY name")
    opened = {
        row["name"]: here.api.keys.keyring.open(
            Sealed(row["key_id"], row["ciphertext"]), Context("secrets", instance["id"], row["name"])
        ).decode()
        for row in secrets
    }
    assert opened["db_password"] == given["db_password"]
    assert re.fullmatch("[0-9a-f]{64}", opened["hmac_secret"])
    for table in ("instances", "jobs", "audit", "events", "idempotency_keys", "steps"):
        text = str(await here.api.as_admin(f"SELECT to_jsonb(t)::text FROM {table} t"))
        assert not any(secret in text for secret in opened.values()), table


async def test_outputs_for_operators_are_shown_to_administrators_alone(here: Vendor) -> None:
    await here.running()
    made = await here.admin.post("/v1/tokens", {"name": "dashboard", "scopes": ["read"]})
    reader = here.api.caller(made.body["token"])
    assert (await here.instance())["outputs"] == {"storage": "127.0.0.1:21044", "url": URL}
    assert (await reader.get("/v1/instances/acme")).body["outputs"] == {"url": URL}


# ---- asking twice


async def test_twenty_requests_at_once_under_one_key_are_one_job_and_get_equal_answers(here: Vendor) -> None:
    wish = {"name": "acme", "product": "hello"}
    answers = await asyncio.gather(*(here.admin.post("/v1/instances", wish, key="once") for _ in range(20)))
    assert {answer.status for answer in answers} == {202}
    assert len({json.dumps(answer.body, sort_keys=True) for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert (await here.count("jobs"), await here.count("instances")) == (1, 1)


async def test_a_repeat_gets_the_first_answer_however_far_the_job_is_and_another_body_is_refused(here: Vendor) -> None:
    wish = {"name": "acme", "product": "hello"}
    first = await here.admin.post("/v1/instances", wish, key="once")
    await here.hands.work()
    again = await here.admin.post("/v1/instances", wish, key="once")
    assert (again.status, again.body, again.headers["location"]) == (202, first.body, first.headers["location"])
    assert again.headers["idempotency-replayed"] == "true"
    other = await here.admin.post("/v1/instances", {**wish, "name": "other"}, key="once")
    assert (other.status, other.slug) == (422, "idempotency-key-reused")


async def heard(ask: Callable[[], Awaitable[Answered]]) -> Answered:
    """The answer of a caller that asks again when it is told that no connection got free in time."""
    while (answer := await ask()).status == 503:
        continue
    return answer


async def test_twenty_equal_puts_and_deletes_at_once_are_each_one_job(here: Vendor) -> None:
    wish = {"product": "hello"}
    puts = await asyncio.gather(
        *(heard(lambda: here.admin.put("/v1/instances/acme", wish, key="p")) for _ in range(20))
    )
    assert {(answer.status, answer.headers["location"]) for answer in puts} == {(202, puts[0].headers["location"])}
    await here.hands.work()
    deletes = await asyncio.gather(
        *(heard(lambda: here.admin.delete("/v1/instances/acme", key="d")) for _ in range(20))
    )
    assert {(answer.status, answer.headers["location"]) for answer in deletes} == {
        (202, deletes[0].headers["location"])
    }
    assert await here.count("jobs") == 2


async def test_a_request_that_was_refused_does_not_use_its_key_up(here: Vendor) -> None:
    await here.create("acme")
    taken = await here.admin.post("/v1/instances", {"name": "acme", "product": "hello"}, key="k")
    assert (taken.status, taken.slug) == (409, "not-allowed-now")
    free = await here.admin.post("/v1/instances", {"name": "other", "product": "hello"}, key="k")
    assert free.status == 202


# ---- PUT


async def test_a_put_makes_what_is_missing_and_leaves_alone_what_is_so_already(here: Vendor) -> None:
    wish = {"product": "hello", "parameters": {"greeting": "Salve"}, "labels": {"tier": "gold"}}
    made = await here.admin.put("/v1/instances/acme", wish, if_none_match="*")
    assert (made.status, made.body["operation"]) == (202, "create")
    await here.hands.work()
    for same in (
        wish,
        {"product": "hello"},
        {**wish, "release": "1.0.0", "plan": "default", "desired_state": "running"},
    ):
        again = await here.admin.put("/v1/instances/acme", same)
        assert (again.status, again.body) == (200, await here.instance()), same
    assert await here.count("jobs") == 1


@pytest.mark.parametrize(
    "change",
    [{"parameters": {"greeting": "Vale"}}, {"parameters": {}}, {"labels": {"a": "b"}}, {"desired_state": "stopped"},
     {"desired_state": "suspended"}, {"release": "2"}, {"plan": "large"}, {"target": "elsewhere"}],
)  # fmt: skip
async def test_a_put_that_would_change_an_instance_is_not_available_yet(here: Vendor, change: dict[str, Any]) -> None:
    await here.running(parameters={"greeting": "Salve"})
    refused = await here.admin.put("/v1/instances/acme", {"product": "hello", **change})
    assert (refused.status, refused.slug) == (409, "operation-not-available")
    assert await here.count("jobs") == 1


async def test_a_put_with_the_secret_that_is_there_changes_nothing(here: Vendor) -> None:
    await publish(here.admin, KINTO)
    wish = {"product": "kinto", "parameters": {"db_password": "swordfish-and-more"}}
    assert (await here.admin.put("/v1/instances/k", wish)).status == 202
    assert (await here.admin.put("/v1/instances/k", wish)).status == 200
    refused = await here.admin.put("/v1/instances/k", {**wish, "parameters": {"db_password": "another-password"}})
    assert pointers(refused) == ["/parameters/db_password"]
    assert "swordfish" not in json.dumps(refused.body)


async def test_preconditions_are_kept(here: Vendor) -> None:
    await here.running()
    path, wish = "/v1/instances/acme", {"product": "hello"}
    for refused in (
        await here.admin.put(path, wish, if_none_match="*"),
        await here.admin.put(path, wish, if_match='"7"'),
        await here.admin.put("/v1/instances/new", wish, if_match='"1"'),
        await here.admin.post(f"{path}:stop", if_match='"7"'),
        await here.admin.delete(path, if_match='"7"'),
    ):
        assert (refused.status, refused.slug) == (412, "precondition-failed")
    assert await here.count("jobs") == 1
    assert (await here.admin.put(path, wish, if_match='"1"')).status == 200
    assert (await here.admin.post(f"{path}:stop", if_match='"1"')).status == 202


async def test_a_put_on_what_never_came_to_be_or_was_deleted_says_what_to_do_first(here: Vendor) -> None:
    here.hands.fails = {"start-web": failing()}
    await here.create("broken")
    assert (await here.hands.work()).state is JobState.FAILED
    here.hands.fails = {}
    await here.running("gone")
    await here.act("delete", "gone")
    for name, verb in (("broken", "delete"), ("gone", "undelete")):
        refused = await here.admin.put(f"/v1/instances/{name}", {"product": "hello"})
        assert (refused.status, refused.slug) == (409, "not-allowed-now")
        assert f"spectrum instance {verb} {name}" in refused.body["detail"]


# ---- what is wrong


@pytest.mark.parametrize(
    ("wish", "where"),
    [({"product": "helo"}, "/product"), ({"release": "9"}, "/release"), ({"plan": "huge"}, "/plan"),
     ({"target": "mars"}, "/target"), ({"parameters": {"greting": "x"}}, "/parameters/greting"),
     ({"parameters": {"greeting": 7}}, "/parameters/greeting"), ({"parameters": {"greeting": "x" * 101}}, "/parameters/greeting"),
     ({"desired_state": "stopped"}, "/desired_state"), ({"desired_state": "asleep"}, "/desired_state"),
     ({"name": "Not A Label"}, "/name"), ({"lables": {}}, "/lables"), ({"labels": {"a b": "c"}}, "/labels/a b/[key]")],
)  # fmt: skip
async def test_every_mistake_is_told_with_its_place(here: Vendor, wish: dict[str, Any], where: str) -> None:
    refused = await here.admin.post("/v1/instances", {"name": "acme", "product": "hello", **wish})
    assert pointers(refused) == [where]
    assert await here.count("instances") == 0


async def test_without_a_target_named_local_one_has_to_be_named_among_several(here: Vendor) -> None:
    other = await here.api.administrator("other")
    await publish(other, KINTO)
    wish = {"name": "acme", "product": "kinto"}
    assert "no target" in (await other.post("/v1/instances", wish)).body["detail"]
    for name in ("east", "west"):
        await other.post("/v1/targets", {"name": name, "url": "process:///srv"})
    refused = await other.post("/v1/instances", wish)
    assert pointers(refused) == ["/target"]
    assert refused.body["errors"][0]["hint"] == "Known here: east, west."
    assert (await other.post("/v1/instances", {**wish, "target": "west"})).status == 202


async def test_a_release_that_does_not_run_on_the_target_is_refused(here: Vendor) -> None:
    await here.admin.post("/v1/targets", {"name": "cluster", "url": "kubernetes://somewhere"})
    refused = await here.admin.post("/v1/instances", {"name": "acme", "product": "hello", "target": "cluster"})
    assert pointers(refused) == ["/target"]


async def test_what_this_version_can_not_do_yet_says_so(here: Vendor) -> None:
    await here.running()
    suspended = {"name": "b", "product": "hello", "desired_state": "suspended"}
    for refused in (
        await here.admin.post("/v1/instances/acme:upgrade"),
        await here.admin.post("/v1/instances/acme:backup"),
        await here.admin.post("/v1/instances", suspended),
    ):
        assert (refused.status, refused.slug) == (409, "operation-not-available")


async def test_unknown_names_are_not_found(here: Vendor) -> None:
    for missing in (
        await here.admin.get("/v1/instances/nobody"),
        await here.admin.post("/v1/instances/nobody:start"),
        await here.admin.delete("/v1/instances/nobody"),
        await here.admin.get("/v1/jobs?instance=nobody"),
    ):
        assert (missing.status, missing.slug) == (404, "not-found")


# ---- a life


async def test_an_instance_lives_from_create_to_purge(here: Vendor) -> None:
    instance = await here.running()
    assert allowed(instance) == {"stop", "restart", "delete"}
    refusals = {action["verb"]: action["reason"] for action in instance["actions"]}
    assert (refusals["undelete"], refusals["start"], refusals["stop"]) == ("not_deleted", "not_stopped", None)
    assert refusals["resolve"] == "not_on_hold"

    stopped = await here.act("stop")
    assert (stopped["lifecycle"], stopped["desired_state"], stopped["generation"]) == ("stopped", "stopped", 2)
    assert allowed(stopped) == {"start", "delete"}
    started = await here.act("start")
    assert (started["lifecycle"], started["desired_state"], started["generation"]) == ("running", "running", 3)
    restarted = await here.act("restart")
    assert (restarted["lifecycle"], restarted["generation"]) == ("running", 3)

    deleted = await here.act("delete")
    assert (deleted["lifecycle"], allowed(deleted)) == ("deleted", {"undelete", "purge"})
    back = await here.act("undelete")
    assert (back["lifecycle"], back["deleted_at"], back["purge_at"]) == ("running", None, None)

    await here.act("delete")
    purged = await here.act("purge")
    assert (purged["lifecycle"], allowed(purged)) == ("purged", set())
    assert (purged["endpoints"], purged["outputs"], purged["services"]) == ([], {}, [])


async def test_a_deleted_instance_is_kept_as_long_as_its_release_says(here: Vendor) -> None:
    await publish(here.admin, KINTO)
    await here.running("k", product="kinto")
    deleted = sdk.Instance.model_validate(await here.act("delete", "k"))
    assert deleted.deleted_at is not None and deleted.purge_at is not None
    assert (deleted.purge_at - deleted.deleted_at).days == 7


async def test_a_purged_instance_is_found_by_its_id_alone_and_its_name_is_free(here: Vendor) -> None:
    first = await here.running()
    await here.act("delete")
    await here.act("purge")
    assert (await here.admin.get("/v1/instances/acme")).status == 404
    assert (await here.admin.get("/v1/instances")).body["items"] == []
    assert [i["id"] for i in (await here.admin.get("/v1/instances?lifecycle=purged")).body["items"]] == [first["id"]]
    second = await here.running()
    assert second["id"] != first["id"]
    assert (await here.instance())["id"] == second["id"]
    assert (await here.instance(first["id"]))["lifecycle"] == "purged"
    jobs = (await here.admin.get(f"/v1/jobs?instance={first['id']}")).body["items"]
    assert [job["operation"] for job in jobs] == ["purge", "delete", "create"]


async def test_what_is_not_possible_in_this_state_is_refused(here: Vendor) -> None:
    await here.running()
    for verb in ("start", "undelete", "purge", "resolve"):
        refused = await here.admin.post(f"/v1/instances/acme:{verb}")
        assert (refused.status, refused.slug) == (409, "not-allowed-now")
    assert (await here.instance())["generation"] == 1


async def test_a_resolve_of_what_nothing_is_wrong_with_says_so(here: Vendor) -> None:
    await here.running()
    for path in ("/v1/instances/acme:resolve", "/v1/instances/acme:resolve?dry_run=true"):
        refused = await here.admin.post(path)
        assert (refused.status, refused.slug, refused.body["hold"]) == (409, "not-allowed-now", "none")
        assert "acme is not on hold" in refused.body["detail"]


async def test_a_stop_that_is_called_off_leaves_what_was_accepted(here: Vendor) -> None:
    await here.running()
    stop = await here.admin.post("/v1/instances/acme:stop")
    await here.admin.post(f"/v1/jobs/{stop.body['id']}:cancel")
    instance = await here.instance()
    assert (instance["desired_state"], instance["lifecycle"]) == ("running", "running")
    assert (instance["generation"], instance["accepted_generation"]) == (2, 1)


async def test_a_second_delete_is_answered_by_the_job_of_the_first(here: Vendor) -> None:
    await here.running()
    first = await here.admin.delete("/v1/instances/acme")
    second = await here.admin.delete("/v1/instances/acme")
    assert (second.status, second.headers["location"]) == (202, first.headers["location"])


async def test_what_failed_leaves_a_quarantined_instance_whose_only_ways_out_are_offered(here: Vendor) -> None:
    await here.running()
    instance = await here.instance()
    await here.api.as_admin(
        "UPDATE instances SET hold = 'quarantined', version = version + 1 WHERE id = $1", instance["id"]
    )
    held = await here.instance()
    assert allowed(held) == {"delete", "resolve"}
    assert next(a["reason"] for a in held["actions"] if a["verb"] == "stop") == "quarantined"
    refused = await here.admin.post("/v1/instances/acme:stop")
    assert (refused.slug, refused.body["hold"]) == ("not-allowed-now", "quarantined")
    assert (await here.act("resolve"))["hold"] == "none"


# ---- a dry run


async def test_a_dry_run_says_the_plan_of_the_real_run_and_writes_nothing(here: Vendor) -> None:
    wish = {"name": "acme", "product": "hello"}
    dry = await here.admin.post("/v1/instances?dry_run=true", wish, key="k")
    plan = models.Plan.model_validate(dry.body)
    assert dry.status == 200
    assert [await here.count(table) for table in ("instances", "jobs", "secrets")] == [0, 0, 0]

    real = await here.admin.post("/v1/instances", wish, key="k")

    assert (real.status, real.body["plan_hash"]) == (202, plan.plan_hash)
    assert [step["name"] for step in real.body["steps"]] == [step.name for step in plan.steps]
    assert sdk.Plan.model_validate(dry.body).operation == "create"


async def test_a_dry_run_under_the_key_of_a_real_run_is_another_request_and_a_wait_is_not(here: Vendor) -> None:
    wish = {"name": "acme", "product": "hello"}
    real = await here.admin.post("/v1/instances", wish, key="k")
    dry = await here.admin.post("/v1/instances?dry_run=true", wish, key="k")
    assert (dry.status, dry.slug) == (422, "idempotency-key-reused")
    again = await here.admin.post("/v1/instances?wait=1ms", wish, key="k")
    assert (again.status, again.body) == (202, real.body)


async def test_a_dry_run_of_each_verb_says_its_plan_or_why_it_is_refused(here: Vendor) -> None:
    await here.running()
    path = "/v1/instances/acme"
    stop = await here.admin.post(f"{path}:stop?dry_run=true")
    assert (stop.status, [step["name"] for step in stop.body["steps"]]) == (200, ["stop-web", "verify"])
    assert (await here.admin.delete(f"{path}?dry_run=true")).body["operation"] == "delete"
    assert (await here.admin.put(f"{path}?dry_run=true", {"product": "hello"})).body["operation"] == "none"
    refused = await here.admin.post(f"{path}:start?dry_run=true")
    assert (refused.status, refused.slug) == (409, "not-allowed-now")
    taken = await here.admin.post("/v1/instances?dry_run=true", {"name": "acme", "product": "hello"})
    assert (taken.status, taken.slug) == (409, "not-allowed-now")
    assert await here.count("jobs") == 1


async def test_a_dry_run_behind_another_job_says_the_plan_as_it_is_now(here: Vendor) -> None:
    await here.running()
    stop = await here.admin.post("/v1/instances/acme:stop")
    start = await here.admin.post("/v1/instances/acme:start?dry_run=true")
    assert [step["name"] for step in start.body["steps"]] == ["start-web", "verify"]
    assert (await here.instance())["active_job_id"] == stop.body["id"]


# ---- lists


async def names(caller: Caller, query: str) -> list[str]:
    found = await caller.get(f"/v1/instances?{query}")
    assert found.status == 200, found.body
    return [instance["name"] for instance in found.body["items"]]


async def test_lists_are_filtered(here: Vendor) -> None:
    await publish(here.admin, KINTO)
    await here.running("acme-1", labels={"tier": "gold", "zone": "a"})
    await here.running("acme-2", labels={"tier": "gold"})
    await here.running("beta", product="kinto", plan="large")
    await here.act("stop", "acme-2")
    found = {
        "product=hello": ["acme-1", "acme-2"],
        "release=26.5.0": ["beta"],
        "plan=large": ["beta"],
        "target=local": ["acme-1", "acme-2", "beta"],
        "target=elsewhere": [],
        "lifecycle=stopped": ["acme-2"],
        "hold=quarantined": [],
        "health=healthy&product=kinto": ["beta"],
        "label=tier=gold": ["acme-1", "acme-2"],
        "label=tier=gold&label=zone=a": ["acme-1"],
        "name_prefix=acme-": ["acme-1", "acme-2"],
        "name_prefix=%25": [],
    }
    assert {query: await names(here.admin, query) for query in found} == found
    for wrong in ("label=tier", "lifecycle=asleep", "produkt=hello"):
        assert (await here.admin.get(f"/v1/instances?{wrong}")).slug == "invalid-parameter"


async def test_lists_go_page_by_page(here: Vendor) -> None:
    for name in ("a", "b", "c"):
        await here.create(name)
    first = await here.admin.get("/v1/instances?limit=2")
    rest = await here.admin.get(f"/v1/instances?limit=2&cursor={first.body['next_cursor']}")
    assert [i["name"] for i in first.body["items"] + rest.body["items"]] == ["a", "b", "c"]
    jobs = await here.admin.get("/v1/jobs?limit=2")
    more = await here.admin.get(f"/v1/jobs?limit=2&cursor={jobs.body['next_cursor']}")
    assert [j["subject"]["name"] for j in jobs.body["items"] + more.body["items"]] == ["c", "b", "a"]
    assert (rest.body["next_cursor"], more.body["next_cursor"]) == (None, None)


async def test_another_organization_sees_and_changes_nothing(here: Vendor) -> None:
    instance = await here.running()
    job = (await here.admin.get("/v1/jobs")).body["items"][0]
    other = await here.api.administrator("other")
    assert (await other.get("/v1/instances")).body["items"] == []
    assert (await other.get("/v1/jobs")).body["items"] == []
    for missing in (
        await other.get("/v1/instances/acme"),
        await other.get(f"/v1/instances/{instance['id']}"),
        await other.post(f"/v1/instances/{instance['id']}:stop"),
        await other.delete(f"/v1/instances/{instance['id']}"),
        await other.get(f"/v1/jobs/{job['id']}"),
        await other.get(f"/v1/jobs/{job['id']}/why"),
        await other.post(f"/v1/jobs/{job['id']}:cancel"),
    ):
        assert (missing.status, missing.slug) == (404, "not-found")
    assert pointers(await other.post("/v1/instances", {"name": "x", "product": "hello"})) == ["/product"]
    assert (await here.instance())["lifecycle"] == "running"

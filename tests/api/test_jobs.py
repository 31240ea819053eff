"""Jobs through the API: waited for, explained, called off."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from spectrum.api import models
from spectrum.core.errors import ErrorClass
from spectrum.core.jobs.commands import Release
from spectrum.core.jobs.table import JobState, WaitsFor
from spectrum.sdk import models as sdk
from tests.api.vendor import Vendor, failing
from tests.db.rows import make_id

pytestmark = pytest.mark.anyio


async def why(here: Vendor, job: dict[str, Any]) -> models.Why:
    body = (await here.admin.get(f"/v1/jobs/{job['id']}/why")).body
    assert sdk.Why.model_validate(body).summary == body["summary"]
    return models.Why.model_validate(body)


async def job_of(here: Vendor, job: dict[str, Any]) -> models.Job:
    return models.Job.model_validate((await here.admin.get(f"/v1/jobs/{job['id']}")).body)


# ---- waiting


async def test_a_wait_is_answered_when_the_job_ends(here: Vendor) -> None:
    made = await here.create()
    waiting = asyncio.gather(
        here.admin.get(f"/v1/jobs/{made.body['id']}?wait=1m"),
        here.admin.post("/v1/instances", {"name": "acme", "product": "hello"}, key="again"),
    )
    await here.hands.work()
    ended, refused = await waiting
    assert (ended.body["state"], ended.body["done"]) == ("succeeded", True)
    assert refused.slug == "not-allowed-now"


async def test_a_change_that_waits_is_answered_by_the_job_as_it_ended(here: Vendor) -> None:
    await here.running()
    with here.api.plane.wakeups.listening(here.hands.caller.pool_id) as submitted:
        asking = asyncio.ensure_future(here.admin.post("/v1/instances/acme:stop?wait=1m"))
        await submitted
    await here.hands.work()
    asked = await asking
    assert (asked.status, asked.body["state"]) == (202, "succeeded")
    assert asked.headers["location"] == f"/v1/jobs/{asked.body['id']}"


async def test_every_fact_of_a_job_carries_the_trace_of_the_request_that_asked_for_it(here: Vendor) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    spec = {"name": "acme", "product": "hello"}
    await here.admin.post("/v1/instances", spec, traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    await here.hands.work()

    rows = await here.api.as_admin("SELECT traceparent FROM events WHERE data ? 'job_id'")

    assert len(rows) >= 4
    assert {row["traceparent"].split("-")[1] for row in rows} == {trace}


async def test_a_wait_that_is_over_shows_the_job_as_it_is(here: Vendor) -> None:
    made = await here.create()
    looked = await here.admin.get(f"/v1/jobs/{made.body['id']}?wait=10ms")
    assert (looked.status, looked.body["state"]) == (200, "ready")


# ---- cancelling


async def test_a_job_that_nobody_has_touched_is_cancelled_at_once(here: Vendor) -> None:
    made = await here.create()
    path = f"/v1/jobs/{made.body['id']}:cancel"
    first = await here.admin.post(path, key="c")
    assert (first.status, first.body["state"]) == (202, "cancelled")
    assert first.headers["location"] == f"/v1/jobs/{made.body['id']}"
    again = await here.admin.post(path, key="c")
    assert (again.body, again.headers["idempotency-replayed"]) == (first.body, "true")
    late = await here.admin.post(path)
    assert (late.status, late.slug) == (409, "not-allowed-now")
    assert (await here.instance())["lifecycle"] == "failed"


async def test_a_running_job_is_cancelling_until_its_worker_lets_go_and_is_then_undone(here: Vendor) -> None:
    made = await here.create()
    held = await here.hands.step(await here.hands.take())  # stock is under way
    held = await here.hands.step(held)  # the base too: something is to be undone
    asked = await here.admin.post(f"/v1/jobs/{made.body['id']}:cancel")
    assert (asked.status, asked.body["state"], asked.body["waiting"]["for"]) == (202, "cancelling", "lease")
    assert asked.body["worker_id"] == here.hands.caller.worker_id
    assert [a["outcome"] for a in asked.body["steps"][0]["attempts"]] == ["done"]
    assert "lets go of it" in (await why(here, made.body)).summary

    ended = await here.hands.finish(held)

    assert ended.state is JobState.CANCELLED
    job = await job_of(here, made.body)
    assert (job.state, job.residue) == ("cancelled", [])
    assert {attempt.phase for step in job.steps for attempt in step.attempts} == {"do", "undo"}
    assert (await why(here, made.body)).summary == "It was cancelled, because somebody asked for it."


async def test_an_unknown_job_is_not_found(here: Vendor) -> None:
    unknown = make_id("job")
    for missing in (
        await here.admin.get(f"/v1/jobs/{unknown}"),
        await here.admin.get(f"/v1/jobs/{unknown}/why"),
        await here.admin.post(f"/v1/jobs/{unknown}:cancel"),
    ):
        assert (missing.status, missing.slug) == (404, "not-found")


# ---- why


async def test_a_waiting_job_says_its_place_and_who_is_before_it(here: Vendor) -> None:
    await here.running()
    stop = (await here.admin.post("/v1/instances/acme:stop")).body
    queue = [(await here.admin.post("/v1/instances/acme:restart")).body for _ in range(2)]
    told = await why(here, queue[1])
    assert told.state == "waiting" and told.waiting is not None
    assert (told.waiting.reason, told.waiting.position, told.waiting.holder) == ("queue", 2, stop["id"])
    assert told.waiting.until > told.waiting.since
    assert stop["id"] in told.waiting.unblock
    assert told.summary == f"It is number 2 in the queue of acme behind {stop['id']}."
    delete = (await here.admin.delete("/v1/instances/acme")).body
    assert (await why(here, queue[1])).state == "waiting" and delete["operation"] == "delete"
    waiting = (await here.admin.get("/v1/jobs?instance=acme&state=waiting&operation=restart")).body["items"]
    assert [job["waiting"]["position"] for job in waiting] == [2, 1]


async def test_a_ready_job_says_that_it_waits_for_a_worker_or_for_a_brake(here: Vendor) -> None:
    made = (await here.create()).body
    told = await why(here, made)
    assert told.waiting is not None and told.waiting.reason == "worker"
    assert told.summary == "It is ready, and waits for a worker of its pool."
    brake = make_id("brk")
    await here.api.as_admin(
        "INSERT INTO brakes (id, organization_id, reach, reason, actor, pulled_at)"
        " SELECT $1, id, 'organization', 'too much looks broken', 'tester', now() FROM organizations WHERE name = 'acme'",
        brake,
    )
    told = await why(here, made)
    assert told.waiting is not None
    assert (told.waiting.reason, told.waiting.holder) == ("brake", brake)
    assert told.summary == f"The brake {brake} is on: too much looks broken."


async def test_a_running_job_says_which_steps_are_open_and_what_they_met(here: Vendor) -> None:
    made = (await here.create()).body
    here.hands.fails = {"stock": failing(ErrorClass.TRANSIENT)}
    held = await here.hands.step(await here.hands.take())
    assert (await why(here, made)).steps[0].state == "running"
    await here.hands.step(held)
    told = await why(here, made)
    (step,) = told.steps
    assert (step.name, step.state, step.attempts) == ("stock", "retrying", 1)
    assert step.error is not None and step.error.message == "The service ended."
    assert told.waiting is not None
    assert (told.waiting.reason, told.waiting.until) == ("retry", step.retry_at)
    assert "Step stock is retrying (attempt 1), tried again at" in told.summary


async def test_a_released_job_says_until_when(here: Vendor) -> None:
    made = (await here.create()).body
    held = await here.hands.take()
    await here.api.plane.dispatch.release(
        Release(
            id="r",
            instance_id=held.instance.id,
            organization_id=held.job.organization_id,
            actor="tester",
            job_id=held.job.id,
            lease_id=here.hands.lease.id,
            pool_id=here.hands.caller.pool_id,
            fence=held.job.fence,
            until=held.at + timedelta(hours=1),
            why=WaitsFor.BREAKER,
        )
    )
    told = await why(here, made)
    assert told.waiting is not None and told.waiting.reason == "breaker"
    assert told.summary.startswith("It waits for breaker until ")


async def test_a_failed_job_says_why_with_its_evidence_and_keeps_the_inside_to_itself(here: Vendor) -> None:
    made = (await here.create()).body
    here.hands.fails = {"start-web": failing()}
    assert (await here.hands.work()).state is JobState.FAILED
    told = await why(here, made)
    assert told.summary == "It has failed, because Step start-web: The service ended."
    assert told.error is not None
    assert (told.error.code, told.error.actor, told.error.evidence) == ("exit-1", "vendor", ["no such file"])
    assert told.error.next == f"spectrum job show {made['id']}"
    body = (await here.admin.get(f"/v1/jobs/{made['id']}")).body
    assert "inside" not in str(body)
    assert (await here.instance())["lifecycle"] == "failed"


async def test_time_in_which_a_target_was_down_moves_the_deadline_that_is_shown(here: Vendor) -> None:
    made = (await here.create()).body
    before = await job_of(here, made)
    await here.api.as_admin("UPDATE targets SET down_total = '10 minutes'")
    after = await job_of(here, made)
    assert before.deadline is not None and after.deadline is not None
    assert after.deadline - before.deadline == timedelta(minutes=10)


async def test_a_reader_may_look_and_not_cancel(here: Vendor) -> None:
    made = (await here.create()).body
    token = (await here.admin.post("/v1/tokens", {"name": "dashboard", "scopes": ["read"]})).body["token"]
    reader = here.api.caller(token)
    assert (await reader.get(f"/v1/jobs/{made['id']}")).status == 200
    refused = await reader.post(f"/v1/jobs/{made['id']}:cancel")
    assert (refused.status, refused.slug) == (403, "forbidden")

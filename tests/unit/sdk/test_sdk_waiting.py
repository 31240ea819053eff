"""Waiting for a job outlives what happens to the server meanwhile, and ends when it should."""

from __future__ import annotations

import threading

import pytest

from spectrum.sdk import Client, JobFailed, WaitTimeout
from spectrum.sdk.errors import ExitCode
from tests.canned import JOB_ID, Canned, Reply, instance, job, problem

JOB = f"/v1/jobs/{JOB_ID}"


def test_a_job_is_waited_for_by_long_polls() -> None:
    with Canned() as server, Client(server.url) as client:
        server.on("GET", JOB, Reply(200, job("running")), Reply(200, job("succeeded")))
        assert client.jobs.wait(JOB_ID).state == "succeeded"
        assert [request.query.get("wait") for request in server.requests] == [None, "30s"]


def test_a_server_that_restarts_is_waited_for() -> None:
    with Canned() as first:
        port = first.port
        first.on("GET", JOB, Reply(200, job("running")), Reply(drop=True))
        found: list[str] = []
        with Client(first.url) as client:
            waiter = threading.Thread(target=lambda: found.append(client.jobs.wait(JOB_ID).state))
            waiter.start()
            first.await_request("GET", JOB, 2)
            first.__exit__(None, None, None)
            with Canned(port) as second:
                second.on("GET", JOB, problem(503, "unavailable", "Starting."), Reply(200, job("succeeded")))
                waiter.join(30.0)
    assert found == ["succeeded"]


def test_a_poll_that_is_answered_late_is_not_given_up() -> None:
    gate = threading.Event()
    with Canned() as server, Client(server.url) as client:
        server.on("GET", JOB, Reply(200, job("running")), Reply(200, job("succeeded"), gate=gate))
        found: list[str] = []
        waiter = threading.Thread(target=lambda: found.append(client.jobs.wait(JOB_ID).state))
        waiter.start()
        server.await_request("GET", JOB, 2)
        gate.set()
        waiter.join(20.0)
    assert found == ["succeeded"]


def test_changes_are_told_and_once_that_there_is_none() -> None:
    with Canned() as server, Client(server.url) as client:
        same = Reply(200, job("running"))
        server.on("GET", JOB, same, same, same, Reply(200, job("running", version=4)), Reply(200, job("succeeded")))
        told = [each.version for each in client.jobs.follow(JOB_ID, interval=0.01)]
    assert told == [3, 3, 4, 3]


def test_a_failed_job_is_an_error_with_its_next_command() -> None:
    failure = {
        "class": "invalid",
        "code": "x",
        "message": "Port taken.",
        "evidence": ["bind: in use"],
        "next": "do this",
    }
    with Canned() as server, Client(server.url) as client:
        server.on("GET", JOB, Reply(200, job("failed", error=failure)))
        with pytest.raises(JobFailed, match="Port taken") as caught:
            client.jobs.wait(JOB_ID)
    assert caught.value.exit_code is ExitCode.JOB_FAILED
    assert caught.value.hint == "do this"


def test_a_job_that_left_something_behind_is_told_apart() -> None:
    with Canned() as server, Client(server.url) as client:
        server.on("GET", JOB, Reply(200, job("failed", residue=["db/volume"])))
        with pytest.raises(JobFailed) as caught:
            client.jobs.wait(JOB_ID)
    assert caught.value.exit_code is ExitCode.QUARANTINED


def test_the_wait_ends_in_time_and_the_job_goes_on() -> None:
    with Canned() as server, Client(server.url) as client:
        server.on("GET", JOB, Reply(200, job("running")))
        with pytest.raises(WaitTimeout, match="it goes on") as caught:
            client.jobs.wait(JOB_ID, timeout=0.05)
    assert caught.value.exit_code is ExitCode.TIMEOUT
    assert JOB_ID in caught.value.hint


def test_a_job_that_is_not_there_is_told_at_once() -> None:
    with Canned() as server, Client(server.url) as client:
        with pytest.raises(Exception, match="There is no"):
            client.jobs.wait(JOB_ID)
        assert len(server.requests) == 1


def test_an_instance_is_waited_for_through_its_job_until_it_is_healthy() -> None:
    with Canned() as server, Client(server.url) as client:
        server.on("GET", JOB, Reply(200, job("succeeded")))
        server.on(
            "GET",
            "/v1/instances/acme",
            Reply(200, instance(lifecycle="creating", active_job_id=JOB_ID)),
            Reply(200, instance(health="unknown")),
            Reply(200, instance()),
        )
        assert client.instances.wait("acme", interval=0.01).health == "healthy"


def test_a_quarantined_instance_is_not_waited_for_for_ever() -> None:
    with Canned() as server, Client(server.url) as client:
        server.on("GET", "/v1/instances/acme", Reply(200, instance(hold="quarantined", health="unhealthy")))
        assert client.instances.wait("acme").hold == "quarantined"

"""A call is answered once, however often it has to be sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from spectrum.sdk import Client, ClientError, ProblemError, Unreachable
from spectrum.sdk.errors import ExitCode
from tests.canned import JOB_ID, TOKEN, Canned, Reply, instance, job, problem

KINTO = {"product": "kinto"}


@pytest.fixture
def server() -> Iterator[Canned]:
    with Canned() as canned:
        yield canned


@pytest.fixture
def client(server: Canned) -> Iterator[Client]:
    with Client(server.url, TOKEN, patience=10.0) as client:
        yield client


def test_a_lost_answer_is_asked_for_again_under_the_same_key(server: Canned, client: Client) -> None:
    server.on("POST", "/v1/instances", Reply(drop=True), Reply(202, job()))
    assert client.instances.create("acme", KINTO).id == JOB_ID
    first, second = server.of("POST", "/v1/instances")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.body == second.body == {"name": "acme", "product": "kinto"}


def test_two_calls_have_two_keys(server: Canned, client: Client) -> None:
    server.on("POST", "/v1/instances", Reply(202, job()))
    client.instances.create("acme", KINTO)
    client.instances.create("acme", KINTO)
    first, second = server.of("POST", "/v1/instances")
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_a_key_of_the_callers_own_is_used(server: Canned, client: Client) -> None:
    server.on("DELETE", "/v1/instances/acme", Reply(202, job()))
    client.instances.delete("acme", key="mine")
    assert server.requests[0].headers["idempotency-key"] == "mine"


def test_reading_carries_no_key_and_the_token(server: Canned, client: Client) -> None:
    server.on("GET", "/v1/instances/acme", Reply(200, instance()))
    client.instances.get("acme")
    assert "idempotency-key" not in server.requests[0].headers
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_what_can_be_done_to_an_instance_is_for_the_server_to_say(server: Canned, client: Client) -> None:
    server.on("POST", "/v1/instances/acme:resize", problem(409, "operation-not-available", "Not in this version."))
    with pytest.raises(ProblemError, match="Not in this version"):
        client.instances.act("resize", "acme")


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_says_later_is_asked_later(server: Canned, client: Client, status: int) -> None:
    later = problem(status, "unavailable", "Later.", headers={"retry-after": "0"})
    server.on("GET", "/v1/instances/acme", later, later, Reply(200, instance()))
    assert client.instances.get("acme").name == "acme"
    assert len(server.requests) == 3


def test_retry_after_may_be_a_date(server: Canned, client: Client) -> None:
    past = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)
    later = problem(503, "unavailable", "Later.", headers={"retry-after": past})
    server.on("GET", "/v1/instances/acme", later, Reply(200, instance()))
    assert client.instances.get("acme").name == "acme"


def test_a_wait_longer_than_our_patience_is_told_at_once(server: Canned, client: Client) -> None:
    server.on("GET", "/v1/jobs/x", problem(503, "unavailable", "Maintenance.", headers={"retry-after": "3600"}))
    with pytest.raises(ProblemError) as caught:
        client.jobs.get("x")
    assert caught.value.retry_after == 3600
    assert len(server.requests) == 1


def test_a_no_is_not_asked_again(server: Canned, client: Client) -> None:
    server.on("POST", "/v1/instances", problem(409, "instance-busy", "Its queue is full."))
    with pytest.raises(ProblemError) as caught:
        client.instances.create("acme", KINTO)
    assert len(server.requests) == 1
    assert caught.value.slug == "instance-busy"
    assert caught.value.exit_code is ExitCode.CONFLICT


def test_a_problem_keeps_its_places_and_its_request(server: Canned, client: Client) -> None:
    place = {"file": "compose.yaml", "line": 4, "pointer": "/services/web", "message": "no image", "hint": "Add one."}
    answer = problem(422, "invalid-product", "One mistake.", errors=[place], request_id="req_1", colour="blue")
    server.on("POST", "/v1/products/kinto/releases", answer)
    with pytest.raises(ProblemError) as caught:
        client.products.publish("kinto", "compose.yaml", {"compose.yaml": "…"})
    error = caught.value
    assert (error.errors[0].file, error.errors[0].line, error.errors[0].hint) == ("compose.yaml", 4, "Add one.")
    assert error.request_id == "req_1"
    assert error.extra == {"colour": "blue"}


@pytest.mark.parametrize(
    ("status", "slug", "code"),
    [
        (400, "malformed", ExitCode.ERROR),
        (401, "unauthenticated", ExitCode.NOT_ALLOWED),
        (403, "forbidden", ExitCode.NOT_ALLOWED),
        (404, "not-found", ExitCode.NOT_FOUND),
        (409, "operation-not-available", ExitCode.CONFLICT),
        (412, "precondition-failed", ExitCode.CONFLICT),
        (422, "idempotency-key-reused", ExitCode.CONFLICT),
        (422, "invalid-parameter", ExitCode.ERROR),
        (500, "internal", ExitCode.ERROR),
    ],
)
def test_every_problem_has_its_exit_code(
    server: Canned, client: Client, status: int, slug: str, code: ExitCode
) -> None:
    server.on("GET", "/v1/jobs/x", problem(status, slug, "No."))
    with pytest.raises(ProblemError) as caught:
        client.jobs.get("x")
    assert caught.value.exit_code is code


def test_nobody_there_is_told_with_the_url() -> None:
    with Canned() as gone:
        url = gone.url
    with Client(url, patience=0.01) as client, pytest.raises(Unreachable, match=url):
        client.instances.get("acme")


def test_something_else_at_the_url_is_told() -> None:
    with Canned() as server:
        server.on("GET", "/v1/jobs/x", lambda _: Reply(200, None, lines=("no", "json")))
        with Client(server.url) as client, pytest.raises(Unreachable, match="not as SPECTRUM does"):
            client.jobs.get("x")


def test_a_token_is_never_sent_unencrypted_to_another_machine() -> None:
    with pytest.raises(ClientError, match="unencrypted"):
        Client("http://spectrum.example.com", TOKEN)


def test_a_url_without_a_scheme_is_refused() -> None:
    with pytest.raises(ClientError, match="not the URL of a server"):
        Client("spectrum.example.com")


def test_a_list_reads_page_after_page_and_only_as_far_as_wanted(server: Canned, client: Client) -> None:
    server.on(
        "GET",
        "/v1/instances",
        Reply(200, {"items": [instance(name="a"), instance(name="b")], "next_cursor": "2"}),
        Reply(200, {"items": [instance(name="c")], "next_cursor": None}),
    )
    found = client.instances.list(product="kinto")
    assert next(found).name == "a"
    assert len(server.requests) == 1
    assert [each.name for each in found] == ["b", "c"]
    assert [request.query.get("cursor") for request in server.requests] == [None, "2"]
    assert {request.query["product"] for request in server.requests} == {"kinto"}


def test_what_a_newer_server_adds_is_kept(server: Canned, client: Client) -> None:
    server.on("GET", "/v1/instances/acme", Reply(200, instance(lifecycle="hibernating")))
    found = client.instances.get("acme")
    assert found.lifecycle == "hibernating"
    assert found.as_json() == instance(lifecycle="hibernating")


def test_a_job_that_only_location_names_is_fetched(server: Canned, client: Client) -> None:
    server.on("POST", "/v1/instances/acme:stop", Reply(202, None, {"location": f"/v1/jobs/{JOB_ID}"}))
    server.on("GET", f"/v1/jobs/{JOB_ID}", Reply(200, job()))
    assert client.instances.stop("acme").id == JOB_ID


def test_applying_what_is_already_so_gives_no_job(server: Canned, client: Client) -> None:
    server.on("PUT", "/v1/instances/acme", Reply(200, instance()))
    assert client.instances.apply("acme", KINTO, generation=3) is None
    assert server.requests[0].headers["if-match"] == '"3"'


def test_log_lines_are_read_as_they_come(server: Canned, client: Client) -> None:
    lines = ({"at": "2026-11-23T10:00:00Z", "service": "web", "stream": "stdout", "text": "hello"}, {"text": "bye"})
    server.on("GET", "/v1/instances/acme/logs", Reply(200, lines=lines))
    assert [line.text for line in client.instances.logs("acme", service="web", follow=True)] == ["hello", "bye"]
    assert server.requests[0].query == {"service": "web", "follow": "true"}


def test_one_client_serves_several_threads(server: Canned, client: Client) -> None:
    server.on("GET", "/v1/instances/acme", Reply(200, instance()))
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(client.instances.get("acme").name)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert names == ["acme"] * 8

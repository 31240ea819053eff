"""Watching events: each once and in order, over as many connections as it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import pytest

from spectrum.sdk import Client, ClientError, ProblemError, Unreachable, resources
from tests.canned import TOKEN, Canned, Reply, problem

PATH = "/v1/stream"


def event(position: int) -> str:
    data = {
        "id": f"evt_{position}",
        "type": "io.spectrum.job.failed.v1",
        "position": position,
        "data": {"step": "a\u2028b"},
    }
    return f"id: {position}\ndata: {json.dumps(data)}\n\n"


def stream(*positions: int, head: str = "retry: 10\nid: 0\n\n", tail: str = "") -> Reply:
    return Reply(200, text=head + "".join(map(event, positions)) + tail, headers={"content-type": "text/event-stream"})


@pytest.fixture
def server() -> Iterator[Canned]:
    with Canned() as canned:
        yield canned


@pytest.fixture
def client(server: Canned) -> Iterator[Client]:
    with Client(server.url, TOKEN) as client:
        yield client


def test_a_stream_that_ends_is_asked_for_again_with_the_last_id(server: Canned, client: Client) -> None:
    server.on("GET", PATH, stream(7, 8), stream(9, head="id: 12\n\n: nothing\n\n"), stream(head=""), stream(13))
    watched = client.events.watch(after=6, instance="acme", types=["io.spectrum.job", "io.spectrum.step"])
    assert [each.position for each in islice(watched, 4)] == [7, 8, 9, 13]
    asked = server.of("GET", PATH)
    assert [request.headers.get("last-event-id") for request in asked] == [None, "8", "9", "9"]
    assert asked[0].headers["accept"] == "text/event-stream"
    assert asked[3].query == {"after": "6", "instance": "acme", "type": "io.spectrum.job"}


def test_a_heartbeat_moves_the_place_and_half_a_message_is_none(server: Canned, client: Client) -> None:
    server.on("GET", PATH, stream(7, tail="id: 41\n\nid: 42\ndata: {}"), stream(43))
    seen = list(islice(client.events.watch(), 2))
    assert [each.position for each in seen] == [7, 43]
    assert seen[0].data == {"step": "a\u2028b"}
    assert [request.headers.get("last-event-id") for request in server.of("GET", PATH)] == [None, "41"]


def test_what_passes_is_put_up_with_and_told(server: Canned, client: Client) -> None:
    busy = problem(503, "unavailable", "This copy is being stopped.", headers={"retry-after": "0"})
    server.on("GET", PATH, stream(1), Reply(drop=True), busy, problem(429, "rate-limited", "Too many."), stream(2))
    lost: list[ClientError] = []
    assert [each.position for each in islice(client.events.watch(lost=lost.append), 2)] == [1, 2]
    assert [type(error) for error in lost] == [Unreachable, ProblemError, ProblemError]


def test_a_no_is_final(server: Canned, client: Client) -> None:
    server.on("GET", PATH, stream(1), problem(422, "invalid-parameter", "after: the log ends with position 0."))
    watched = client.events.watch()
    assert next(watched).position == 1
    with pytest.raises(ProblemError, match="the log ends"):
        next(watched)


def test_a_server_that_stays_away_is_given_up(server: Canned, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "PATIENCE", 0.0)
    monkeypatch.setattr(resources, "OUTAGE", 0.0)
    server.on("GET", PATH, Reply(drop=True))
    with pytest.raises(Unreachable):
        next(client.events.watch())
    server.on("GET", PATH, stream(1), Reply(drop=True))
    watched = client.events.watch()
    assert next(watched).position == 1
    with pytest.raises(Unreachable):
        next(watched)

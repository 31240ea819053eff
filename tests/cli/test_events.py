"""`spectrum event watch`: a line for each event as it comes, over as many connections as it takes."""

from __future__ import annotations

import json
import signal
import threading

from tests.canned import Canned, Reply, problem
from tests.cli.conftest import Shell

PATH = "/v1/stream"


def stream(*positions: int) -> Reply:
    text = "retry: 10\nid: 0\n\n"
    for position in positions:
        event = {
            "id": f"evt_{position}",
            "type": "io.spectrum.job.failed.v1",
            "position": position,
            "subject": "ins_a",
            "time": "2026-11-23T10:00:00Z",
            "sequence": str(position),
            "data": {},
        }
        text += f"id: {position}\ndata: {json.dumps(event)}\n\n"
    return Reply(200, text=text)


def test_events_are_lines_and_go_on_after_a_lost_connection(server: Canned, shell: Shell) -> None:
    server.on("GET", PATH, stream(3), Reply(drop=True), Reply(drop=True), stream(4))
    ended = shell.run("event", "watch", "--after", "2", "--type", "job.failed", "--instance", "acme", "--limit", "2")
    assert ended.code == 0
    assert ended.out == (
        "3  2026-11-23T10:00:00Z  job.failed.v1  ins_a  3\n4  2026-11-23T10:00:00Z  job.failed.v1  ins_a  4\n"
    )
    assert ended.err.count("; trying again") == 1
    asked = server.of("GET", PATH)
    assert asked[0].query == {"after": "2", "type": "io.spectrum.job.failed", "instance": "acme"}
    assert asked[-1].headers["last-event-id"] == "3"


def test_each_event_is_one_line_of_json(server: Canned, shell: Shell) -> None:
    server.on("GET", PATH, stream(1, 2))
    ended = shell.run("event", "watch", "--limit", "2", "-o", "json")
    assert [json.loads(line)["position"] for line in ended.out.splitlines()] == [1, 2]


def test_the_exit_code_says_why_it_ended(server: Canned, shell: Shell) -> None:
    for status, slug, code in ((404, "not-found", 3), (401, "unauthenticated", 7), (422, "invalid-parameter", 1)):
        server.on("GET", PATH, problem(status, slug, "No."))
        assert shell.run("event", "watch").code == code


def test_ctrl_c_ends_it(server: Canned, shell: Shell) -> None:
    server.on("GET", PATH, Reply(200, text="", gate=threading.Event()))
    with shell.start("event", "watch") as watching:
        server.await_request("GET", PATH)
        watching.send_signal(signal.SIGINT)
        watching.communicate()
    assert watching.returncode == 130

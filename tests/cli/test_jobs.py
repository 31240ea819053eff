"""Commands that start jobs: they wait, tell the steps, and end with the code that says how it went."""

from __future__ import annotations

import json
import signal
import threading

import pytest

from tests.canned import INSTANCE_ID, JOB_ID, Canned, Reply, instance, job, problem
from tests.cli.conftest import Shell

JOB = f"/v1/jobs/{JOB_ID}"
CREATE = ("instance", "create", "acme", "--product", "kinto")


@pytest.fixture(autouse=True)
def created(server: Canned) -> None:
    server.on("POST", "/v1/instances", Reply(202, job("ready", steps=[]), {"location": JOB}))
    server.on("GET", f"/v1/instances/{INSTANCE_ID}", Reply(200, instance()))


def test_a_pipe_gets_plain_lines_and_the_instance_at_the_end(server: Canned, shell: Shell) -> None:
    server.on("GET", JOB, Reply(200, job("running")), Reply(200, job("succeeded")))
    ended = shell.run(*CREATE, "-o", "name")
    assert (ended.code, ended.out) == (0, "acme\n")
    assert ended.err == (
        f"{JOB_ID} create instance acme\n"
        "  job running\n"
        "  prepare done\n"
        "  start-web running\n"
        "  start-web done\n"
        "  job succeeded\n"
    )


def test_a_terminal_gets_a_live_table(server: Canned, shell: Shell) -> None:
    server.on("GET", JOB, Reply(200, job("running")), Reply(200, job("succeeded")))
    ended = shell.terminal(*CREATE)
    assert ended.code == 0
    assert "create instance acme: succeeded (2/2)" in ended.out
    assert "start-web" in ended.out
    assert "\033[" in ended.out


def test_retries_and_what_is_waited_for_are_told(server: Canned, shell: Shell) -> None:
    attempts = [{"number": 1}, {"number": 2, "cause": "retry", "error": {"message": "no answer"}}]
    step = {"name": "start-web", "state": "retrying", "attempts": attempts, "retry_at": "2026-11-23T10:00:09Z"}
    waiting = {"for": "retry", "holder": "wrk_1", "until": "2026-11-23T10:01:00Z", "unblock": "spectrum worker list"}
    retrying = Reply(200, job("ready", steps=[step], waiting=waiting))
    server.on("GET", JOB, retrying, retrying, Reply(200, job("succeeded")))
    ended = shell.run(*CREATE)
    assert "start-web retrying attempt 2 (retry), again at 10:00:09Z, no answer" in ended.err
    assert "waits for retry, held by wrk_1, until 10:01:00Z at most, unblock: spectrum worker list" in ended.err


def test_the_first_attempt_to_undo_a_step_is_no_repetition(server: Canned, shell: Shell) -> None:
    attempts = [{"number": 1, "cause": "first"}, {"number": 2, "cause": "first"}]
    step = {"name": "start-web", "state": "undone", "attempts": attempts}
    server.on("GET", JOB, Reply(200, job("cancelled", steps=[step])))
    assert "  start-web undone\n" in shell.run("job", "watch", JOB_ID).err


def test_waiting_for_a_worker_asks_nobody_to_act_yet(server: Canned, shell: Shell) -> None:
    waiting = {"for": "worker", "holder": "pol_1", "until": "2026-11-23T10:01:00Z", "unblock": "operator: start one"}
    ready = Reply(200, job("ready", waiting=waiting))
    server.on("GET", JOB, ready, ready, Reply(200, job("succeeded")))
    ended = shell.run(*CREATE)
    assert "waits for a worker to take it, until 10:01:00Z at most; if none does: operator: start one\n" in ended.err


def test_without_waiting_the_job_is_printed(server: Canned, shell: Shell) -> None:
    ended = shell.run(*CREATE, "--no-wait", "-o", "json")
    assert ended.code == 0
    assert json.loads(ended.out)["id"] == JOB_ID
    assert f"spectrum job watch {JOB_ID}" in ended.err


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (job("failed", error={"class": "fatal", "message": "No.", "evidence": ["last line"]}), 5),
        (job("cancelled"), 5),
        (job("failed", residue=["db/volume"]), 6),
    ],
)
def test_a_bad_end_has_its_code(server: Canned, shell: Shell, end: dict[str, object], code: int) -> None:
    server.on("GET", JOB, Reply(200, end))
    ended = shell.run(*CREATE)
    assert (ended.code, ended.out) == (code, "")
    assert "next: " in ended.err


def test_the_evidence_of_a_failure_is_printed(server: Canned, shell: Shell) -> None:
    failure = {"class": "fatal", "message": "web is not healthy", "evidence": ["bind: in use"]}
    server.on("GET", JOB, Reply(200, job("failed", error=failure)))
    ended = shell.run("job", "watch", JOB_ID)
    assert "error: create of instance acme failed: web is not healthy\n  | bind: in use\n" in ended.err
    assert ended.err.endswith(f"next: spectrum job show {JOB_ID}\n")


def test_a_timeout_ends_the_wait_and_not_the_job(server: Canned, shell: Shell) -> None:
    server.on("GET", JOB, Reply(200, job("running")))
    ended = shell.run(*CREATE, "--timeout", "100ms")
    assert ended.code == 124
    assert f"next: spectrum job watch {JOB_ID}" in ended.err
    assert not [request for request in server.requests if request.path.endswith(":cancel")]


def test_ctrl_c_ends_the_wait_and_not_the_job(server: Canned, shell: Shell) -> None:
    never = threading.Event()
    server.on("GET", JOB, Reply(200, job("running")), Reply(200, job("running"), gate=never))
    running = shell.start(*CREATE)
    try:
        server.await_request("GET", JOB, 2)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=20.0)
    finally:
        never.set()
        running.kill()
    assert running.returncode == 130
    assert f"spectrum job watch {JOB_ID}" in err
    assert not [request for request in server.requests if request.path.endswith(":cancel")]


def test_a_dry_run_prints_the_plan_and_starts_nothing(server: Canned, shell: Shell) -> None:
    plan = {"plan_hash": "sha256:1", "steps": [{"name": "prepare"}, {"name": "start", "needs": ["prepare"]}]}
    server.on("POST", "/v1/instances/acme:stop", Reply(200, plan))
    ended = shell.run("instance", "stop", "acme", "--dry-run")
    assert ended.out == "STEP     NEEDS    SLOT\nprepare  -        -\nstart    prepare  -\nplan sha256:1\n"
    assert server.requests[0].query == {"dry_run": "true"}


def test_parameters_go_in_the_types_that_the_release_declares(server: Canned, shell: Shell) -> None:
    declared = {"size": {"type": "integer"}, "open": {"type": "boolean"}, "code": {"type": "string"}}
    release = {"product": "kinto", "version": "1.0", "parameters": declared}
    server.on("GET", "/v1/products/kinto/releases/1.0", Reply(200, release))
    (shell.folder / "text").write_text("from a file\n")
    ended = shell.run(
        *("instance", "create", "acme", "--product", "kinto@1.0", "--no-wait", "--plan", "small", "--label", "a=b"),
        *("--param", "size=5", "--param", "open=true", "--param", "code=007", "--param", "note=@text"),
    )
    assert ended.code == 0
    assert server.of("POST", "/v1/instances")[0].body == {
        "name": "acme",
        "product": "kinto",
        "release": "1.0",
        "plan": "small",
        "labels": {"a": "b"},
        "parameters": {"size": 5, "open": True, "code": "007", "note": "from a file"},
    }


def test_a_value_of_the_wrong_type_is_a_usage_error(server: Canned, shell: Shell) -> None:
    release = {"product": "kinto", "version": "1.0", "parameters": {"size": {"type": "integer"}}}
    server.on("GET", "/v1/products/kinto/releases/1.0", Reply(200, release))
    ended = shell.run("instance", "create", "acme", "--product", "kinto@1.0", "--param", "size=big")
    assert ended.code == 2
    assert "'big'" in ended.err


def test_apply_reads_stdin_and_says_when_nothing_is_to_do(server: Canned, shell: Shell) -> None:
    server.on("PUT", "/v1/instances/acme", Reply(200, instance()))
    server.on("GET", "/v1/instances/acme", Reply(200, instance()))
    ended = shell.run("instance", "apply", "-f", "-", "-o", "name", stdin="name: acme\nproduct: kinto\nplan: small\n")
    assert (ended.code, ended.out) == (0, "acme\n")
    assert server.requests[0].body == {"product": "kinto", "plan": "small"}


def test_apply_refuses_what_it_does_not_know(shell: Shell) -> None:
    ended = shell.run("instance", "apply", "-f", "-", stdin="name: acme\nprodukt: kinto\n")
    assert ended.code == 2
    assert "produkt is not known" in ended.err


def test_a_key_of_ones_own_makes_a_repetition_safe(server: Canned, shell: Shell) -> None:
    shell.run(*CREATE, "--no-wait", "--idempotency-key", "mine")
    assert server.of("POST", "/v1/instances")[0].headers["idempotency-key"] == "mine"


def test_purging_asks_a_person_and_refuses_without_one(server: Canned, shell: Shell) -> None:
    server.on("POST", "/v1/instances/acme:purge", Reply(202, job("ready")))
    refused = shell.run("instance", "purge", "acme", "--no-wait")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert shell.terminal("instance", "purge", "acme", "--no-wait", types="n\n").code == 2
    assert server.requests == []
    assert shell.terminal("instance", "purge", "acme", "--no-wait", types="y\n").code == 0
    assert shell.run("instance", "purge", "acme", "--no-wait", "--yes").code == 0
    assert len(server.requests) == 2


def test_a_cancelled_job_is_what_cancel_wanted(server: Canned, shell: Shell) -> None:
    server.on("POST", f"{JOB}:cancel", Reply(202, job("cancelling")))
    server.on("GET", JOB, Reply(200, job("cancelled")))
    ended = shell.run("job", "cancel", JOB_ID, "-o", "json")
    assert ended.code == 0
    assert json.loads(ended.out)["state"] == "cancelled"


def test_why_says_it_in_words(server: Canned, shell: Shell) -> None:
    waiting = {"for": "queue", "position": 2, "holder": "job_x"}
    server.on("GET", f"{JOB}/why", Reply(200, {"job_id": JOB_ID, "state": "waiting", "waiting": waiting}))
    assert shell.run("job", "why", JOB_ID).out == "waits for queue, held by job_x, position 2\n"


def test_a_conflict_has_its_code(server: Canned, shell: Shell) -> None:
    server.on("POST", "/v1/instances", problem(409, "instance-busy", "Its queue is full."))
    ended = shell.run(*CREATE)
    assert ended.code == 4
    assert "next: spectrum job list --instance acme\n" in ended.err


@pytest.mark.parametrize(
    ("method", "path", "command", "next_command"),
    [
        ("POST", "/v1/instances/acme:purge", ("instance", "purge", "acme", "--yes"), "spectrum instance show acme"),
        ("POST", f"/v1/jobs/{JOB_ID}:cancel", ("job", "cancel", JOB_ID), f"spectrum job show {JOB_ID}"),
        ("DELETE", "/v1/targets/local", ("target", "remove", "local", "--yes"), "spectrum target list"),
    ],
)
def test_what_is_not_allowed_now_names_a_command_about_the_same_thing(
    server: Canned, shell: Shell, method: str, path: str, command: tuple[str, ...], next_command: str
) -> None:
    server.on(method, path, problem(409, "not-allowed-now", "Not in this state."))
    assert shell.run(*command).err.endswith(f"\nnext: {next_command}\n")


def test_waiting_for_a_quarantined_instance_has_its_code(server: Canned, shell: Shell) -> None:
    server.on("GET", "/v1/instances/acme", Reply(200, instance(hold="quarantined")))
    ended = shell.run("instance", "wait", "acme")
    assert ended.code == 6
    assert "next: spectrum instance resolve acme" in ended.err


def test_logs_are_plain_lines_with_their_service(server: Canned, shell: Shell) -> None:
    lines = ({"service": "web", "text": "hello"}, {"service": "db", "text": "ready"})
    server.on("GET", "/v1/instances/acme/logs", Reply(200, lines=lines))
    assert shell.run("instance", "logs", "acme").out == "web  hello\ndb  ready\n"

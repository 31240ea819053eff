"""Data in four forms on stdout, and nothing else there."""

from __future__ import annotations

import json
import shlex
import subprocess

from ruamel.yaml import YAML

from spectrum.cli.system import up_text
from spectrum.local.setup import Ready
from tests.canned import JOB_ID, Canned, Reply, instance, job, problem
from tests.cli.conftest import SPECTRUM, Shell

TABLE = """\
NAME  PRODUCT       PLAN   TARGET  LIFECYCLE  HEALTH   HOLD         URL
acme  kinto@26.5.0  small  local   running    healthy  none         http://127.0.0.1:21045/v1/
beta  kinto@26.5.0  small  local   stopped    unknown  quarantined  -
"""
SHOW = """\
Name:        acme
Id:          ins_01936f2a-0000-7000-8000-000000000001
URL:         http://127.0.0.1:21045/v1/
Product:     kinto@26.5.0
Plan:        small
Target:      local
Lifecycle:   running
Desired:     running
Health:      healthy
Hold:        none
Generation:  1 (accepted 1)
Created:     2026-11-23T10:00:00Z

Endpoints
  api:  http://127.0.0.1:21045/v1/

Services
  NAME  STATE    HEALTH   RESTARTS  PORTS
  db    running  healthy  0         5432=21044

Parameters
  project_name:  Acme
  db_password:   (secret, version 1)
"""
JOB_SHOW = f"""\
Id:            {JOB_ID}
Operation:     create
Subject:       instance acme
State:         failed
Progress:      2/2
Created:       2026-11-23T10:00:00Z
Error:         web did not become healthy. (unhealthy)
Who can help:  vendor
Next:          spectrum instance create acme …

Steps
  NAME       STATE   ATTEMPTS  REMARK
  start-web  undone  2         attempt 2 (retry), port taken

Evidence
  bind: address in use
"""


def two() -> list[dict[str, object]]:
    return [instance(), instance(name="beta", lifecycle="stopped", health="unknown", hold="quarantined", endpoints=[])]


def test_a_list_is_a_table_without_lines(server: Canned, shell: Shell) -> None:
    server.on("GET", "/v1/instances", Reply(200, {"items": two(), "next_cursor": None}))
    ended = shell.run("instance", "list")
    assert (ended.code, ended.out, ended.err) == (0, TABLE, "")


def test_an_empty_list_prints_nothing_in_a_pipe(server: Canned, shell: Shell) -> None:
    server.on("GET", "/v1/instances", Reply(200, {"items": []}))
    assert shell.run("instance", "list").out == ""


def test_json_is_what_the_server_sent(server: Canned, shell: Shell) -> None:
    server.on("GET", "/v1/instances", Reply(200, {"items": two()}))
    assert json.loads(shell.run("instance", "list", "-o", "json").out) == {"items": two()}


def test_instances_that_wait_for_a_person_or_are_not_well_can_be_listed_alone(server: Canned, shell: Shell) -> None:
    server.on("GET", "/v1/instances", Reply(200, {"items": two(), "next_cursor": None}))
    shell.run("instance", "list", "--hold", "quarantined", "--health", "unhealthy")
    (asked,) = server.requests
    assert (asked.query["hold"], asked.query["health"]) == ("quarantined", "unhealthy")


def test_yaml_is_what_the_server_sent(server: Canned, shell: Shell) -> None:
    server.on("GET", "/v1/instances/acme", Reply(200, instance()))
    said = shell.run("instance", "show", "acme", "-o", "yaml").out
    assert YAML(typ="safe", pure=True).load(said) == instance()
    assert said.startswith("id: ins_")


def test_names_are_for_pipes(server: Canned, shell: Shell) -> None:
    server.on("GET", "/v1/instances", Reply(200, {"items": two()}))
    assert shell.run("instance", "list", "-o", "name").out == "acme\nbeta\n"


def test_show_tells_everything_and_no_secret(server: Canned, shell: Shell) -> None:
    server.on("GET", "/v1/instances/acme", Reply(200, instance()))
    assert shell.run("instance", "show", "acme").out == SHOW


def test_a_failed_job_shows_steps_evidence_and_what_to_do(server: Canned, shell: Shell) -> None:
    attempts = [{"number": 1}, {"number": 2, "cause": "retry", "error": {"message": "port taken"}}]
    failure = {
        "class": "invalid",
        "code": "unhealthy",
        "actor": "vendor",
        "message": "web did not become healthy.",
        "evidence": ["bind: address in use"],
        "next": "spectrum instance create acme …",
    }
    steps = [{"name": "start-web", "state": "undone", "attempts": attempts}]
    server.on("GET", f"/v1/jobs/{JOB_ID}", Reply(200, job("failed", error=failure, steps=steps)))
    assert shell.run("job", "show", JOB_ID).out == JOB_SHOW


def test_a_terminal_gets_colors_unless_it_asks_not_to(server: Canned, shell: Shell) -> None:
    server.on("GET", "/v1/instances", Reply(200, {"items": two()}))
    assert "\033[32mrunning\033[0m" in shell.terminal("instance", "list").out
    shell.environment["NO_COLOR"] = "1"
    assert "\033[" not in shell.terminal("instance", "list").out


def test_an_error_is_one_story_on_stderr(server: Canned, shell: Shell) -> None:
    place = {"file": "a.yaml", "line": 4, "pointer": "/plan", "message": "no such plan", "hint": "small, large"}
    answer = problem(422, "invalid-parameter", "There is no plan 'huge'.", errors=[place], request_id="req_7")
    server.on("POST", "/v1/instances", answer)
    ended = shell.run("instance", "create", "acme", "--product", "kinto", "--plan", "huge")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        "error: There is no plan 'huge'. (invalid-parameter)\n"
        "  a.yaml:4 /plan: no such plan\n"
        "    small, large\n"
        "request: req_7\n"
        "next: spectrum product show PRODUCT@VERSION\n"
    )


def test_words_that_stand_in_the_message_are_not_said_again_at_their_place(server: Canned, shell: Shell) -> None:
    place = {"pointer": "query:service", "message": "there is no service nope", "hint": "Known here: db, web."}
    answer = problem(422, "invalid-parameter", "There is no service nope.", errors=[place])
    server.on("GET", "/v1/instances/acme/logs", answer)
    said = shell.run("instance", "logs", "acme", "--service", "nope").err.splitlines()
    assert [line for line in said if not line.startswith("request: ")] == [
        "error: There is no service nope. (invalid-parameter)",
        "  Known here: db, web.",
        "next: spectrum instance --help",
    ]


def test_everything_about_a_target_is_shown_under_readable_names(server: Canned, shell: Shell) -> None:
    target = {"id": "tgt_1", "name": "local", "url": "process:///srv", "created_at": "2026-11-23T08:24:15.112000Z"}
    server.on("GET", "/v1/targets/local", Reply(200, target | {"shared": False}))
    assert shell.run("target", "show", "local").out == (
        "Id:       tgt_1\nName:     local\nURL:      process:///srv\nCreated:  2026-11-23T08:24:15Z\nShared:   no\n"
    )


def test_what_is_said_stands_after_what_was_shown_where_both_go_to_one_file(bare: Shell) -> None:
    environment = bare.variables() | {"SPECTRUM_HOME": str(bare.folder / "none")}
    ended = subprocess.run(
        [*SPECTRUM, "status"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert ended.stdout.splitlines()[-1] == "next: spectrum up"


def test_an_unknown_product_names_the_list_of_products(server: Canned, shell: Shell) -> None:
    place = {"pointer": "/product", "message": "there is no product 'nope'"}
    server.on("POST", "/v1/instances", problem(422, "invalid-parameter", "There is no product.", errors=[place]))
    ended = shell.run("instance", "create", "acme", "--product", "nope")
    assert ended.err.endswith("next: spectrum product list\n")


def test_what_is_not_there_names_the_list_of_its_noun(server: Canned, shell: Shell) -> None:
    ended = shell.run("target", "show", "moon")
    assert ended.code == 3
    assert ended.err.endswith("next: spectrum target list\n")


def test_the_default_plan_of_a_release_is_told(server: Canned, shell: Shell) -> None:
    plans = [{"name": "large", "default": False}, {"name": "small", "default": True}]
    release = {"id": "rel_1", "product": "kinto", "version": "26.5.0", "digest": "sha256:0", "plans": plans}
    server.on("GET", "/v1/products/kinto/releases/26.5.0", Reply(200, release))
    assert "Plans:    large, small (default)\n" in shell.run("product", "show", "kinto@26.5.0").out


def test_the_way_to_sign_in_can_be_pasted_wherever_the_installation_is() -> None:
    ready = Ready("http://127.0.0.1:8195", "demo", "", "/home/my own/.spectrum/token")
    line = next(line for line in up_text(ready).splitlines() if line.startswith("Sign in:"))
    assert shlex.split(line)[-2:] == ["--token-file", ready.token_file]


def test_version_prints_itself(bare: Shell) -> None:
    assert bare.run("version").out.startswith("spectrum ")
    assert set(json.loads(bare.run("version", "-o", "json").out)) == {"version", "python"}


def test_a_completion_script_names_the_command(bare: Shell) -> None:
    for shell_name in ("bash", "zsh", "fish"):
        assert "_SPECTRUM_COMPLETE" in bare.run("completion", shell_name).out


def test_help_of_everything_needs_neither_server_nor_models(bare: Shell) -> None:
    ended = bare.run("--help")
    assert ended.code == 0
    for noun in ("up", "down", "status", "doctor", "product", "instance", "job", "event", "target", "worker", "token"):
        assert f"\n  {noun} " in ended.out


def test_the_tree_of_commands_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    source = (
        "import sys; from spectrum.cli.app import build; from typer.main import get_command; get_command(build())\n"
        "print([name for name in ('httpx2', 'pydantic', 'rich', 'asyncpg', 'fastapi', 'stamina') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", source], capture_output=True, text=True).stdout == "[]\n"

"""Where a command connects, and as whom: one source for both, and none that others could have written."""

from __future__ import annotations

import json
import os
import stat

import pytest

from tests.canned import TOKEN, Canned, Reply
from tests.cli.conftest import Shell

LIST = ("instance", "list")


@pytest.fixture(autouse=True)
def empty(server: Canned) -> None:
    server.on("GET", "/v1/instances", Reply(200, {"items": []}))


def installation(shell: Shell, url: str, token: str = "of-the-folder") -> None:
    folder = shell.folder / ".spectrum"
    folder.mkdir(mode=0o700)
    for name, text in (("url", url), ("token", token)):
        (folder / name).write_text(text + "\n")
        (folder / name).chmod(0o600)


def authorization(server: Canned) -> str | None:
    return server.requests[-1].headers.get("authorization")


def test_without_any_server_the_next_command_is_named(bare: Shell) -> None:
    ended = bare.run(*LIST)
    assert ended.code == 7
    assert f"No server is known in {bare.folder}" in ended.err
    assert "spectrum up" in ended.err
    assert "spectrum login" in ended.err


def test_the_nearest_installation_upwards_is_found(bare: Shell, server: Canned) -> None:
    installation(bare, server.url)
    deep = bare.folder / "a" / "b"
    deep.mkdir(parents=True)
    assert Shell(deep, bare.home).run(*LIST).code == 0
    assert authorization(server) == "Bearer of-the-folder"


def test_variables_come_before_the_folder_and_bring_their_own_token(bare: Shell, server: Canned) -> None:
    installation(bare, "http://127.0.0.1:1")
    bare.environment = {"SPECTRUM_URL": server.url, "SPECTRUM_TOKEN": TOKEN}
    assert bare.run(*LIST).code == 0
    assert authorization(server) == f"Bearer {TOKEN}"


def test_a_url_never_takes_the_token_of_another_source(bare: Shell, server: Canned) -> None:
    installation(bare, "http://127.0.0.1:1", token="secret-of-another-server")
    assert bare.run(*LIST, "--url", server.url).code == 0
    assert authorization(server) is None
    bare.environment = {"SPECTRUM_URL": server.url}
    assert bare.run(*LIST).code == 0
    assert authorization(server) is None


def test_a_token_without_its_url_is_refused(bare: Shell, server: Canned) -> None:
    installation(bare, server.url)
    bare.environment = {"SPECTRUM_TOKEN": TOKEN}
    ended = bare.run(*LIST)
    assert ended.code == 2
    assert "SPECTRUM_TOKEN is set without SPECTRUM_URL" in ended.err
    assert server.requests == []


def test_a_token_for_a_url_comes_from_a_file_or_stdin(bare: Shell, server: Canned) -> None:
    assert bare.run(*LIST, "--url", server.url, "--token-file", "-", stdin="typed\n").code == 0
    assert authorization(server) == "Bearer typed"


def test_a_folder_that_others_can_write_is_refused(bare: Shell, server: Canned) -> None:
    installation(bare, server.url)
    (bare.folder / ".spectrum").chmod(0o770)
    ended = bare.run(*LIST)
    assert ended.code == 7
    assert "chmod go-w" in ended.err
    assert server.requests == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(bare: Shell, server: Canned) -> None:
    installation(bare, server.url)
    os.chown(bare.folder / ".spectrum", 12345, 12345)
    ended = bare.run(*LIST)
    assert ended.code == 7
    assert "belongs to user 12345" in ended.err
    assert server.requests == []


def test_a_link_to_another_folder_is_refused(bare: Shell, server: Canned) -> None:
    installation(bare, server.url)
    (bare.folder / ".spectrum").rename(bare.folder / "elsewhere")
    (bare.folder / ".spectrum").symlink_to("elsewhere")
    assert bare.run(*LIST).code == 7
    assert server.requests == []


def test_signing_in_makes_a_context_that_only_its_owner_reads(bare: Shell, server: Canned) -> None:
    assert bare.run("login", server.url, "--name", "prod", "--token-file", "-", stdin="mine\n").code == 0
    stored = bare.home / ".config" / "spectrum" / "contexts.json"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert bare.run(*LIST).code == 0
    assert authorization(server) == "Bearer mine"


def test_a_token_that_the_server_refuses_is_not_stored(bare: Shell, server: Canned) -> None:
    refusal = {"type": "urn:spectrum:problem:unauthenticated", "detail": "Unknown token."}
    server.on("GET", "/v1/instances", Reply(401, refusal))
    assert bare.run("login", server.url, "--token-file", "-", stdin="wrong\n").code == 7
    assert not (bare.home / ".config" / "spectrum" / "contexts.json").exists()


def test_signing_in_tells_nothing_of_its_retries(bare: Shell, server: Canned) -> None:
    server.on("GET", "/v1/instances", Reply(503, {}), Reply(200, {"items": []}))
    ended = bare.run("login", server.url, "--name", "prod", "--token-file", "-", stdin="mine\n")
    assert (ended.out, ended.err) == ("", f"Signed in to {server.url} as context prod\n")


def test_who_waits_for_a_server_is_told_so_once(bare: Shell) -> None:
    with Canned() as gone:
        url = gone.url
    ended = bare.run("login", url, "--token-file", "-", stdin="mine\n")
    assert ended.err == (
        f"{url} is not ready; trying again\nerror: {url} does not answer: Connection refused\nnext: spectrum status\n"
    )


def test_a_token_file_that_is_not_there_is_told_without_the_systems_numbers(bare: Shell) -> None:
    ended = bare.run("login", "http://127.0.0.1:1", "--token-file", "/nope")
    assert ended.err.startswith("error: The token file /nope cannot be read: No such file or directory\n")


def test_a_terminal_is_asked_for_the_token_without_showing_it(bare: Shell, server: Canned) -> None:
    ended = bare.terminal("login", server.url, types="hidden-one\n")
    assert ended.code == 0
    assert "hidden-one" not in ended.out
    assert authorization(server) == "Bearer hidden-one"


def test_nobody_is_asked_without_a_terminal(bare: Shell, server: Canned) -> None:
    ended = bare.run("login", server.url)
    assert ended.code == 2
    assert "--token-file" in ended.err


def test_contexts_are_listed_switched_and_forgotten(bare: Shell, server: Canned) -> None:
    for name in ("one", "two"):
        bare.run("login", server.url, "--name", name, "--token-file", "-", stdin=f"{name}\n")
    assert bare.run("context", "use", "one").code == 0
    listed = json.loads(bare.run("context", "list", "-o", "json").out)["items"]
    assert [(entry["name"], entry["current"]) for entry in listed] == [("one", True), ("two", False)]
    assert "one" not in json.dumps([entry["url"] for entry in listed])
    assert bare.run(*LIST, "--context", "two").code == 0
    assert authorization(server) == "Bearer two"
    assert bare.run("logout").code == 0
    assert bare.run("context", "use", "one").code == 2
    assert bare.run(*LIST).code == 7


def test_an_unknown_variable_is_refused_by_name(shell: Shell) -> None:
    shell.environment["SPECTRUM_TOKKEN"] = "x"
    ended = shell.run("version")
    assert ended.code == 2
    assert "SPECTRUM_TOKKEN" in ended.err
    assert "SPECTRUM_TOKEN?" in ended.err


def test_variables_of_tests_are_always_accepted(shell: Shell) -> None:
    shell.environment["SPECTRUM_TEST_ANYTHING"] = "x"
    assert shell.run("version").code == 0


def test_a_request_that_nobody_answered_can_be_repeated_safely(bare: Shell) -> None:
    with Canned() as gone:
        bare.environment = {"SPECTRUM_URL": gone.url}
        gone.on("POST", "/v1/instances/acme:stop", Reply(drop=True))
        ended = bare.run("instance", "stop", "acme")
        key = gone.requests[0].headers["idempotency-key"]
    assert ended.code == 1
    assert f"--idempotency-key {key}" in ended.err

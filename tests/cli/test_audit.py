"""Audit records on the command line: exported page by page, and verified in a file, without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from spectrum.core.audit import Record, Seal, seal, sign_head
from spectrum.core.signing import Signer
from tests.canned import Canned, Reply, Request, problem
from tests.cli.conftest import Shell

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CELL = Signer.of(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ORGANIZATION = "org_01936f2a-0000-7000-8000-000000000001"
COUNT = 7
PAGE = 3
LIST = """\
ID     TIME                  ACTOR        ACTION        SUBJECT  NUMBER
aud_1  2026-11-23T12:00:00Z  token:tok_1  token.create  tok_1    1
aud_2  2026-11-23T12:00:00Z  token:tok_1  token.create  tok_2    -
"""


def sealed() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records and the head as the server shows them."""
    shown: list[dict[str, Any]] = []
    last: Seal | None = None
    for n in range(1, COUNT + 1):
        record = Record(
            f"aud_{n}", ORGANIZATION, NOW, "token:tok_1", "token.create", f"tok_{n}", None, {"name": "ü", "n": n / 3}
        )
        last = seal(record, last, NOW)
        shown.append(record.as_json(last))
    assert last is not None
    return shown, sign_head(ORGANIZATION, last, CELL.key_id, CELL.key.sign).as_json()


RECORDS, HEAD = sealed()
KNOWN = f"{HEAD['number']}:{HEAD['hash']}"


def pages(request: Request) -> Reply:
    after = int(request.query.get("cursor") or request.query["after"])
    items = RECORDS[after : after + PAGE]
    more = after + PAGE < len(RECORDS)
    return Reply(200, {"items": items, "next_cursor": str(after + PAGE) if more else None})


@pytest.fixture(autouse=True)
def chain(server: Canned) -> None:
    server.on("GET", "/v1/audit/head", Reply(200, HEAD))
    server.on("GET", "/v1/audit", pages)


@pytest.fixture
def exported(shell: Shell) -> Path:
    ended = shell.run("audit", "export", "audit.ndjson")
    assert (ended.code, ended.out) == (0, "")
    return shell.folder / "audit.ndjson"


def test_an_export_has_a_line_for_each_record_of_every_page(server: Canned, exported: Path) -> None:
    documents = [json.loads(text) for text in exported.read_text().splitlines()]
    assert documents == [
        {"format": "spectrum-audit/1", "organization_id": ORGANIZATION, "after": 0},
        *RECORDS,
        {"head": HEAD},
    ]
    assert len(server.of("GET", "/v1/audit")) == 3


def test_an_export_says_with_what_it_is_verified_and_is(server: Canned, shell: Shell, bare: Shell) -> None:
    told = shell.run("audit", "export", "audit.ndjson").err.splitlines()[-1]
    asked = len(server.requests)
    bare.environment = {}

    ended = bare.run(*told.split()[1:])

    assert ended.code == 0
    assert ended.err == ""
    assert ended.out == (
        f"Organization:  {ORGANIZATION}\n"
        "Records:       1 to 7\n"
        f"Head:          {KNOWN}\n"
        "Sealed:        2026-11-23T12:00:00.000Z\n"
        f"Key:           {CELL.key_id} (the one that you know)\n"
    )
    assert len(server.requests) == asked


def test_without_a_key_it_is_said_what_was_not_proven(exported: Path, shell: Shell) -> None:
    ended = shell.run("audit", "verify", "audit.ndjson", "-o", "json")
    assert ended.code == 0
    assert "the file's own word" in ended.err
    assert json.loads(ended.out) == {
        "organization_id": ORGANIZATION,
        "first": 1,
        "last": COUNT,
        "hash": HEAD["hash"],
        "sealed_at": HEAD["sealed_at"],
        "key_id": CELL.key_id,
    }


def test_an_export_travels_through_a_pipe(shell: Shell) -> None:
    out = shell.run("audit", "export").out
    assert shell.run("audit", "verify", "-", "--key", CELL.key_id, stdin=out).code == 0
    assert shell.run("audit", "verify", "-", stdin=out[:-1]).code == 1


def test_a_part_of_the_chain_is_exported_and_said_to_be_one(shell: Shell) -> None:
    assert shell.run("audit", "export", "later.ndjson", "--after", "4").code == 0
    ended = shell.run("audit", "verify", "later.ndjson")
    assert "Records:       5 to 7 (what came before is not in this file)\n" in ended.out
    shell.run("audit", "export", "nothing.ndjson", "--after", "7")
    assert "Records:       none\n" in shell.run("audit", "verify", "nothing.ndjson").out
    assert shell.run("audit", "verify", "later.ndjson", "--head", f"2:{'0' * 64}").code == 1


def test_a_changed_line_is_named(exported: Path, shell: Shell) -> None:
    exported.write_text(exported.read_text().replace('"subject":"tok_3"', '"subject":"tok_4"', 1))
    ended = shell.run("audit", "verify", "audit.ndjson", "--key", CELL.key_id)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        "error: This is not what was sealed and exported.\n"
        "  audit.ndjson:4: The record aud_3 was changed: its hash is that of something else.\n"
        "next: compare with a new one: spectrum audit export FILE\n"
    )


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--key", "0" * 64], 1, "not with the one that you know"),
        (["--head", f"7:{'0' * 64}"], 1, "Record 7 is not the one that you know"),
        (["--head", f"8:{'0' * 64}"], 1, "Record 8 is not in this export, which ends with 7"),
        (["--head", KNOWN], 0, ""),
        (["--key", "abc"], 2, "'abc' is not a key"),
        (["--head", "7"], 2, "'7' is not a record"),
    ],
)
def test_what_is_known_beforehand_is_compared(
    exported: Path, shell: Shell, options: list[str], code: int, message: str
) -> None:
    ended = shell.run("audit", "verify", "audit.ndjson", *options)
    assert ended.code == code
    assert message in ended.err


def test_a_file_that_is_not_there_is_a_wrong_use(bare: Shell) -> None:
    ended = bare.run("audit", "verify", "nowhere.ndjson")
    assert (ended.code, ended.err.splitlines()[0]) == (
        2,
        "error: nowhere.ndjson cannot be read: No such file or directory",
    )


def test_an_export_that_is_refused_midway_leaves_the_old_file_alone(
    server: Canned, exported: Path, shell: Shell
) -> None:
    before = exported.read_bytes()
    first = Reply(200, {"items": RECORDS[:PAGE], "next_cursor": "3"})
    server.on("GET", "/v1/audit", first, problem(403, "forbidden", "This takes the scope audit:read."))
    assert shell.run("audit", "export", "audit.ndjson").code == 7
    assert exported.read_bytes() == before
    assert [path.name for path in shell.folder.iterdir()] == ["audit.ndjson"]


def test_a_chain_that_ends_before_what_was_asked_for_is_an_error(shell: Shell) -> None:
    ended = shell.run("audit", "export", "--after", "8")
    assert (ended.code, ended.out) == (1, "")
    assert "There is no record 8 yet: the chain ends with record 7" in ended.err


def test_what_was_sealed_meanwhile_is_left_for_the_next_export(server: Canned, shell: Shell) -> None:
    last = Seal(6, b"", bytes.fromhex(RECORDS[5]["seal"]["hash"]), NOW)
    earlier = sign_head(ORGANIZATION, last, CELL.key_id, CELL.key.sign)
    server.on("GET", "/v1/audit/head", Reply(200, earlier.as_json()))
    shell.run("audit", "export", "audit.ndjson")
    assert "Records:       1 to 6\n" in shell.run("audit", "verify", "audit.ndjson").out


def test_a_list_shows_who_did_what(server: Canned, shell: Shell) -> None:
    server.on("GET", "/v1/audit", Reply(200, {"items": [RECORDS[0], {**RECORDS[1], "seal": None}]}))
    assert shell.run("audit", "list", "--action", "token.create").out == LIST
    assert server.requests[-1].query == {"action": "token.create"}

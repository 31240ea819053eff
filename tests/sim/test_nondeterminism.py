"""The lint of nondeterminism: what it finds, what it leaves alone, and that this repository is clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim import lint

HERE = Path("module.py")
QUERIES = {"flush_clock": "the one reading"}


def found(text: str) -> list[str]:
    return [offence.what for offence in lint.python(HERE, text)]


def found_in_sql(text: str) -> list[str]:
    return [offence.what for offence in lint.sql(Path("a.sql"), text, QUERIES)]


def test_this_repository_is_clean() -> None:
    assert lint.check(Path(__file__).parents[2]) == ()


def test_what_is_declared_and_not_there_is_an_offence(tmp_path: Path) -> None:
    rules = (
        "[tool.spectrum.nondeterminism]\nedges = {'src/gone.py' = 'talked to it'}\nqueries = {gone = 'read a clock'}"
    )
    (tmp_path / "pyproject.toml").write_text(rules)

    assert [str(offence).partition(": ")[2] for offence in lint.check(tmp_path)] == [
        "gone is declared, and there is no such query: remove it",
        "src/gone.py is declared, and there is no such file: remove it",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import time", ["time"]),
        ("from time import monotonic", ["time.monotonic"]),
        ("import time as t\nt.time()", ["time", "time.time"]),
        ("import random", ["random"]),
        ("from secrets import token_bytes", ["secrets.token_bytes"]),
        ("import os\nos.urandom(4)", ["os.urandom"]),
        ("from uuid import uuid4", ["uuid.uuid4"]),
        ("import uuid\nuuid.uuid4()", ["uuid.uuid4"]),
        ("from datetime import datetime, UTC\ndatetime.now(UTC)", ["datetime.datetime.now"]),
        ("import datetime as dt\ndt.datetime.utcnow()", ["datetime.datetime.utcnow"]),
        ("import threading", ["threading"]),
        ("import asyncio\nasyncio.create_task(f())", ["asyncio.create_task"]),
        ("from asyncio import sleep", ["asyncio.sleep"]),
        ("import asyncio\nasyncio.to_thread(f)", ["asyncio.to_thread"]),
        ("loop.run_in_executor(None, f)", ["run_in_executor"]),
        ("loop.create_task(f())", ["loop.create_task"]),
        ("asyncio.get_running_loop().time()", ["loop.time"]),
        ("self._loop.call_later(1, f)", ["call_later"]),
    ],
)
def test_what_goes_past_the_ports_is_found(text: str, what: list[str]) -> None:
    assert found(text) == what


@pytest.mark.parametrize(
    "text",
    [
        "from datetime import datetime\ndatetime.fromisoformat('2026-01-01')",
        "import asyncio\nasyncio.timeout(1)",
        "group.create_task(f())",
        "import os\nos.getpid()",
        "clock.now()\nentropy.token(4)",
        "from spectrum.ports import Clock",
        "row.time",
    ],
)
def test_what_is_deterministic_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_an_offence_says_where_and_what_to_do() -> None:
    (offence,) = lint.python(HERE, "x = 1\nimport time")

    assert str(offence) == "module.py:2: time reads a clock or sleeps: take it from a port (spectrum.ports)"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("SELECT now()", ["now"]),
        ("UPDATE t SET a = clock_timestamp()", ["clock_timestamp"]),
        ("SELECT gen_random_uuid(), random()", ["gen_random_uuid", "random"]),
        ("SELECT a FROM t LIMIT 5", ["LIMIT"]),
        ("SELECT a FROM (SELECT b FROM u LIMIT 1) x ORDER BY a LIMIT 5", ["LIMIT"]),
        ("SELECT row_number() OVER (ORDER BY a) FROM t LIMIT 5", ["LIMIT"]),
        ("SELECT a FROM t ORDER BY a; SELECT b FROM u LIMIT 5", ["LIMIT"]),
    ],
)
def test_sql_that_may_differ_from_run_to_run_is_found(text: str, what: list[str]) -> None:
    assert found_in_sql(text) == what


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM t ORDER BY a LIMIT 5",
        "SELECT a FROM t ORDER BY (SELECT b), c LIMIT 5 FOR UPDATE SKIP LOCKED",
        "-- now() is not asked\nSELECT 'now()', known FROM t",
        "/* LIMIT 5 */ SELECT a FROM t",
        "CREATE TABLE t (at timestamptz NOT NULL DEFAULT now())",
        "-- name: flush_clock\n-- The clock.\nSELECT clock_timestamp()",
    ],
)
def test_sql_that_means_the_same_in_every_run_is_left_alone(text: str) -> None:
    assert found_in_sql(text) == []


def test_a_declared_query_does_not_cover_its_neighbour() -> None:
    assert found_in_sql("-- name: flush_clock\nSELECT now()\n-- name: other\nSELECT now()") == ["now"]

"""Named queries: wrong files and names are found at import, and none lies about unused."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import spectrum
from spectrum.db import sql

SOURCE = Path(spectrum.__file__).parent


def used_names() -> Iterator[str]:
    """The literal arguments of every `query(…)` in the package."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "query":
                assert isinstance(node.args[0], ast.Constant), f"{path}: the name of a query is written out"
                yield str(node.args[0].value)


def test_every_named_query_is_used_and_every_used_one_exists() -> None:
    assert set(used_names()) == set(sql.load(sql.FOLDER))


def test_a_query_carries_its_name_into_the_database_s_statistics() -> None:
    assert sql.query("scope_set").startswith("/* scope_set */ SELECT")


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(sql.QueryError, match="did you mean 'cell_identity'"):
        sql.query("cel_identity")


def test_comments_below_the_first_line_belong_to_the_explanation(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text(
        "-- name: one\n-- Says what\n-- and why.\nSELECT 1; \n\n-- name: two\n-- For.\nSELECT 2"
    )
    assert sql.load(tmp_path) == {"one": "/* one */ SELECT 1", "two": "/* two */ SELECT 2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-- name: one\n-- For.\nSELECT 1;\n-- name: one\n-- For.\nSELECT 2;", "exists already"),
        ("-- name: one\nSELECT 1;", "does not say what it is for"),
        ("-- name: one\n-- For.\n", "is empty"),
        ("-- name: One-two\n-- For.\nSELECT 1;", "is no name"),
        ("SELECT 1;\n-- name: one\n-- For.\nSELECT 1;", "stands before the first"),
        ("SELECT 1;", "stands before the first"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.sql").write_text(text)
    with pytest.raises(sql.QueryError, match=rf"bad\.sql: .*{message}"):
        sql.load(tmp_path)


def test_two_files_can_not_share_a_name(tmp_path: Path) -> None:
    for name in ("a.sql", "b.sql"):
        (tmp_path / name).write_text("-- name: one\n-- For.\nSELECT 1;")
    with pytest.raises(sql.QueryError, match=r"b\.sql: the query 'one' exists already"):
        sql.load(tmp_path)

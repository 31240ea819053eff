"""The named queries of `queries/*.sql`, one file per table family: read once, at import, and refused as a whole if one is wrong.

A query starts with `-- name: its_name` and a comment that says what it is for, and ends where the next one starts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path

from spectrum.core.errors import SpectrumError

FOLDER = Path(__file__).parent / "queries"
_HEADER = re.compile(r"^-- name:(.*)$", re.MULTILINE)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class QueryError(SpectrumError):
    """A query file or the name of a query is wrong: found at import, never at run time."""


def load(folder: Path) -> Mapping[str, str]:
    """All queries of a folder by name. Raises `QueryError` for doubled names, missing comments and text outside a query."""
    queries: dict[str, str] = {}
    for path in sorted(folder.glob("*.sql")):
        for name, text in _parse(path).items():
            if name in queries:
                raise QueryError(f"{path.name}: the query {name!r} exists already: choose another name.")
            queries[name] = f"/* {name} */ {text}"
    return queries


def _parse(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    headers = list(_HEADER.finditer(text))
    preamble = text[: headers[0].start()] if headers else text
    if any(line.strip() and not line.startswith("--") for line in preamble.splitlines()):
        raise QueryError(f"{path.name}: a statement stands before the first `-- name:`: give it a name.")
    ends = [header.start() for header in headers[1:]] + [len(text)]
    queries: dict[str, str] = {}
    for header, end in zip(headers, ends, strict=True):
        name, statement = _query(path, header[1].strip(), text[header.end() : end].strip())
        if name in queries:
            raise QueryError(f"{path.name}: the query {name!r} exists already: choose another name.")
        queries[name] = statement
    return queries


def _query(path: Path, name: str, body: str) -> tuple[str, str]:
    if not _NAME.fullmatch(name):
        raise QueryError(f"{path.name}: {name!r} is no name of a query: use lower case, digits and underscores.")
    comment, _, rest = body.partition("\n")
    if not comment.startswith("-- "):
        raise QueryError(f"{path.name}: the query {name!r} does not say what it is for: put a comment below its name.")
    while rest.startswith("--"):
        rest = rest.partition("\n")[2]
    if not rest.strip():
        raise QueryError(f"{path.name}: the query {name!r} is empty.")
    return name, rest.strip().removesuffix(";")


_QUERIES = load(FOLDER)
_PARAMETER = re.compile(r"\$(\d+)")


def query(name: str) -> str:
    """The text of a query. Call it at module level: then an unknown name fails at import. Raises `QueryError`."""
    try:
        return _QUERIES[name]
    except KeyError:
        near = difflib.get_close_matches(name, _QUERIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "write it into a file of db/queries."
        raise QueryError(f"There is no query {name!r}: {hint}") from None


@lru_cache(maxsize=1024)
def together(texts: tuple[str, ...]) -> str:
    """One statement that does what these do; its parameters are theirs, one after the other.

    All of them see the same moment: none sees what another does, and no two may touch the same row.
    """
    parts: list[str] = []
    first = 0
    for number, text in enumerate(texts):
        parts.append(f"_{number} AS ({_PARAMETER.sub(partial(_moved, first), text)})")
        first += max(int(each) for each in _PARAMETER.findall(text))
    return f"WITH {', '.join(parts)} SELECT"


def _moved(first: int, parameter: re.Match[str]) -> str:
    return f"${first + int(parameter[1])}"

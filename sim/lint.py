"""The lint that keeps nondeterminism out: `python -m sim.lint` names every place that does not go through a port (DESIGN §2).

Edges, whole parts that no simulation runs, are declared in `pyproject.toml` under `[tool.spectrum.nondeterminism]`, each with its
reason, as are the few named queries that may read PostgreSQL's clock.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PORT = "take it from a port (spectrum.ports)"
THREADS = "a thread escapes the scheduler: put it behind a port"
BANNED = {
    "time": f"reads a clock or sleeps: {PORT}",
    "random": f"draws a random number: {PORT}",
    "secrets": f"draws a random number: {PORT}",
    "os.urandom": f"draws a random number: {PORT}",
    "os.getrandom": f"draws a random number: {PORT}",
    "uuid.uuid1": f"draws a random id: {PORT}",
    "uuid.uuid4": f"draws a random id: {PORT}",
    "uuid.uuid6": f"draws a random id: {PORT}",
    "uuid.uuid7": f"draws a random id: {PORT}",
    "datetime.datetime.now": f"reads a clock: {PORT}",
    "datetime.datetime.utcnow": f"reads a clock: {PORT}",
    "datetime.datetime.today": f"reads a clock: {PORT}",
    "datetime.date.today": f"reads a clock: {PORT}",
    "asyncio.create_task": f"starts a task that nobody owns: {PORT}",
    "asyncio.ensure_future": f"starts a task that nobody owns: {PORT}",
    "asyncio.sleep": f"sleeps past the clock: {PORT}",
    "asyncio.to_thread": THREADS,
    "anyio.to_thread": THREADS,
    "threading": THREADS,
    "concurrent.futures": THREADS,
    "multiprocessing": THREADS,
}
# The simulator's own sleeps and tasks are virtual.
VIRTUAL = ("asyncio.", "loop.", "call_at", "call_later")
METHODS = {
    "run_in_executor": THREADS,
    "call_later": f"sets a timer past the clock: {PORT}",
    "call_at": f"sets a timer past the clock: {PORT}",
}
_LOOPS = ("loop", "get_running_loop", "get_event_loop")
_SQL = re.compile(
    r"\b(now|clock_timestamp|transaction_timestamp|statement_timestamp|random|gen_random_uuid|uuidv[47])\s*\("
)
_SQL_WORDS = re.compile(r"\b(current_timestamp|current_date|localtimestamp)\b")
_SQL_TOKEN = re.compile(r"[();]|\border\s+by\b|\blimit\b|\bfetch\s+first\b", re.IGNORECASE)
_SQL_NAME = re.compile(r"^-- name:\s*(\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Offence:
    path: Path
    line: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what} {self.why}"


def check(root: Path) -> tuple[Offence, ...]:
    """All offences below a repository's root."""
    rules = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["spectrum"]["nondeterminism"]
    found: list[Offence] = []
    for path in sorted((root / "src").rglob("*.py")):
        if not _is_edge(path.relative_to(root), rules["edges"]):
            found += python(path, path.read_text())
    for path in sorted((root / "sim").rglob("*.py")):
        if not _is_edge(path.relative_to(root), rules["edges"]):
            found += (one for one in python(path, path.read_text()) if not one.what.startswith(VIRTUAL))
    known: set[str] = set()
    for path in sorted((root / "src").rglob("*.sql")):
        text = path.read_text()
        found += sql(path, text, rules["queries"])
        known |= set(_SQL_NAME.findall(text))
    gone = [("query", name) for name in sorted(set(rules["queries"]) - known)]
    gone += [("file", edge) for edge in sorted(rules["edges"]) if not (root / edge).exists()]
    found += (
        Offence(root / "pyproject.toml", 0, name, f"is declared, and there is no such {kind}: remove it")
        for kind, name in gone
    )
    return tuple(found)


def python(path: Path, text: str) -> Iterator[Offence]:
    """The offences of a module."""
    tree = ast.parse(text, str(path))
    names = dict(_imports(tree))
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Import(names=imported):
                yield from (_offence(path, line, alias.name) for alias in imported if _why(alias.name))
            case ast.ImportFrom(module=str(module), names=imported):
                full = (f"{module}.{alias.name}" for alias in imported)
                yield from (_offence(path, line, name) for name in full if _why(name))
            case ast.Attribute(attr=method) if method in METHODS:
                yield Offence(path, line, method, METHODS[method])
            case ast.Attribute(attr="create_task" | "time" as method, value=owner) if _is_loop(owner):
                yield Offence(path, line, f"loop.{method}", f"goes past the ports: {PORT}")
            case ast.Attribute() if _why(name := _dotted(node, names)) and name.count(".") == _depth(name):
                yield _offence(path, line, name)


def sql(path: Path, text: str, queries: Mapping[str, str]) -> Iterator[Offence]:
    """The offences of a file of SQL: clocks and chance, and a LIMIT that leaves to the planner which rows it means."""
    bare = _without_comments(text)
    for found in (*_SQL.finditer(bare), *_SQL_WORDS.finditer(bare)):
        query = _query_at(text, found.start())
        # A column's default is never decided on, or the decision would have set the column.
        is_default = re.search(r"\bDEFAULT\s+$", bare[: found.start()], re.IGNORECASE)
        if query not in queries and not is_default:
            why = "is nondeterministic: pass it as a parameter, or declare the query in pyproject.toml"
            yield Offence(path, _line(text, found.start()), found[0].rstrip("( "), why)
    for start in _unordered_limits(bare):
        yield Offence(
            path, _line(text, start), "LIMIT", "without ORDER BY: add one, so that every run means the same rows"
        )


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local names and what they stand for."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=imported):
                for alias in imported:
                    yield (
                        alias.asname or alias.name.split(".")[0],
                        alias.name if alias.asname else alias.name.split(".")[0],
                    )
            case ast.ImportFrom(module=str(module), names=imported):
                yield from ((alias.asname or alias.name, f"{module}.{alias.name}") for alias in imported)


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return names.get(name, "")
        case ast.Attribute(value=owner, attr=attribute):
            prefix = _dotted(owner, names)
            return f"{prefix}.{attribute}" if prefix else ""
    return ""


def _why(name: str) -> str | None:
    """Why a dotted name, or one that it lies in, is banned."""
    parts = name.split(".")
    return next((why for end in range(1, len(parts) + 1) if (why := BANNED.get(".".join(parts[:end])))), None)


def _depth(name: str) -> int:
    """The number of dots of the shortest use of what bans a name: `time.time` of `time`, `os.urandom` of itself."""
    parts = name.split(".")
    banned = next(end for end in range(1, len(parts) + 1) if ".".join(parts[:end]) in BANNED)
    return max(banned, 2) - 1


def _offence(path: Path, line: int, name: str) -> Offence:
    return Offence(path, line, name, _why(name) or "")


def _is_loop(owner: ast.expr) -> bool:
    match owner:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.lstrip("_") in _LOOPS
        case ast.Call(func=called):
            return _is_loop(called)
    return False


def _is_edge(path: Path, edges: Mapping[str, str]) -> bool:
    return any(path.as_posix() == edge or path.as_posix().startswith(edge + "/") for edge in edges)


def _without_comments(text: str) -> str:
    """The text with comments and string literals blanked, positions kept."""

    def blank(found: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", found[0])

    return re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", blank, text, flags=re.DOTALL)


def _unordered_limits(bare: str) -> Iterator[int]:
    ordered = [False]  # one flag for each open parenthesis, and one for the statement
    for token in _SQL_TOKEN.finditer(bare):
        match token[0].lower().split()[0]:
            case "(":
                ordered.append(False)
            case ")" if len(ordered) > 1:
                ordered.pop()
            case ";":
                ordered = [False]
            case "order":
                ordered[-1] = True
            case "limit" | "fetch" if not ordered[-1]:
                yield token.start()


def _query_at(text: str, position: int) -> str:
    names = [found[1] for found in _SQL_NAME.finditer(text, 0, position)]
    return names[-1] if names else ""


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def main() -> int:
    offences = check(Path())
    for offence in offences:
        print(offence)
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())

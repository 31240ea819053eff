"""The order in which transactions take their locks, as PostgreSQL shows it; a cycle in it is a deadlock that has not happened yet.

Nodes are classes of locks: the rows of a table, a table as a whole, advisory locks, and the unique keys that inserts of a table
wait for. An edge says that something of one class was held, in some mode, when something of another was taken in a way that may
have to wait. Rows are seen by their `xmax`, and their mode is what the statement says: a row that it does not name was locked by
a foreign key. In which order one statement takes several locks is seen only where it waits in the middle.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.interleave.gates import Kind, Session, Step, parts_of

KEY_SHARE, NO_KEY, UPDATE, INSERT, EXCLUSIVE = "key share", "no key update", "update", "insert", "exclusive"
_ROW_MODES = (KEY_SHARE, NO_KEY, UPDATE)
_CONFLICTS = {
    (KEY_SHARE, UPDATE),
    (NO_KEY, NO_KEY),
    (NO_KEY, UPDATE),
    (UPDATE, UPDATE),
    (INSERT, INSERT),
    (EXCLUSIVE, EXCLUSIVE),
}
# PostgreSQL's table of conflicts between locks on tables, weakest first: each mode with the weakest that it conflicts with.
_TABLE_MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
_WEAKEST_CONFLICT = dict(zip(_TABLE_MODES, (7, 6, 4, 3, 2, 2, 1, 0), strict=True))

_HELD = """
SELECT pid, locktype, mode, granted, transactionid::text AS xid, relname AS name, concat_ws(':', classid, objid) AS key
FROM pg_locks l LEFT JOIN pg_class c ON c.oid = relation LEFT JOIN pg_database d ON d.oid = l.database
WHERE pid = ANY ($1) AND (datname IS NULL OR datname = current_database())
  AND (locktype IN ('advisory', 'transactionid') OR (relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace))
"""
_KEYS = """
SELECT c.relname AS name, (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
                           WHERE a.attrelid = c.oid AND a.attnum = ANY (p.indkey)) AS key,
       EXISTS (SELECT FROM pg_index u JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.indkey[0]
               WHERE u.indrelid = c.oid AND u.indisunique AND (u.indnatts > 1 OR a.attname <> 'id')) AS natural
FROM pg_class c JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND c.relname <> 'alembic_version'
"""


@dataclass(frozen=True, order=True)
class Edge:
    """`held` (a class) was held in `mode` when `taken` was taken in `taking`. Within one class, `up` is the order of ids."""

    held: str
    mode: str
    taken: str
    taking: str
    up: bool = True

    def meets(self, other: Edge) -> bool:
        """Whether who takes what this edge takes may have to wait for who holds what the other holds."""
        return self.taken == other.held and conflict(self.taking, other.mode)

    def __str__(self) -> str:
        return f"{self.held} ({self.mode}) before {self.taken} ({self.taking})"


Lock = tuple[str, str, str]  # class, which one of it, mode


@dataclass
class Recorder:
    """Watches transactions take locks. `edges` says who was seen to take them in this order."""

    admin: Any
    edges: dict[Edge, str] = field(default_factory=dict)
    who: str = ""
    _keys: Mapping[str, str] = field(default_factory=dict)
    _natural: frozenset[str] = frozenset()
    _held: dict[int, dict[Lock, None]] = field(default_factory=dict)

    async def prepare(self) -> None:
        rows = await self.admin.fetch(_KEYS)
        self._keys = {row["name"]: " || '/' || ".join(f"{column}::text" for column in row["key"]) for row in rows}
        self._natural = frozenset(row["name"] for row in rows if row["natural"])

    def begin(self, who: str) -> None:
        """Another run: nobody holds anything."""
        self.who = who
        self._held.clear()

    async def watch(self, sessions: Sequence[Session], step: Step) -> None:
        """After a step, while everybody stands still."""
        session = step.session
        if session is None or session.raw.is_closed():
            return
        if step.kind is not Kind.STATEMENT or not session.raw.is_in_transaction():
            self._held.pop(session.pid, None)
            return
        held = self._held.setdefault(session.pid, {})
        granted, awaited = await self._locks(session.pid, [each.pid for each in sessions], step)
        self._take(held, granted, step)
        self._take(held, awaited, step)  # what one statement waits for comes after what it has already

    def _take(self, held: dict[Lock, None], locks: Sequence[Lock], step: Step) -> None:
        known = {lock[:2] for lock in held}
        new = [lock for lock in locks if lock[:2] not in known]
        for lock in new:
            if _waits(step.text, lock):
                self._follow(held, lock)
        held.update(dict.fromkeys(new))

    def _follow(self, held: Mapping[Lock, None], taken: Lock) -> None:
        for before in held:
            ordered = not taken[0].startswith("rows") or before[0] != taken[0] or before[1] <= taken[1]
            edge = Edge(before[0], before[2], taken[0], taken[2], ordered)
            self.edges.setdefault(edge, self.who)

    async def _locks(self, pid: int, pids: Sequence[int], step: Step) -> tuple[list[Lock], list[Lock]]:
        """What a session has, and what it waits for."""
        everything = await self.admin.fetch(_HELD, list(pids))
        # Who only waits to shut a table is in the way of whoever reads it, too.
        shut = [row["name"] for row in everything if row["mode"] == "AccessExclusiveLock" and row["name"]]
        rows = [row for row in everything if row["pid"] == pid and row["granted"]]
        awaited = [row for row in everything if row["pid"] == pid and not row["granted"]]
        xids = [row["xid"] for row in rows if row["locktype"] == "transactionid"]
        found = [lock for row in rows if (lock := _shown(row))]
        if xids:
            found += [(f"rows of {t}", key, row_mode(step.text, t)) for t, key in await self._rows(xids[0], shut)]
        found += [(f"keys of {t}", "", INSERT) for t in _inserts(step.text) if t in self._natural]
        return found, [lock for row in awaited if (lock := _shown(row))]

    async def _rows(self, xid: str, shut: Sequence[str]) -> list[tuple[str, str]]:
        """Rows that a transaction has locked or changed. What it inserted nobody else sees, nor into a table that is shut."""
        parts = [
            f"SELECT '{table}' AS name, {key} AS key FROM {table} WHERE xmax = '{xid}'::xid"
            for table, key in self._keys.items()
            if not any(name == table or name.startswith(f"{table}_") for name in shut)
        ]
        return [(row["name"], row["key"]) for row in await self.admin.fetch(" UNION ALL ".join(parts))]

    def cycles(self) -> list[str]:
        """Every way in which two or more could come to wait for each other, a sentence each."""
        return sorted(
            " but ".join(f"{edge} [{self.edges[edge]}]" for edge in cycle) for cycle in _cycles(sorted(self.edges))
        )


def _cycles(edges: Sequence[Edge]) -> Iterator[tuple[Edge, ...]]:
    """Shortest cycles, one for each edge that begins one."""
    following = _following([edge for edge in edges if edge.held != edge.taken or not edge.up])
    seen: set[frozenset[Edge]] = set()
    for edge in following:
        path = _way_back(edge, following)
        if path and frozenset(path) not in seen:
            seen.add(frozenset(path))
            yield path


def _following(edges: Sequence[Edge]) -> dict[Edge, list[Edge]]:
    """For each edge those that it may wait for, without those that lead nowhere."""
    by_held: dict[str, list[Edge]] = {}
    for edge in edges:
        by_held.setdefault(edge.held, []).append(edge)
    following = {edge: [other for other in by_held.get(edge.taken, ()) if edge.meets(other)] for edge in edges}
    while dead := {edge for edge, others in following.items() if not others}:
        following = {
            edge: [o for o in others if o not in dead] for edge, others in following.items() if edge not in dead
        }
    return following


def _way_back(first: Edge, following: Mapping[Edge, Sequence[Edge]]) -> tuple[Edge, ...] | None:
    paths: deque[tuple[Edge, ...]] = deque([(first,)])
    known = {first}
    while paths:
        path = paths.popleft()
        if first in following[path[-1]]:
            return path
        for edge in following[path[-1]]:
            if edge not in known:
                known.add(edge)
                paths.append((*path, edge))
    return None


def conflict(one: str, other: str) -> bool:
    """Whether two modes of one class exclude each other."""
    if one in _WEAKEST_CONFLICT and other in _WEAKEST_CONFLICT:
        return _TABLE_MODES.index(other) >= _WEAKEST_CONFLICT[one] and not one == other == "ShareLock"
    return (one, other) in _CONFLICTS or (other, one) in _CONFLICTS


def _shown(row: Any) -> Lock | None:
    """A lock that PostgreSQL shows by itself: all but those of rows."""
    match row["locktype"]:
        case "relation":
            return f"table {row['name']}", row["mode"], row["mode"]  # a stronger mode is another lock
        case "advisory":
            return "advisory", row["key"], EXCLUSIVE
        case _:
            return None


def _waits(text: str, lock: Lock) -> bool:
    """Whether a statement may wait for a lock that it takes."""
    return "pg_try_advisory" not in text if lock[0] == "advisory" else "SKIP LOCKED" not in text


def _inserts(text: str) -> list[str]:
    return re.findall(r"INSERT INTO (\w+)", text)


def row_mode(text: str, table: str) -> str:
    """How strongly a statement locks rows of a table: the strongest of its parts."""
    return max((_part_mode(part, table) for part in parts_of(text)), key=_ROW_MODES.index)


def _part_mode(text: str, table: str) -> str:
    """As it says, or as the foreign keys do that it has to look after."""
    if re.search(rf"\bUPDATE {table}\b", text) or (re.search(rf"INSERT INTO {table}\b", text) and "DO UPDATE" in text):
        return NO_KEY
    if "DELETE FROM" in text:  # with what hangs on it
        return UPDATE
    if re.search(rf"\b(FROM|JOIN) {table}\b", text) and "FOR NO KEY UPDATE" in text:
        return NO_KEY
    if re.search(rf"\b(FROM|JOIN) {table}\b", text) and "FOR UPDATE" in text:
        return UPDATE
    return KEY_SHARE

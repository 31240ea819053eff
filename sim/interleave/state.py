"""States of the database that interleavings start from: kept as tables beside the real ones, put back by one function."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

KEPT = "ring2"
VACUUM_EVERY = 50

_TABLES = """
SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns,
       array_agg(a.atttypid = 'timestamptz'::regtype ORDER BY a.attnum) AS moments
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relname <> 'alembic_version'
GROUP BY c.relname ORDER BY c.relname
"""
_PARTITIONS = """
SELECT inhrelid::regclass::text AS name FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE c.relkind = 'r'
"""
# A function, so that PostgreSQL plans it once.
_RESTORE = """
CREATE FUNCTION {kept}.restore(text) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE _age interval := (SELECT clock_timestamp() - at FROM {kept}.moments WHERE scene = $1);
BEGIN
{statements}
RETURN clock_timestamp();
END $$
"""


@dataclass
class States:
    """Keeps and restores states. All moments of a state move on with the clock, so that it is as old as when it was kept."""

    admin: Any
    _tables: list[Any] = field(default_factory=list)
    _partitions: frozenset[str] = frozenset()
    _restored: int = 0

    async def prepare(self) -> None:
        await self.admin.execute(f"CREATE SCHEMA {KEPT}; SET session_replication_role = replica; SET jit = off")
        await self.admin.execute("SET plan_cache_mode = force_generic_plan")  # planning is most of what a check costs
        self._tables = await self.admin.fetch(_TABLES)
        self._partitions = await self._present()
        await self.admin.execute("\n".join(self._kept()))
        await self.admin.execute(_RESTORE.format(kept=KEPT, statements="\n".join(self._statements())))

    async def keep(self, name: str) -> None:
        """Keep what the database holds now as the state `name`."""
        for table in self._tables:
            await self.admin.execute(
                f"INSERT INTO {KEPT}.{table['name']} SELECT $1, * FROM public.{table['name']}", name
            )
        await self.admin.execute(f"INSERT INTO {KEPT}.moments SELECT $1, clock_timestamp()", name)

    async def restore(self, name: str) -> datetime:
        """Put the state back; returns PostgreSQL's time."""
        for partition in sorted(await self._present() - self._partitions):
            await self.admin.execute(f"DROP TABLE {partition}")
        now: datetime = await self.admin.fetchval(f"SELECT {KEPT}.restore($1)", name)
        self._restored += 1
        if self._restored % VACUUM_EVERY == 0:
            await self.admin.execute(f"VACUUM {', '.join(table['name'] for table in self._tables)}")
        return now

    async def _present(self) -> frozenset[str]:
        return frozenset([row["name"] for row in await self.admin.fetch(_PARTITIONS)])

    def _kept(self) -> Iterator[str]:
        yield f"CREATE TABLE {KEPT}.moments (scene text, at timestamptz);"
        for table in self._tables:
            yield f"CREATE TABLE {KEPT}.{table['name']} AS SELECT ''::text AS scene, * FROM public.{table['name']} WITH NO DATA;"

    def _statements(self) -> Iterator[str]:
        for table in self._tables:
            columns = ", ".join(table["columns"])
            values = ", ".join(
                f"{column} + _age" if moment else column
                for column, moment in zip(table["columns"], table["moments"], strict=True)
            )
            yield f"DELETE FROM public.{table['name']};"
            yield f"INSERT INTO public.{table['name']} ({columns})"
            yield f"SELECT {values} FROM {KEPT}.{table['name']} WHERE scene = $1;"

    # ---- comparing

    async def picture(self) -> tuple[str, ...]:
        """What the database holds, without what no two runs have in common: moments, ids that are new, counters, ciphertext."""
        lines: list[str] = []
        for table in self._tables:
            columns = [c for c, m in zip(table["columns"], table["moments"], strict=True) if not m and c not in _BLIND]
            chosen = ", ".join(columns)
            rows = await self.admin.fetch(
                f"SELECT to_jsonb(t)::text AS row FROM (SELECT {chosen} FROM public.{table['name']}) AS t"
            )
            lines += [f"{table['name']} {self._plain(row['row'])}" for row in rows]
        return tuple(sorted(lines))

    def _plain(self, row: str) -> str:
        for pattern, word in _NEW:
            row = pattern.sub(word, row)
        return row


# How long a machine under load took is in `lost_…`, too.
_BLIND = frozenset(
    {
        "xid",
        "snapshot",
        "ciphertext",
        "hash",
        "prefix",
        "version",
        "counter",
        "command_id",
        "plan_hash",
        "lost_before",
        "lost_total",
    }
)
_NEW = (
    (re.compile(r"\b([a-z]{3})_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b"), r"\1"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:[0-9.]+(Z|\+00:00|\+00)?"), "moment"),
    (re.compile(r"\b[0-9]{10,16}\b"), "token"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "digest"),
    (re.compile(r"\bsp[jk]_[0-9a-f]{12}\b"), "prefix"),
)

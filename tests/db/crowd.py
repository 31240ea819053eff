"""A database in which much has happened: `crowd.sql`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANY = 100_000
SOME = 20_000
LARGE = 10_000  # a table with more rows than this is never read as a whole


@dataclass(frozen=True)
class Crowd:
    """The ids of what is there: `crowd("ins", 7)` is the seventh instance."""

    stem: str

    def __call__(self, prefix: str, number: int) -> str:
        return f"{prefix}{self.stem}{number:012x}"


async def crowd(admin: Any) -> Crowd:
    """Fill a fresh database. `admin` is a superuser's connection: references and triggers are passed over."""
    stem = str(await admin.fetchval("SELECT substr(id_at('x', now()), 2, 25)"))
    text = Path(__file__).with_suffix(".sql").read_text()
    for name, value in (("stem", f"'{stem}'"), ("many", MANY), ("some", SOME)):
        text = text.replace(f"{{{name}}}", str(value))
    async with admin.transaction():
        await admin.execute(text)
    return Crowd(stem)

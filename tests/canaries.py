"""Every secret that tests make is a canary: nothing that is kept, told or logged may hold it (P18).

What the control plane seals is planted as it passes; tokens that tests make are planted by who makes them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import asyncpg

from spectrum.core.sealing import Context, Keyring, Sealed

SHORTEST = 16  # characters: what is shorter is a word of a test, and may stand anywhere

_TABLES = """
SELECT quote_ident(relname) AS name FROM pg_class
WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace"""


@dataclass
class Canaries:
    """Texts that are to be found nowhere, in any of the forms in which they might be written down."""

    _forms: dict[bytes, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._forms)

    def plant(self, text: str, name: str) -> None:
        if len(text) < SHORTEST:
            return
        raw = text.encode()
        self._forms[json.dumps(text)[1:-1].encode()] = f"{name}, as JSON"
        self._forms[raw.hex().encode()] = f"{name}, in hexadecimal"
        self._forms[base64.b64encode(raw).rstrip(b"=")] = f"{name}, in base64"
        self._forms[raw] = name

    def found_in(self, said: str | bytes) -> list[str]:
        """What of them stands in a text, by name."""
        data = said.encode(errors="replace") if isinstance(said, str) else said
        return [name for form, name in self._forms.items() if form in data]

    async def found_in_database(self, admin_url: str) -> list[str]:
        """What of them stands in any row of any table, and where."""
        connection = await asyncpg.connect(admin_url)
        try:
            names = [row["name"] for row in await connection.fetch(_TABLES)]
            every = " UNION ALL ".join(
                f"SELECT '{name}' AS place, to_jsonb({name})::text AS said FROM {name}" for name in names
            )
            rows = await connection.fetch(every)
        finally:
            await connection.close()
        return [f"{row['place']}: {name}" for row in rows for name in self.found_in(row["said"])]


@contextmanager
def planted_as_they_are_sealed(canaries: Canaries) -> Iterator[None]:
    """Meanwhile, what this process seals is planted: secrets of instances, and answers that hold one."""
    seal = Keyring.seal

    def watched(self: Keyring, secret: bytes, context: Context, entropy: bytes) -> Sealed:
        _plant(canaries, secret.decode(errors="replace"), f"{context.table} {context.name}")
        return seal(self, secret, context, entropy)

    Keyring.seal = watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        Keyring.seal = seal  # type: ignore[method-assign]


def _plant(canaries: Canaries, text: str, name: str) -> None:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        text = str(answer.get("token") or "")
    canaries.plant(text, name)

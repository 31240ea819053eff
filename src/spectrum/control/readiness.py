"""Whether this copy of the control plane can serve: PostgreSQL answers, and nothing that it needs is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spectrum.core.errors import Problem
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import look_up

_ALIVE = query("readiness_cell")


@dataclass(frozen=True, slots=True)
class Readiness:
    """Asks PostgreSQL through the system's role."""

    system: Pool

    async def checks(self) -> Mapping[str, str]:
        """Each thing that is needed and what is wrong with it; an empty text is well."""
        try:
            alive = await look_up(self.system, _ALIVE)
        except Problem as problem:
            return {"database": problem.detail}
        return {"database": "", "cell": "" if alive else "The database holds no cell yet: it is being set up."}

"""What must hold of the database after any interleaving: the promises of DESIGN §4 as queries that find what breaks them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sim.interleave.state import KEPT
from sim.promises import REACHABLE
from spectrum.core.jobs.table import OWNABLE, JobState
from spectrum.db.sql import load


def _words(states: Iterable[JobState]) -> str:
    return ", ".join(f"'{state.value}'" for state in sorted(states))


WORDS = {
    "terminal": _words(state for state in JobState if state.terminal),
    "active": _words(state for state in JobState if not state.terminal and state is not JobState.WAITING),
    "ownable": _words(OWNABLE),
    "moves": ", ".join(
        f"('{before}', '{after}')" for before in sorted(REACHABLE) for after in sorted(REACHABLE[before])
    ),
    "jobs_before": f"(SELECT * FROM {KEPT}.jobs WHERE scene = $1)",
    "instances_before": f"(SELECT * FROM {KEPT}.instances WHERE scene = $1)",
}
CHECKS = load(Path(__file__).parent / "promises")
# One statement for everything: a round trip, and planned once.
_ALL = " UNION ALL ".join(
    f"SELECT '{name.partition('_')[0].upper()}: ' || what AS what FROM ({text.format(**WORDS)}) AS c (what)"
    for name, text in CHECKS.items()
)


async def broken(admin: Any, scene: str) -> list[str]:
    """What does not hold, a sentence each: the promise, and what breaks it. `scene`: the kept state that it began from."""
    return [row["what"] for row in await admin.fetch(_ALL, scene)]

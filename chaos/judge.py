"""What must hold afterwards: the promises over the database, the answers that clients were given, and the host as it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from chaos.load import Ledger
from chaos.parts import Cell, ChaosError, wait_until
from sim.interleave.checks import CHECKS, WORDS
from sim.interleave.checks import broken as broken_promises
from sim.interleave.state import States
from spectrum.core.audit import Broken, verify
from spectrum.core.signing import genuine
from spectrum.db.sql import load
from spectrum.providers import open_provider
from tests.providers.process.host import NOTHING, traces

SCENE = "chaos"
OWN = load(Path(__file__).parent / "queries")
ONCE = load(Path(__file__).parent / "once")
COUNT = len(CHECKS) + len(OWN)
CATCH_UP = 60.0  # seconds for the sequencer and the sealer
LAST_BREATH = 30.0  # seconds for a supervisor to end after its instance was purged

_WANTED = """
SELECT instance_id, slot, effect_key FROM effects JOIN instances i ON i.id = instance_id
WHERE wanted = 'present' AND i.hold = 'none'
"""
_BEHIND = """
SELECT (SELECT count(*) FROM events WHERE position IS NULL) + (SELECT count(*) FROM audit WHERE seal_number IS NULL)
"""


async def keep(admin_url: str) -> None:
    """Remember the state before the faults: some promises compare with it."""
    admin = await asyncpg.connect(admin_url)
    try:
        states = States(admin)
        await states.prepare()
        await states.keep(SCENE)
    finally:
        await admin.close()


async def over_the_database(admin_url: str) -> list[str]:
    """What does not hold, a sentence each."""
    admin = await asyncpg.connect(admin_url)
    try:
        return [*await broken_promises(admin, SCENE), *await _broken(admin, OWN)]
    finally:
        await admin.close()


async def without_faults(admin_url: str) -> list[str]:
    """What must hold besides where nothing was harmed: everything was done once."""
    admin = await asyncpg.connect(admin_url)
    try:
        return await _broken(admin, ONCE)
    finally:
        await admin.close()


async def _broken(admin: Any, checks: Mapping[str, str]) -> list[str]:
    found = []
    for name, text in checks.items():
        rows = await admin.fetch(text.format(**WORDS))
        found += [f"{name.partition('_')[0].upper()}: {row[0]}" for row in rows]
    return found


async def attempts(admin_url: str) -> Mapping[str, int]:
    """At steps, by cause: where nothing went wrong all are first ones, a step each."""
    admin = await asyncpg.connect(admin_url)
    try:
        rows = await admin.fetch("SELECT cause, count(*) AS count FROM attempts GROUP BY cause ORDER BY cause")
        return {row["cause"]: row["count"] for row in rows}
    finally:
        await admin.close()


async def over_the_answers(admin_url: str, ledger: Ledger) -> list[str]:
    """Every job that a client was told of is there and ended as it was told; none is there that nobody asked for."""
    admin = await asyncpg.connect(admin_url)
    try:
        rows = {row["id"]: row for row in await admin.fetch("SELECT id, state, operation FROM jobs")}
    finally:
        await admin.close()
    return [*answers(rows, ledger), *ledger.wrong]


def answers(rows: dict[str, Any], ledger: Ledger) -> Iterator[str]:
    keys: dict[str, list[str]] = {}
    for accepted in ledger.accepted:
        keys.setdefault(accepted.job_id, []).append(accepted.verb)
        if accepted.job_id not in rows:
            yield f"P1: job {accepted.job_id} was accepted ({accepted.verb} {accepted.name}) and is lost"
        elif accepted.job_id not in ledger.ended:
            yield f"P1: job {accepted.job_id} ({accepted.verb} {accepted.name}) never ended for who asked"
        elif ledger.ended[accepted.job_id] != rows[accepted.job_id]["state"]:
            yield f"P1: job {accepted.job_id} was {ledger.ended[accepted.job_id]}, and is {rows[accepted.job_id]['state']}"
    for job, verbs in keys.items():
        if len(verbs) > 1 and set(verbs) != {"delete"}:  # a second delete attaches to the first
            yield f"P9: job {job} was the answer to {len(verbs)} commands: {', '.join(verbs)}"
    for job, row in rows.items():
        if job not in keys:
            yield f"P9: job {job} ({row['operation']}) is there, and nobody was told of it"


async def inventory_is_what_is_wanted(admin_url: str, target: str) -> list[str]:
    """The host holds what the database wants there, and nothing else."""
    admin = await asyncpg.connect(admin_url)
    provider = open_provider(target)
    try:
        wanted = {(row["instance_id"], row["slot"], row["effect_key"]) for row in await admin.fetch(_WANTED)}
        there = {(str(item.instance), item.slot, item.key) for item in await provider.inventory()}
    finally:
        await provider.close()
        await admin.close()
    lacking, orphans = _lines(wanted - there), _lines(there - wanted)
    return [f"P3: {what} is wanted and not there" for what in lacking] + [
        f"P3: {what} is there, an orphan" for what in orphans
    ]


async def purged_means_gone(admin_url: str) -> list[str]:
    """Of an instance that is purged nothing names it any more on the host: no process, account, port or group."""
    admin = await asyncpg.connect(admin_url)
    try:
        ids = [row["id"] for row in await admin.fetch("SELECT id FROM instances WHERE lifecycle = 'purged'")]
    finally:
        await admin.close()
    with contextlib.suppress(ChaosError):
        wait_until(lambda: not ids or traces(*ids) == NOTHING, LAST_BREATH, "the end of the last supervisor")
    found = traces(*ids) if ids else NOTHING
    return [f"P3: left on the host: {what}" for kind in vars(found).values() for what in sorted(kind)]


def history_is_whole(made: Cell) -> list[str]:
    """Every event has its place in the log and every audit record its seal, and the chain verifies without the database."""
    try:
        wait_until(lambda: not asyncio.run(_ask(made.admin_url, _BEHIND)), CATCH_UP, "the end of the log")
        with made.client(patience=CATCH_UP) as client:
            verify(client.audit.export(), genuine)
    except ChaosError:
        return [
            f"P7: {asyncio.run(_ask(made.admin_url, _BEHIND))} events and audit records wait for their place for ever"
        ]
    except Broken as broken:
        return [f"P10: the exported chain does not verify: {broken}"]
    return []


async def _ask(admin_url: str, question: str) -> Any:
    admin = await asyncpg.connect(admin_url)
    try:
        return await admin.fetchval(question)
    finally:
        await admin.close()


def _lines(things: Iterable[tuple[str, str, str]]) -> Sequence[str]:
    return [f"{slot} of {instance} under {key}" for instance, slot, key in sorted(things)]


def all_of_it(admin_url: str, target: str, ledger: Ledger) -> list[str]:
    async def ask() -> list[str]:
        return [
            *await over_the_database(admin_url),
            *await over_the_answers(admin_url, ledger),
            *await inventory_is_what_is_wanted(admin_url, target),
        ]

    return asyncio.run(ask())

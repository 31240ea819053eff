"""What a decision sees, read: one statement a table, whatever the number of instances.

The engine's store has locked the instances before; who only says what a command would do has not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import asyncpg

from spectrum.core.ids import InstanceId, JobId, ReleaseId
from spectrum.core.jobs.model import Aggregate, Effect, Instance, Step, Surroundings
from spectrum.core.jobs.store import TOLERANCE_SECONDS
from spectrum.core.product.outline import Outline
from spectrum.db import rows
from spectrum.db.pools import Connection
from spectrum.db.sql import query

_JOBS = query("jobs_of_instances")
_STEPS = query("steps_of_jobs")
_EFFECTS = query("effects_of_instances")
_PLACEMENTS = query("placements_of_instances")
_OUTLINES = query("outlines")
_SURROUNDINGS = query("surroundings")


async def aggregates(
    connection: Connection, found: Mapping[InstanceId, asyncpg.Record], named: Sequence[JobId] = ()
) -> dict[InstanceId, Aggregate]:
    """The aggregates of these rows of instances: their open jobs, and of those that have ended the `named` ones."""
    instance_ids = list(found)
    placements = {r["instance_id"]: r["id"] for r in await connection.fetch(_PLACEMENTS, instance_ids)}
    jobs = await connection.fetch(_JOBS, instance_ids, named)
    steps: dict[str, list[Step]] = {}
    if jobs:
        for row in await connection.fetch(_STEPS, [job["id"] for job in jobs]):
            steps.setdefault(row["job_id"], []).append(rows.step_of(row))
    effects: dict[str, dict[tuple[str, str], Effect]] = {}
    for row in await connection.fetch(_EFFECTS, instance_ids):
        effects.setdefault(row["instance_id"], {})[row["slot"], row["effect_key"]] = rows.effect_of(row)
    made = {
        instance_id: Aggregate(rows.instance_of(row, placements[instance_id]), {}, effects.get(instance_id, {}))
        for instance_id, row in found.items()
    }
    for row in jobs:
        job = rows.job_of(row, tuple(steps.get(row["id"], ())))
        before = made[job.instance_id]
        made[job.instance_id] = replace(before, jobs={**before.jobs, job.id: job})
    return made


async def surroundings(connection: Connection, instances: Sequence[Instance]) -> dict[InstanceId, Surroundings]:
    """What surrounds each of them, at one moment for all."""
    if not instances:
        return {}
    # By target and organization: on a shared target, what brakes one organization is nothing to the others.
    places = sorted({(instance.target_id, instance.organization_id) for instance in instances})
    targets, organizations = [place[0] for place in places], [place[1] for place in places]
    surrounding = await connection.fetch(_SURROUNDINGS, targets, organizations, TOLERANCE_SECONDS)
    found = {(r["target_id"], r["organization_id"]): r for r in surrounding}
    now: datetime = max(row["now"] for row in found.values())
    return {i.id: rows.surroundings_of(found[i.target_id, i.organization_id], now) for i in instances}


async def outlines(connection: Connection, wanted: Mapping[ReleaseId, str]) -> dict[ReleaseId, Outline]:
    """Outlines of releases, each for the kind of target that it is to run on; one that can't run there has none."""
    if not wanted:
        return {}
    found = await connection.fetch(_OUTLINES, sorted(wanted))
    return {r["id"]: Outline.from_json(r["outline"][wanted[r["id"]]]) for r in found if wanted[r["id"]] in r["outline"]}

"""What a decision sees, read: one statement a table, whatever the number of instances.

The engine's store has locked the instances before; who only says what a command would do has not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import asyncpg

from spectrum.core.ids import InstanceId, JobId, ReleaseId
from spectrum.core.jobs.model import Aggregate, Effect, Instance, Job, Step, Surroundings
from spectrum.core.jobs.store import TOLERANCE_SECONDS
from spectrum.core.product.outline import Outline
from spectrum.db import rows
from spectrum.db.pools import Connection
from spectrum.db.sql import query

_JOBS = query("jobs_of_instances")
_STEPS = query("steps_of_jobs")
_EFFECTS = query("effects_of_instances")
_ENDED = query("jobs_ended")
_PLACED = query("instances_placed")
_OUTLINES = query("outlines")
_SURROUNDINGS = query("surroundings")


async def aggregates(connection: Connection, instance_ids: Sequence[InstanceId]) -> dict[InstanceId, Aggregate]:
    """The aggregates of these instances, with their open jobs."""
    if not instance_ids:
        return {}
    effects: dict[str, dict[tuple[str, str], Effect]] = {}
    for row in await connection.fetch(_EFFECTS, instance_ids):
        effects.setdefault(row["instance_id"], {})[row["slot"], row["effect_key"]] = rows.effect_of(row)
    found = {
        row["id"]: Aggregate(rows.instance_of(row, row["placement_id"]), {}, effects.get(row["id"], {}))
        for row in await connection.fetch(_PLACED, instance_ids)
    }
    return with_jobs(found, await _jobs(connection, await connection.fetch(_JOBS, instance_ids)))


async def ended(connection: Connection, instance_ids: Sequence[InstanceId], named: Sequence[JobId]) -> list[Job]:
    """Those of the named jobs that are of these instances and have ended."""
    return await _jobs(connection, await connection.fetch(_ENDED, instance_ids, named)) if named else []


def with_jobs(aggregates: Mapping[InstanceId, Aggregate], jobs: Sequence[Job]) -> dict[InstanceId, Aggregate]:
    """The aggregates with these jobs of theirs."""
    of_instance: dict[InstanceId, dict[JobId, Job]] = {}
    for job in jobs:
        of_instance.setdefault(job.instance_id, {})[job.id] = job
    return {
        instance_id: replace(each, jobs={**each.jobs, **of_instance[instance_id]})
        if instance_id in of_instance
        else each
        for instance_id, each in aggregates.items()
    }


async def _jobs(connection: Connection, found: Sequence[asyncpg.Record]) -> list[Job]:
    steps: dict[str, list[Step]] = {}
    if found:
        for row in await connection.fetch(_STEPS, [row["id"] for row in found]):
            steps.setdefault(row["job_id"], []).append(rows.step_of(row))
    return [rows.job_of(row, tuple(steps.get(row["id"], ()))) for row in found]


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

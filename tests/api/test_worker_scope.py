"""A worker that holds a job gets what that job needs, and nothing of any other organization (P11)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spectrum.core.errors import Problem
from spectrum.core.ids import InstanceId, JobId, OrganizationId
from spectrum.core.jobs.commands import Submit
from spectrum.transports.poll import PollLink
from spectrum.transports.protocol import Incarnation, JobRef
from tests.api.watching import Scene, scene
from tests.db.rows import insert_row, make_id, rows_of
from tests.postgres import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(database, tmp_path) as made:
        yield made


async def held_job(stage: Scene, link: PollLink, incarnation: Incarnation) -> JobRef:
    """A job on the instance, in the hands of the worker."""
    organization = OrganizationId(stage.rows.organization_id)
    job_id, instance_id = JobId(make_id("job")), InstanceId(stage.hand.instance)
    submit = Submit(
        id=job_id,
        instance_id=instance_id,
        organization_id=organization,
        actor="tester",
        job_id=job_id,
        operation="stop",
        operation_version=1,
    )
    await stage.copies[0].plane.engine.execute(submit)
    [held] = await link.claim(incarnation, 1, 1, holds_others=False)
    return JobRef(organization, instance_id, job_id, held.job.fence)


async def test_a_job_of_one_organization_opens_nothing_of_another(stage: Scene) -> None:
    theirs = rows_of("other-corp")
    for table in ("organizations", "products", "releases"):
        await insert_row(stage.admin, table, theirs[table])
    link, incarnation = await stage.link()
    own = await held_job(stage, link, incarnation)
    organization = own.organization_id
    await link.release_document(incarnation, own, stage.rows["releases"]["id"])

    stranger = replace(own, organization_id=OrganizationId(theirs.organization_id))
    with pytest.raises(Problem, match="forbidden"):
        await link.release_document(incarnation, stranger, theirs["releases"]["id"])
    with pytest.raises(Problem, match="forbidden"):
        await link.secrets(incarnation, stranger)

    refused = "SELECT count(*) FROM audit WHERE action = 'call.refused' AND organization_id = $1"
    assert await stage.admin.fetchval(refused, organization) == 2
    assert await stage.admin.fetchval(refused, theirs.organization_id) == 0


REVOKED = "UPDATE workers SET revoked_at = now()"
ENDED = "UPDATE leases SET ended_at = now(), end_reason = 'lapsed'"


@pytest.mark.parametrize("end", [REVOKED, ENDED], ids=["revoked", "lapsed"])
async def test_who_has_lost_its_right_gets_nothing_for_a_job_that_nobody_took_from_it_yet(
    stage: Scene, end: str
) -> None:
    """Its key is still known to the copy, and the job is still its lease's."""
    link, incarnation = await stage.link()
    own = await held_job(stage, link, incarnation)
    release = stage.rows["releases"]["id"]
    await link.secrets(incarnation, own)
    await link.release_document(incarnation, own, release)
    await stage.admin.execute(end)

    with pytest.raises(Problem, match="forbidden"):
        await link.secrets(incarnation, own)
    with pytest.raises(Problem, match="forbidden"):
        await link.release_document(incarnation, own, release)

    count = "SELECT count(*) FROM audit WHERE action = $1"
    assert await stage.admin.fetchval(count, "call.refused") == 2
    assert await stage.admin.fetchval(count, "secrets.fetched") == 1


async def test_a_job_is_held_under_its_fence_as_a_whole_and_by_one_worker(stage: Scene) -> None:
    link, incarnation = await stage.link()
    own = await held_job(stage, link, incarnation)
    others = {"fence": 1, "job_id": "job_other", "instance_id": "ins_other", "organization_id": "org_other"}

    for name, other in others.items():
        changed: Any = {name: other}
        with pytest.raises(Problem, match="forbidden"):
            await link.secrets(incarnation, replace(own, **changed))

    colleague, incarnation = await stage.link()
    with pytest.raises(Problem, match="forbidden"):
        await colleague.secrets(incarnation, own)

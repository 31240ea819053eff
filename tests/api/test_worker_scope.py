"""A worker that holds a job gets what that job needs, and nothing of any other organization (P11)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from spectrum.core.errors import Problem
from spectrum.core.ids import InstanceId, JobId, OrganizationId
from spectrum.core.jobs.commands import Submit
from spectrum.transports.protocol import JobRef
from tests.api.watching import Scene, scene
from tests.db.rows import insert_row, make_id, rows_of
from tests.postgres import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(database, tmp_path) as made:
        yield made


async def test_a_job_of_one_organization_opens_nothing_of_another(stage: Scene) -> None:
    theirs = rows_of("other-corp")
    for table in ("organizations", "products", "releases"):
        await insert_row(stage.admin, table, theirs[table])
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
    link, incarnation = await stage.link()
    [held] = await link.claim(incarnation, 1, 1, holds_others=False)
    own = JobRef(organization, instance_id, job_id, held.job.fence)
    await link.release_document(incarnation, own, stage.rows["releases"]["id"])

    stranger = replace(own, organization_id=OrganizationId(theirs.organization_id))
    with pytest.raises(Problem, match="forbidden"):
        await link.release_document(incarnation, stranger, theirs["releases"]["id"])
    with pytest.raises(Problem, match="forbidden"):
        await link.secrets(incarnation, stranger)

    refused = "SELECT count(*) FROM audit WHERE action = 'call.refused' AND organization_id = $1"
    assert await stage.admin.fetchval(refused, organization) == 2
    assert await stage.admin.fetchval(refused, theirs.organization_id) == 0

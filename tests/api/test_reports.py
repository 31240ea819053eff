"""Reports of several jobs travel in one call, and each is answered for itself (P19)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spectrum.core.errors import ErrorClass, Failure, Problem
from spectrum.core.ids import InstanceId, JobId, LeaseId, OrganizationId
from spectrum.core.jobs.commands import Holding, Intent, Outcome, Result, Submit
from spectrum.core.jobs.table import Phase
from spectrum.core.plan import ready
from spectrum.transports import wire
from spectrum.transports.poll import PollLink
from spectrum.transports.protocol import Incarnation, LinkDown, News, Pulse
from tests.api.watching import Scene, scene
from tests.db.rows import make_id
from tests.postgres import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(database, tmp_path) as made:
        yield made


async def first_news(stage: Scene, link: PollLink, incarnation: Incarnation) -> News:
    """The first report of a job that the worker holds."""
    job_id = JobId(make_id("job"))
    submit = Submit(
        id=job_id,
        instance_id=InstanceId(stage.hand.instance),
        organization_id=OrganizationId(stage.rows.organization_id),
        actor="tester",
        job_id=job_id,
        operation="stop",
        operation_version=1,
    )
    await stage.copies[0].plane.engine.execute(submit)
    [held] = await link.claim(incarnation, 1, 1, holds_others=False)
    intents = tuple(Intent(step.name, Phase.DO) for step in ready(held.job.steps))
    return News(submit.organization_id, submit.instance_id, job_id, held.job.fence, 1, intents=intents)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_a_report_that_is_malformed_is_refused_and_the_one_beside_it_is_applied(stage: Scene) -> None:
    link, incarnation = await stage.link()
    news = await first_news(stage, link, incarnation)
    wrong: Any = {"number": "first"}

    broken, sound = await asyncio.gather(
        link.report(incarnation, replace(news, **wrong)), link.report(incarnation, news), return_exceptions=True
    )

    assert isinstance(broken, Problem)
    assert broken.slug == "malformed"
    assert isinstance(sound, Holding)
    assert any(step.outstanding for step in sound.job.steps)


async def test_a_report_on_an_instance_that_is_held_elsewhere_is_to_be_sent_again_and_keeps_no_other_from_its_answer(
    stage: Scene,
) -> None:
    link, incarnation = await stage.link()
    news = await first_news(stage, link, incarnation)
    stranger = replace(news, instance_id=InstanceId(make_id("ins")))

    async with stage.admin.transaction():
        await stage.admin.execute("SELECT FROM instances WHERE id = $1 FOR UPDATE", news.instance_id)
        held, unknown = await asyncio.gather(
            link.report(incarnation, news), link.report(incarnation, stranger), return_exceptions=True
        )
        assert isinstance(held, LinkDown)
        assert isinstance(unknown, Problem)

    again = await link.report(incarnation, news)
    assert any(step.outstanding for step in again.job.steps)


async def test_what_a_program_printed_is_kept_without_its_nul_characters(stage: Scene) -> None:
    link, incarnation = await stage.link()
    news = await first_news(stage, link, incarnation)
    held = await link.report(incarnation, news)
    printed = Failure(ErrorClass.TRANSIENT, "exit-1", "It ended.", evidence=("a\x00b", "\\u0000"))
    (step,) = [step for step in held.job.steps if step.outstanding]
    outcome = Outcome(step.name, Phase.DO, step.token, Result.ERROR, failure=printed)

    held = await link.report(incarnation, replace(news, number=2, intents=(), outcomes=(outcome,)))

    failure = next(each.failure for each in held.job.steps if each.name == step.name)
    assert failure is not None
    assert failure.evidence == ("a\ufffdb", "\\u0000")


async def test_more_reports_than_a_call_may_have_go_with_several(stage: Scene) -> None:
    link, incarnation = await stage.link()
    organization = OrganizationId(stage.rows.organization_id)
    news = [
        News(organization, InstanceId(make_id("ins")), JobId(make_id("job")), 1, 1)
        for _ in range(3 * wire.REPORTS_LIMIT)
    ]

    answers = await asyncio.gather(*(link.report(incarnation, each) for each in news), return_exceptions=True)

    assert {answer.slug for answer in answers if isinstance(answer, Problem)} == {"not-found"}
    assert len([answer for answer in answers if isinstance(answer, Problem)]) == len(news)


def test_a_call_with_more_reports_than_it_may_have_is_refused_before_they_are_looked_at() -> None:
    for piece in (b"0", b"{}"):
        assert len(wire.apart(wire.together([piece] * wire.REPORTS_LIMIT))) == wire.REPORTS_LIMIT
        with pytest.raises(Problem, match="malformed"):
            wire.apart(wire.together([piece] * (wire.REPORTS_LIMIT + 1)))


async def test_a_call_that_names_an_impossible_lease_harms_no_other_workers(stage: Scene) -> None:
    hostile, theirs = await stage.link()
    honest, ours = await stage.link()
    impossible = replace(theirs, lease_id=LeaseId("lea%00"))

    answers = await asyncio.gather(
        *(hostile.beat(impossible, number, 0, []) for number in range(1, 9)),
        *(honest.beat(ours, number, 0, []) for number in range(1, 9)),
        return_exceptions=True,
    )

    assert not any(isinstance(answer, Pulse) for answer in answers[:8])
    assert all(isinstance(answer, Pulse) for answer in answers[8:])


def test_a_body_that_is_no_list_of_reports_is_refused_as_a_whole() -> None:
    for body in (b"", b"{", b"[]", b'{"reports": 7}', b"\xff"):
        with pytest.raises(Problem, match="malformed"):
            wire.apart(body)

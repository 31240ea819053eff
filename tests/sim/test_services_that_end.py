"""A service that has ended for good can't become healthy: a create says so at once, unless the service was meant to end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.run import run
from sim.system import outline
from sim.twins.provider import Act
from sim.twins.things import Script as Behaviour
from sim.world import World
from spectrum.core.jobs.model import Job
from spectrum.core.jobs.table import JobState
from spectrum.core.product.outline import Need, Outline
from spectrum.operations import CATALOG
from spectrum.providers.protocol import Strength
from tests.sagas import stage
from tests.sagas.script import Script

ENDED = 2.0  # virtual seconds
SOON = 20.0  # far less than a service is given to become healthy


def product(*, completes: bool = False, checked: bool = True) -> Outline:
    """`web` needs `db`: its end, or its health."""
    known = outline()
    db = replace(known.services[0], completes=completes, health_checked=checked)
    needs = (Need("db", "service_completed_successfully" if completes else "service_healthy"),)
    return replace(known, services=(db, replace(known.services[1], needs=needs)))


def create(monkeypatch: pytest.MonkeyPatch, made_of: Outline, code: int) -> tuple[Job, float, dict[str, float]]:
    """The job of a create whose `db` ends with this code; how long it took, and when each slot was made (virtual seconds)."""
    monkeypatch.setattr(stage, "product", lambda: made_of)
    found: list[tuple[Job, float, dict[str, float]]] = []

    async def scenario(world: World) -> None:
        world.faults = script = Script(world.choices, None)
        here = stage.Stage(world, script, CATALOG, Strength.ATOMIC)
        behaviour = Behaviour(healthy_after=None, ends_after=ENDED, code=code, tail=("these were its last words",))
        here.system.target.scripts["db"] = behaviour
        job = await here.ended((await here.submit("create")).id)
        made = {entry.call.slot: entry.at for entry in here.system.target.ledger if entry.act is Act.MADE}
        found.append((job, world.loop.now, made))

    outcome = run(scenario, stage.FIFO)
    assert outcome.violation is None, outcome.violation
    return found[0]


@pytest.mark.parametrize(
    ("completes", "checked", "code"),
    [(False, True, 3), (False, True, 0), (False, False, 3), (True, False, 3)],
    ids=["it failed", "it ended well, but was to be healthy", "it failed unchecked", "it was to complete, and failed"],
)
def test_a_service_that_has_ended_for_good_fails_the_job_at_once_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, completes: bool, checked: bool, code: int
) -> None:
    job, took, _ = create(monkeypatch, product(completes=completes, checked=checked), code)

    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert (job.failure.code, job.failure.evidence) == ("service-ended", ("these were its last words",))
    assert job.failure.message == f"Step healthy-db: db has ended (exit code {code}) and is not started again."
    assert took < SOON


def test_a_service_that_others_wait_to_complete_has_ended_before_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    job, _, made = create(monkeypatch, product(completes=True, checked=False), code=0)

    assert job.state is JobState.SUCCEEDED
    assert made["web/container"] >= made["db/container"] + ENDED


def test_a_service_without_a_health_check_may_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    job, _, _ = create(monkeypatch, product(checked=False), code=0)

    assert job.state is JobState.SUCCEEDED

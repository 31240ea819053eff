"""Real processes under real faults: nothing is lost, doubled, orphaned or stuck. `make chaos` does the same at length."""

from __future__ import annotations

import os

import pytest

from chaos.campaign import Wish, campaign
from chaos.machine import missing
from chaos.nemesis import BOUT, Kind, left_out

MANY_KINDS = 257  # a seed whose first bout has nine of the ten kinds, three times a worker's death or sleep
REQUIRED = "chaos" in os.environ.get("SPECTRUM_TEST_REQUIRE", "").split(",")


def test_jobs_under_faults_end_once_each_and_leave_what_is_wanted(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("chaos")
    folder.chmod(0o755)
    wish = Wish(MANY_KINDS, jobs=12, faults=BOUT, customers=5, lease=3.0, residents=1, exactly=True)

    tally = campaign(wish, folder)

    assert sum(tally.faults.values()) == BOUT
    assert sum(tally.jobs.values()) >= 12
    assert tally.claims, "no worker held a job when it was killed or frozen"
    assert tally.held, "\n".join(tally.lines())


def test_while_postgresql_is_away_for_three_leases_no_job_is_rescued_and_the_product_sees_each_step_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("away")
    folder.chmod(0o755)
    away = (Kind.AWAY,)

    tally = campaign(Wish(1, jobs=6, faults=1, customers=6, lease=3.0, only=away, residents=0, exactly=True), folder)

    assert tally.spooled > 0
    assert "rescue" not in tally.attempts
    assert tally.executions.count > 0
    assert {how.split()[1] for how in tally.jobs} == {"succeeded"}
    assert tally.held, "\n".join(tally.lines())


def test_this_machine_allows_every_kind_of_fault() -> None:
    absent = left_out(missing())
    said = "; ".join(f"{kind}: {reason}" for kind, reason in absent.items())
    if absent and not REQUIRED:
        pytest.skip(f"left out of chaos runs: {said}")
    assert not absent, said

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


def test_no_job_is_rescued_because_postgresql_was_away_for_three_leases_and_what_was_spooled_meanwhile_is_heard(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("away")
    folder.chmod(0o755)
    away = (Kind.AWAY,)

    tally = campaign(Wish(1, jobs=6, faults=1, customers=6, lease=3.0, only=away, residents=0, exactly=True), folder)

    assert tally.spooled > 0
    assert "rescue" not in tally.attempts
    assert {how.split()[1] for how in tally.jobs} == {"succeeded"}
    assert tally.held, "\n".join(tally.lines())


def test_without_faults_each_step_is_done_once_as_the_product_itself_saw(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("once")
    folder.chmod(0o755)

    tally = campaign(Wish(1, jobs=24, faults=0, customers=6, lease=15.0, residents=0), folder)

    creates, starts = tally.jobs["create succeeded"], tally.jobs.get("start succeeded", 0)
    assert tally.executions.count == 2 * creates + starts + tally.jobs["delete succeeded"] + tally.jobs.get(
        "stop succeeded", 0
    )
    assert all(tally.executions.by_worker.values())
    assert tally.held, "\n".join(tally.lines())


def test_this_machine_allows_every_kind_of_fault() -> None:
    absent = left_out(missing())
    said = "; ".join(f"{kind}: {reason}" for kind, reason in absent.items())
    if absent and not REQUIRED:
        pytest.skip(f"left out of chaos runs: {said}")
    assert not absent, said

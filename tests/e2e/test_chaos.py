"""Real processes under real faults: nothing is lost, doubled, orphaned or stuck. `make chaos` does the same at length."""

from __future__ import annotations

import pytest

from chaos.campaign import Wish, campaign


def test_jobs_under_faults_end_once_each_and_leave_what_is_wanted(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("chaos")
    folder.chmod(0o755)

    tally = campaign(Wish(seed=20261123, jobs=30, faults=10, customers=4, lease=8.0, exactly=True), folder)

    assert sum(tally.faults.values()) >= 10
    assert sum(tally.jobs.values()) >= 30
    assert tally.held, "\n".join(tally.lines())

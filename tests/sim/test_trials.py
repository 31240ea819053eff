"""What one thing that goes wrong must not do, and seeds that once found a bug in production code."""

from __future__ import annotations

import pytest

from sim import report
from sim.nemesis import LONG_AWAY
from sim.run import run
from sim.scenarios import find
from sim.system import SPOOLED

SLOW_AND_LOSSY = {
    "nemesis crash": 0.2,
    "nemesis pause": 0.2,
    "http slow": 0.2,
    "http duplicate": 0.2,
    "provider.observe hang": 0.2,
}


@pytest.mark.parametrize("begin", range(1, 25, 6))
def test_nobody_loses_a_job_because_postgresql_was_away_for_three_leases(begin: int) -> None:
    spooled = 0
    for seed in range(begin, begin + 6):
        outcome = run(find("database-away"), seed)
        assert outcome.violation is None, report.verdict(outcome)
        assert outcome.marks[LONG_AWAY] == 1
        spooled += outcome.marks[SPOOLED]

    assert spooled


@pytest.mark.parametrize("seed", range(1, 7))
def test_no_job_fails_because_its_target_was_away_for_an_hour(seed: int) -> None:
    outcome = run(find("target-away"), seed)

    assert outcome.violation is None, report.verdict(outcome)
    assert outcome.seconds > 3600


@pytest.mark.parametrize("begin", range(1, 33, 8))
def test_where_nothing_fails_no_job_fails_and_nobody_is_rescued(begin: int) -> None:
    for seed in range(begin, begin + 8):
        outcome = run(find("nothing-fails"), seed)
        assert outcome.violation is None, report.verdict(outcome)


@pytest.mark.parametrize("begin", range(1, 33, 8))
def test_real_requests_and_signatures_keep_every_promise(begin: int) -> None:
    for seed in range(begin, begin + 8):
        outcome = run(find("system-signed"), seed)
        assert outcome.violation is None, report.verdict(outcome)


@pytest.mark.parametrize(
    ("scenario", "seed", "rates"),
    [
        pytest.param(
            "system-signed", 15, {"http altered": 0.2}, id="an altered call ended the worker that had sent it"
        ),
        pytest.param("blind", 2717, {}, id="a breaker stayed open where all jobs of its target were held"),
        pytest.param(
            "system-best-effort", 16392, {}, id="a copy of an old call was taken for one that makes looks worthless"
        ),
        pytest.param("system-atomic", 1, SLOW_AND_LOSSY, id="one look without an answer held a job up for an hour"),
    ],
)
def test_a_seed_that_found_a_bug_finds_none_any_more(scenario: str, seed: int, rates: dict[str, float]) -> None:
    outcome = run(find(scenario), seed, rates=rates)

    assert outcome.violation is None, report.verdict(outcome)

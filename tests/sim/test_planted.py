"""Planted bugs: what the simulator must find, within how many seeds; and what it must not find where nothing is planted."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sim.run import Outcome, run
from sim.scenarios import provider
from sim.twins.provider import Bug as TargetBug
from sim.world import Scenario
from spectrum.providers.protocol import Strength
from tests.sim.toy import Bug, fenced, toy

WITHIN = 60  # seeds


def first_failure(scenario: Scenario, rates: Mapping[str, float] | None = None) -> Outcome:
    for seed in range(1, WITHIN + 1):
        outcome = run(scenario, seed, rates=rates)
        if outcome.violation is not None:
            return outcome
    pytest.fail(f"not found within {WITHIN} seeds")


@pytest.mark.parametrize(
    ("bug", "promise"),
    [(Bug.NO_FENCE, "P4"), (Bug.LOST_UPDATE, "P5"), (Bug.ACK_BEFORE_COMMIT, "P1"), (Bug.DUAL_WRITE, "P6")],
)
def test_a_planted_bug_is_found(bug: Bug, promise: str) -> None:
    violation = first_failure(toy(bug)).violation

    assert violation is not None
    assert violation.promise == promise


@pytest.mark.parametrize(
    ("bug", "promise"),
    [(TargetBug.NO_FENCE, "P4"), (TargetBug.NO_TOKEN, "P4"), (TargetBug.TWO_PER_SLOT, "P2")],
)
def test_a_target_that_does_not_fence_is_found(bug: TargetBug, promise: str) -> None:
    late = {"provider.ensure late": 0.1, "provider.remove late": 0.1, "cancel": 0.2}
    violation = first_failure(provider(Strength.ATOMIC, frozenset({bug})), late).violation

    assert violation is not None
    assert violation.promise == promise


@pytest.mark.parametrize("begin", range(1, 121, 30))
def test_nothing_is_found_where_nothing_is_planted(begin: int) -> None:
    for seed in range(begin, begin + 30):
        assert run(fenced, seed).violation is None


@pytest.mark.parametrize("strength", list(Strength))
def test_a_target_of_either_strength_ends_as_wanted(strength: Strength) -> None:
    for seed in range(1, 31):
        assert run(provider(strength), seed).violation is None

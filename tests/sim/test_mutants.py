"""Bugs planted into the production code are found by the simulator, or by the saga harness where one moment alone shows them."""

from __future__ import annotations

from itertools import chain

import pytest

import sim.promises  # noqa: F401 - registers the invariants
from sim.run import run
from sim.trials import system
from spectrum.core.jobs.table import Lifecycle
from spectrum.providers.protocol import Strength
from tests.sagas.situations import Start, situations
from tests.sagas.stage import play
from tests.sim.mutants import MUTANTS, TRUSTING_UNDO, Mutant

WITHIN = 40  # seeds; the one that is remembered comes first


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_bug_in_the_protocol_is_found(mutant: Mutant) -> None:
    with mutant.planted():
        for seed in chain([mutant.seed], range(1, WITHIN)):
            violation = run(system(Strength.ATOMIC), seed, rates={"nemesis drift": 0.0, **mutant.rates}).violation
            if violation is not None:
                break
        else:
            pytest.fail(f"not found within {WITHIN} seeds")

    assert violation.promise in mutant.promises, violation


def test_an_undo_that_trusts_what_it_sees_is_found_by_a_late_call() -> None:
    start = Start("create", 1, Lifecycle.CREATING, Strength.ATOMIC)
    late = [saga for saga in situations(start, "calls", share=1) if saga.breaks_for_good and saga.strike is not None]
    found = 0
    with TRUSTING_UNDO.made():
        for saga in late:
            try:
                play(saga)
            except AssertionError:
                found += 1

    assert found

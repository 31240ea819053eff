"""Every planted bug is found: by a seed that found it before, or by another soon after."""

from __future__ import annotations

from itertools import chain

import pytest

from tests.mutants.hunt import hunt, hunt_in_sagas, remembered
from tests.mutants.library import MUTANTS
from tests.mutants.planting import Mutant

WITHIN = 40  # seeds, where the ones that are remembered no longer find it: whatever changes a schedule may hide a bug from a seed


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_bug_in_the_protocol_is_found(mutant: Mutant) -> None:
    found = hunt(mutant, chain(remembered().get(mutant.name, ()), range(1, WITHIN)))

    assert found.promise in mutant.promises, found


def test_an_undo_that_trusts_what_it_sees_is_found_by_a_late_call() -> None:
    assert hunt_in_sagas().promise


def test_at_least_forty_bugs_are_planted_under_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40

"""Every planted bug is found: by a seed that found it before, or by another soon after."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest

from tests.mutants import hunt as hunting
from tests.mutants.hunt import Found, hunt, hunt_in_sagas, remember, remembered
from tests.mutants.library import MUTANTS
from tests.mutants.planting import Mutant

WITHIN = 40  # seeds, where the ones that are remembered no longer find it: whatever changes a schedule may hide a bug from a seed


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_bug_in_the_protocol_is_found(mutant: Mutant) -> None:
    found = hunt(mutant, chain(remembered().get(mutant.name, ()), range(1, WITHIN)))

    assert found.promise in mutant.promises, found


def test_an_undo_that_trusts_what_it_sees_is_found_by_a_late_call() -> None:
    assert hunt_in_sagas().promise


def test_a_hunt_for_some_bugs_leaves_what_is_known_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = MUTANTS[0].name, MUTANTS[1].name
    monkeypatch.setattr(hunting, "SEEDS", tmp_path / "seeds.json")
    hunting.SEEDS.write_text(json.dumps({one: [1], other: [2], "no longer planted": [3]}), encoding="utf-8")

    remember([Found(one, "sim", "P4", 7, 7), Found(other, "sim", "", 600, 600)])

    assert remembered() == {one: [7], other: [2]}


def test_at_least_forty_bugs_are_planted_under_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40

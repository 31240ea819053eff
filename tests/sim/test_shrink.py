"""Shrinking: a smaller tape that breaks the same promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim import report
from sim.run import Outcome, run
from sim.shrink import shrink, weight
from tests.sim import toy


def failing() -> Outcome:
    return next(outcome for seed in range(1, 60) if (outcome := run(toy.dual_write, seed)).violation is not None)


def test_a_failing_tape_becomes_smaller_and_still_fails(tmp_path: Path) -> None:
    found = failing()
    smallest = shrink(found, lambda tape: run(toy.dual_write, found.seed, tape), budget=150)

    assert found.violation is not None
    assert smallest.violation is not None
    assert smallest.violation.promise == found.violation.promise
    assert weight(smallest.tape) < weight(found.tape)
    assert sum(map(len, smallest.tape.values())) < 50

    report.save(tmp_path / "tape.json", "toy", smallest)
    scenario, seed, tape = report.load(tmp_path / "tape.json")
    again = run(toy.dual_write, seed, tape)

    assert scenario == "toy"
    assert again.digest == smallest.digest
    assert str(again.violation) == str(smallest.violation)


def test_what_does_not_fail_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="nothing to shrink"):
        shrink(run(toy.fenced, 1), lambda tape: run(toy.fenced, 1, tape))


def test_the_story_says_who_did_what_and_which_promise_broke() -> None:
    story = report.story(failing())

    assert "works on first from step 0 under fence 1" in story
    assert "broke P6 (an event is published if and only if its transaction committed)" in story


def test_a_tape_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tape.json").write_text('{"version": 0}')

    with pytest.raises(ValueError, match="record it anew"):
        report.load(tmp_path / "tape.json")

"""The ledger of proof: runs and bugs are appended, and summed up on one page."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sim import ledger
from sim.interleave.conductor import Tally
from sim.interleave.ring import Summary
from sim.ledger import Bug, Run


def test_sums_grow_from_run_to_run(tmp_path: Path) -> None:
    lines, page = tmp_path / "proof.jsonl", tmp_path / "proof.md"
    for seeds in (1_000, 500):
        run = Run("sim", "everything", seeds, seconds=86_400.0, faults={"a crash": 7}, marks={"a zombie": 2})
        ledger.add(run, lines, page)

    told = page.read_text()
    assert "| 1,500 seeds | 14 | 2.0 | 0 |" in told
    assert "| a crash | 14 |" in told
    assert "| a zombie | 4 |" in told
    assert ledger.render(lines) == told


def test_a_run_says_of_which_commit_it_is(tmp_path: Path) -> None:
    ledger.add(Run("ring2", "all pairs", 3, "interleavings"), tmp_path / "proof.jsonl", None)

    (run,), _ = ledger.read(tmp_path / "proof.jsonl")
    assert run.commit == ledger.commit()


def test_bugs_are_told_with_the_seed_that_brings_them_back(tmp_path: Path) -> None:
    lines = tmp_path / "proof.jsonl"
    ledger.add(Bug("sim", "64", "P5", "a stale look", "a commit"), lines, None)

    assert "| a stale look | P5 | sim | 64 | a commit |" in ledger.render(lines)


def test_a_planted_bug_that_survived_is_told(tmp_path: Path) -> None:
    lines = tmp_path / "proof.jsonl"
    ledger.add(Run("mutants", "all", 2, "bugs", mutants={"no fence": "P4, seed 1", "no audit": ""}), lines, None)

    told = ledger.render(lines)
    assert "| no fence | P4, seed 1 |" in told
    assert "| no audit | **survived** |" in told


def test_a_ring_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use one of sim, ring2"):
        ledger.add(Run("ring9", "nonsense", 1), tmp_path / "proof.jsonl", None)


def test_interleavings_that_went_wrong_and_cycles_of_locks_are_told_as_violations(tmp_path: Path) -> None:
    summary = Summary(interleavings=7, anomalies=2, cycles={"a, then b, then a"})
    summary.tally += Tally(steps=90, deadlocks=1, faults=Counter({"a connection dies in COMMIT": 3}))

    run = summary.as_run()

    assert (run.ring, run.count, run.unit, run.violations) == ("ring2", 7, "interleavings", 3)
    assert run.faults == {"a connection dies in COMMIT": 3}
    assert (run.extra["statements"], run.extra["deadlocks"]) == (90, 1)
    lines = tmp_path / "proof.jsonl"
    ledger.add(run, lines, None)
    assert "| a connection dies in COMMIT | 3 |" in ledger.render(lines)

"""The hunt for planted bugs: seeds are run until one finds the bug; the seeds that did are remembered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sim import scenarios
from sim.run import run
from spectrum.core.jobs.table import Lifecycle
from spectrum.providers.protocol import Strength
from tests.mutants.library import MUTANTS, TRUSTING_UNDO
from tests.mutants.planting import Mutant
from tests.sagas.situations import Start, situations
from tests.sagas.stage import play

SEEDS = Path(__file__).with_name("seeds.json")
TRUSTING = "an undo makes no call where it sees nothing to be done"


@dataclass(frozen=True)
class Found:
    """What a hunt came to: the ring that found the bug, the promise it saw broken, after how many seeds (or sagas), and by which.

    `tried` without a `promise`: the bug has survived so many.
    """

    mutant: str
    ring: str
    promise: str
    tried: int
    seed: int
    right: bool = True  # whether the promise is one that the bug was planted to break
    what: str = ""


def hunt(mutant: Mutant, seeds: Iterable[int]) -> Found:
    """Run seeds until one finds the bug."""
    tried, seed = 0, 0
    with mutant.planted():
        for seed in seeds:
            tried += 1
            violation = run(scenarios.find(mutant.scenario), seed, rates=mutant.rates).violation
            if violation is not None:
                right = violation.promise in mutant.promises
                return Found(mutant.name, "sim", violation.promise, tried, seed, right, violation.what)
    return Found(mutant.name, "sim", "", tried, seed)


def hunt_in_sagas() -> Found:
    """The bug that one moment alone shows: a late call after an undo that trusted what it saw."""
    start = Start("create", 1, Lifecycle.CREATING, Strength.ATOMIC)
    late = [saga for saga in situations(start, "calls", share=1) if saga.breaks_for_good and saga.strike is not None]
    with TRUSTING_UNDO.made():
        for number, saga in enumerate(late, 1):
            try:
                play(saga)
            except AssertionError as error:
                return Found(TRUSTING, "sagas", "P3", number, number, what=str(error)[:200])
    return Found(TRUSTING, "sagas", "", len(late), 0)


def by_name(name: str) -> Mutant:
    return next(mutant for mutant in MUTANTS if mutant.name == name)


def remembered() -> Mapping[str, list[int]]:
    """By mutant: the seeds that found it."""
    found: dict[str, list[int]] = json.loads(SEEDS.read_text(encoding="utf-8"))
    return found


def remember(found: Iterable[Found]) -> None:
    """Write down which seeds found these; what is known of others that are still planted stays."""
    planted = {mutant.name for mutant in MUTANTS}
    known = {name: seeds for name, seeds in remembered().items() if name in planted}
    kept = known | {each.mutant: [each.seed] for each in found if each.ring == "sim" and each.promise}
    SEEDS.write_text(json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")

"""What a person reads of a run: its story, its verdict, and the tape file that brings it back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sim.choices import Tape
from sim.invariants import PROMISES
from sim.run import Outcome

TAPE_VERSION = 1


def verdict(outcome: Outcome) -> str:
    """What a seed came to, with the expanded mix of its faults."""
    mix = ", ".join(f"{fault} {rate:g}" for fault, rate in outcome.options.items()) or "none"
    head = f"seed {outcome.seed} · {outcome.mode} · {outcome.steps} steps · {outcome.seconds:.1f} s · {outcome.digest}"
    if outcome.violation is None:
        return f"{head}\n  faults: {mix}\n  held"
    promise = outcome.violation.promise
    meaning = f" ({PROMISES[promise]})" if promise in PROMISES else ""
    return f"{head}\n  faults: {mix}\n  broke {promise}{meaning}: {outcome.violation.what}"


def story(outcome: Outcome) -> str:
    """Who did what, in order. Times are virtual seconds."""
    width = max((len(line.who) for line in outcome.story), default=0)
    lines = [f"{line.at:12.6f}  {line.who:<{width}}  {line.what}" for line in outcome.story]
    return "\n".join([*lines, "", verdict(outcome)])


def save(path: Path, scenario: str, outcome: Outcome) -> None:
    """Write the run down, so that `load` brings it back on any machine."""
    promise = outcome.violation.promise if outcome.violation else None
    tape = {name: list(values) for name, values in outcome.tape.items()}
    document = {"version": TAPE_VERSION, "scenario": scenario, "seed": outcome.seed, "broke": promise, "tape": tape}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def load(path: Path) -> tuple[str, int, Tape]:
    """Scenario, seed and tape from a file that `save` wrote.

    Raises ValueError for a file of another version.
    """
    document = json.loads(path.read_text())
    if document.get("version") != TAPE_VERSION:
        raise ValueError(f"{path}: not a tape of version {TAPE_VERSION}; record it anew with `python -m sim run`")
    return str(document["scenario"]), int(document["seed"]), {name: tuple(v) for name, v in document["tape"].items()}


def missing(marks: Iterable[str]) -> str:
    return "".join(f"  never reached: {mark}\n" for mark in marks)

"""Marks: rare situations that a run of seeds has to reach at least once, or it has proved less than it seems to.

`sometimes("a stale fence was refused")` counts; `never_reached` says which of the declared ones a run of seeds missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sim.loop import SimLoop

_declared: dict[str, str] = {}
_not_yet: set[str] = set()


def declare(mark: str, why: str, *, not_yet: bool = False) -> str:
    """Make a mark known, with the reason why a run must reach it, or why none can yet. Returns the mark."""
    if _declared.setdefault(mark, why) != why:
        raise ValueError(f"mark {mark!r} is declared twice, with different reasons")
    if not_yet:
        _not_yet.add(mark)
    return mark


def declared() -> tuple[str, ...]:
    """The marks that are known so far."""
    return tuple(sorted(_declared))


def sometimes(mark: str, condition: bool = True) -> bool:
    """Count that the running world reached `mark`. Returns the condition."""
    if mark not in _declared:
        raise ValueError(f"mark {mark!r} is not declared: call marks.declare where its module begins")
    if condition:
        SimLoop.current().marks[mark] += 1
    return condition


def never_reached(counts: Counter[str], expected: Iterable[str] | None = None) -> tuple[str, ...]:
    """Those of the expected marks (all that are declared and can be reached) that no run reached."""
    wanted = _declared.keys() - _not_yet if expected is None else expected
    return tuple(sorted(mark for mark in wanted if not counts[mark]))


def report(counts: Counter[str]) -> str:
    """One line for each declared mark: how often it was reached, what it is, why it matters."""
    return "\n".join(f"{counts[mark]:>8}  {mark}: {why}" for mark, why in sorted(_declared.items()))

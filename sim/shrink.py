"""Shrinking: from a tape that fails to a shorter and duller one that breaks the same promise.

Works on the tape alone (drops streams, sets choices to zero, drops them, lowers them), so it needs no random generator. After
Hypothesis's internal reduction (MacIver and Donaldson, ECOOP 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sim.choices import Tape
from sim.run import Outcome

Rerun = Callable[[Tape], Outcome]
Current = Callable[[], Tape]


def weight(tape: Tape) -> tuple[int, int, int]:
    """How far a tape is from the dullest: choices that are not 0, their sum, and its length."""
    values = [value for stream in tape.values() for value in stream]
    return sum(value > 0 for value in values), sum(values), len(values)


def shrink(failing: Outcome, rerun: Rerun, budget: int = 600) -> Outcome:
    """The smallest failing outcome that `budget` reruns find. It breaks the same promise as `failing` does."""
    if failing.violation is None:
        raise ValueError(f"seed {failing.seed} does not fail: there is nothing to shrink")
    search = _Search(failing, rerun, budget)
    while search.sweep(_without_streams, _zeroed, _dropped, _lowered):
        pass
    return search.best


class _Search:
    def __init__(self, failing: Outcome, rerun: Rerun, budget: int) -> None:
        assert failing.violation is not None
        self.best = failing
        self._promise = failing.violation.promise
        self._rerun = rerun
        self._left = budget

    def sweep(self, *passes: Callable[[Current], Iterator[Tape]]) -> bool:
        """Try the candidates of every pass once. Whether that made the tape smaller and there is budget for more."""
        before = weight(self.best.tape)
        for candidates in passes:
            for candidate in candidates(lambda: self.best.tape):
                if self._left <= 0:
                    return False
                if weight(candidate) < weight(self.best.tape):
                    self._try(candidate)
        return weight(self.best.tape) < before

    def _try(self, candidate: Tape) -> None:
        self._left -= 1
        outcome = self._rerun(candidate)
        same = outcome.violation is not None and outcome.violation.promise == self._promise
        if same and weight(outcome.tape) < weight(self.best.tape):
            self.best = outcome


# A pass asks for the current tape before each candidate: it goes on from where the last success has led.


def _without_streams(current: Current) -> Iterator[Tape]:
    """Groups of streams, then single ones: a rate in the mix that is set to nothing takes a whole kind of fault away."""
    size = (len(current()) + 1) // 2
    while size:
        begin = 0
        while begin < len(names := sorted(current(), key=lambda name: (-len(current()[name]), name))):
            group = set(names[begin : begin + size])
            yield {name: values for name, values in current().items() if name not in group}
            # What went took its place with it.
            begin += size if group <= set(current()) else 0
        size //= 2


def _zeroed(current: Current) -> Iterator[Tape]:
    for name, begin, end in _chunks(current):
        values = current()[name]
        if any(values[begin:end]):
            yield {**current(), name: (*values[:begin], *([0] * (end - begin)), *values[end:])}


def _dropped(current: Current) -> Iterator[Tape]:
    for name, begin, end in _chunks(current):
        values = current()[name]
        yield {**current(), name: (*values[:begin], *values[end:])}


def _lowered(current: Current) -> Iterator[Tape]:
    for name, index, _ in _chunks(current, largest=1):
        for divisor in (1_000, 2):
            values = current().get(name, ())
            if index < len(values) and 0 < (lower := max(1, values[index] // divisor)) < values[index]:
                yield {**current(), name: (*values[:index], lower, *values[index + 1 :])}


def _chunks(current: Current, largest: int | None = None) -> Iterator[tuple[str, int, int]]:
    """Stretches of the streams, longest first: halves, quarters, … single choices."""
    size = largest or (max((len(values) for values in current().values()), default=0) + 1) // 2
    while size:
        for name in tuple(current()):
            begin = 0
            while begin < (length := len(current().get(name, ()))):
                yield name, begin, min(begin + size, length)
                begin += size
        size //= 2

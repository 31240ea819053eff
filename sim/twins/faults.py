"""The swarm: which faults a seed knows, how often, and each single decision to inject one.

Every kind of fault gets a rate of its own per seed, most often zero: a mix of everything at once hides what a few faults alone show
(swarm testing; Groce et al., ISSTA 2012). All decisions come from the run's choices, so that they are on its tape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeVar

from sim.choices import Choices

T = TypeVar("T")

RATES = (0.0,) * 7 + (0.01, 0.05, 0.2)
QUICK = (0.001, 0.003, 0.01, 0.03)  # seconds
SLOW = (0.3, 1.0, 4.0, 16.0)  # seconds
BUGGIFY_ACTIVE = 0.25  # of the seeds know a given point of `buggify`
BUGGIFY_FIRES = 0.25  # of the calls, in a seed that knows it


class Ending(StrEnum):
    """How a call of a port ends. In all but the first two the caller cannot know what happened."""

    DONE = "done"
    REFUSED = "failed before anything was done"
    ANSWER_LOST = "done, but the answer is lost"
    LATE = "done late, after the caller gave up"
    TWICE = "done twice"
    HANG = "not done, and never answered"


_ENDINGS = tuple(Ending)


class Faults:
    """The faults of one run. `rates` fixes some of them; the others are drawn when they are first asked for."""

    def __init__(self, choices: Choices, rates: Mapping[str, float] | None = None, others: float | None = None) -> None:
        self.injected: Counter[str] = Counter()
        self.healed = False
        self._choices = choices
        self._rates = dict(rates or {})
        self._others = others
        self._never: set[str] = set()  # those that this run does not know
        self._endings: dict[str, list[float]] = {}  # the rates of each port's bad endings
        self._delays: dict[str, tuple[str, Callable[[int], int]]] = {}

    def calm(self) -> None:
        """No fault in the whole of this run: what must not happen where nothing fails shows in no other."""
        self._rates.clear()
        self._never.clear()
        self._endings.clear()
        self._others = 0.0

    def stress(self, rates: Mapping[str, float]) -> None:
        """These faults often, unless the run was given rates of its own for them. Called before anything begins."""
        self._rates = {**rates, **self._rates}
        self._never.clear()

    def heal(self) -> None:
        """From now on nothing fails: the second phase of a run, in which everything has to come to its end."""
        self.healed = True

    def rate(self, fault: str) -> float:
        """How often this fault strikes in this run, 0 to 1."""
        if self.healed:
            return 0.0
        if (rate := self._rates.get(fault)) is None:
            rate = self._others
            if rate is None:
                rate = RATES[self._choices.stream(f"mix {fault}").below(len(RATES))]
            self._rates[fault] = rate
        return rate

    def strikes(self, fault: str) -> bool:
        """Whether the fault happens now."""
        if self.healed or fault in self._never:  # no choice; most faults of most seeds are none
            return False
        rate = self.rate(fault)
        if not rate:
            self._never.add(fault)
            return False
        happens = self._choices.stream(fault).chance(rate)
        if happens:
            self.injected[fault] += 1
        return happens

    def ending(self, port: str) -> Ending:
        """How this call of the port ends."""
        if self.healed:
            return Ending.DONE
        if (rates := self._endings.get(port)) is None:
            rates = self._endings[port] = [self.rate(f"{port} {ending.name.lower()}") for ending in _ENDINGS[1:]]
        if not any(rates):  # no choice
            return Ending.DONE
        index = self._choices.stream(f"{port} ending").weighted((max(0.1, 1 - sum(rates)), *rates))
        if index:
            self.injected[f"{port} {_ENDINGS[index].name.lower()}"] += 1
        return _ENDINGS[index]

    def delay(self, port: str) -> float:
        """How long a message or a piece of work of the port takes, in seconds."""
        if (known := self._delays.get(port)) is None:
            known = self._delays[port] = (f"{port} slow", self._choices.stream(f"{port} delay").below)
        slow, below = known
        stretch = SLOW if self.strikes(slow) else QUICK
        return stretch[below(len(stretch))]

    def one_of(self, what: str, options: tuple[T, ...] | list[T]) -> T:
        """One of the options; the first is the dullest."""
        return options[self._choices.stream(what).below(len(options))]

    def buggify(self, name: str) -> bool:
        """The simulator's answer to `spectrum.ports.buggify`."""
        if self.healed:
            return False
        known = f"buggify {name}"
        if known not in self._rates and self._others == 0.0:
            return False
        if known not in self._rates:
            active = self._choices.stream(f"mix {known}").chance(BUGGIFY_ACTIVE)
            self._rates[known] = BUGGIFY_FIRES if active else 0.0
        return self.strikes(known)

    def options(self) -> dict[str, float]:
        """The mix of this run: every fault that it knows, with its rate."""
        return {fault: rate for fault, rate in sorted(self._rates.items()) if rate}

"""The choices of a run: every decision that the simulator takes, drawn from a seed or read from a tape, always written to one.

A choice is an integer in [0, n). 0 is always the dullest: the oldest handle, no fault, the shortest delay. So a tape that is
shorter than its run, or was set to zeros here and there, still describes a run: that is what shrinking lives on. Streams are
separate by name, so that one more choice in one does not shift the others. After Hypothesis's choice sequence.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

Tape = Mapping[str, Sequence[int]]


class Stream:
    """The choices of one kind, in order."""

    __slots__ = ("_draw", "_written", "taken")

    def __init__(self, seed: str, written: Sequence[int] | None) -> None:
        self.taken: list[int] = []
        self._written = written
        self._draw = random.Random(seed).random

    def below(self, count: int) -> int:
        """One of `count` options. A single option is no choice and leaves no trace on the tape."""
        if count <= 1:
            return 0
        if self._written is None:
            return self.put(int(self._draw() * count))
        return self.put(min(self._next(), count - 1))

    def chance(self, probability: float) -> bool:
        """Whether it happens. A probability of 0 is no choice."""
        return probability > 0 and self.weighted((1 - probability, probability)) == 1

    def weighted(self, weights: Sequence[float]) -> int:
        """An index into `weights`, which need not add up to 1."""
        if self._written is not None:
            return self.put(min(self._next(), len(weights) - 1))
        left = self._draw() * sum(weights)
        for index, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return self.put(index)
        return self.put(0)

    def draw(self) -> float:
        """A number in [0, 1) that is not a choice of its own: what is made of it has to be `put`."""
        return self._draw()

    def put(self, value: int) -> int:
        self.taken.append(value)
        return value

    def _next(self) -> int:
        assert self._written is not None
        position = len(self.taken)
        return self._written[position] if position < len(self._written) else 0


class Choices:
    """All streams of one run."""

    def __init__(self, seed: int, tape: Tape | None = None) -> None:
        self.seed = seed
        self._tape = tape
        self._streams: dict[str, Stream] = {}

    def stream(self, name: str) -> Stream:
        if (stream := self._streams.get(name)) is None:
            written = None if self._tape is None else self._tape.get(name, ())
            stream = self._streams[name] = Stream(f"{self.seed}:{name}", written)
        return stream

    @property
    def replaying(self) -> bool:
        return self._tape is not None

    def tape(self) -> dict[str, tuple[int, ...]]:
        """What was chosen so far, without the zeros that a shorter tape says as well."""
        trimmed = {name: _trimmed(stream.taken) for name, stream in self._streams.items()}
        return {name: taken for name, taken in trimmed.items() if taken}


def _trimmed(values: Sequence[int]) -> tuple[int, ...]:
    end = len(values)
    while end and values[end - 1] == 0:
        end -= 1
    return tuple(values[:end])

"""What a copy of the control plane keeps in memory, bounded by about how many bytes that takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_OBJECT = 64  # bytes of anything by itself, about
_PLACE = 32  # of a place in a container, with its key


class Weighed(Generic[K, V]):
    """Values by key, up to a weight of `limit` bytes in all. Those that were not used for the longest time go first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.weight = 0
        self._kept: dict[K, tuple[V, int]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[K]:
        return iter(self._kept)

    def __getitem__(self, key: K) -> V:
        kept = self._kept.pop(key)
        self._kept[key] = kept
        return kept[0]

    def put(self, key: K, value: V, weight: int) -> None:
        """Keep it in the place of what was there. What is heavier than everything may be is not kept."""
        self.drop(key)
        self._kept[key] = (value, weight)
        self.weight += weight
        while self.weight > self.limit:
            self.drop(next(iter(self._kept)))

    def drop(self, key: K) -> None:
        """Forget it, if it is there."""
        if (kept := self._kept.pop(key, None)) is not None:
            self.weight -= kept[1]

    def clear(self) -> None:
        self._kept.clear()
        self.weight = 0


def weight_of(value: Any) -> int:
    """About how many bytes a JSON value takes; in PostgreSQL it takes less."""
    if isinstance(value, str):
        return _OBJECT + (len(value) if value.isascii() else len(value.encode()))
    if isinstance(value, Mapping):
        return _OBJECT + sum(_PLACE + weight_of(name) + weight_of(each) for name, each in value.items())
    if isinstance(value, list | tuple):
        return _OBJECT + sum(_PLACE + weight_of(each) for each in value)
    if isinstance(value, int):
        return _OBJECT + value.bit_length() // 6
    return _OBJECT

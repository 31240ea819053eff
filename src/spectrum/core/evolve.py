"""`dataclasses.replace` for the path that every command takes, in a tenth of its time."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


def evolve(thing: T, **changes: Any) -> T:
    """A copy of a dataclass without slots and without a `__post_init__`, with some of its fields changed.

    Raises TypeError for a change of what is no field.
    """
    evolved = object.__new__(type(thing))
    fields = vars(evolved)
    fields.update(vars(thing))
    known = len(fields)
    fields.update(changes)
    if len(fields) != known:
        raise TypeError(f"{type(thing).__name__} has no field {' or '.join(sorted(set(changes) - set(vars(thing))))}")
    return evolved

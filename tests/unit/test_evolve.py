"""A copy with some fields changed is what the constructor would have made."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, replace

import pytest

from spectrum.core.evolve import evolve


@dataclass(frozen=True)
class Thing:
    name: str
    size: int = 1


def test_a_copy_has_the_changes_and_the_rest_of_the_original_which_stays_as_it_is() -> None:
    thing = Thing("a")
    assert evolve(thing, size=2) == replace(thing, size=2) == Thing("a", 2)
    assert thing == Thing("a")


def test_a_copy_is_as_frozen_as_its_original() -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(evolve(Thing("a")), "size", 3)  # noqa: B010


def test_what_is_no_field_can_not_be_changed() -> None:
    with pytest.raises(TypeError, match="Thing has no field colour"):
        evolve(Thing("a"), colour="red")

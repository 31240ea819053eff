"""A sample of the saga harness's situations on real processes.

Situation N is the same in every run. `SPECTRUM_TEST_SAGAS_PROCESS=400` plays so many of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

import pytest

from spectrum.core.jobs.table import Lifecycle
from spectrum.operations import CATALOG
from spectrum.operations.context import Context, Output
from spectrum.providers.protocol import Strength
from tests.sagas.machine import machine
from tests.sagas.situations import GROUPS, Start, situations, starts
from tests.sagas.stage import Played, Saga, play

SAMPLE = int(os.environ.get("SPECTRUM_TEST_SAGAS_PROCESS", "30"))


def situation(number: int) -> Saga:
    """Each start of an operation in turn, in some trouble."""
    dice = Random(number)
    known = [start for start in starts(CATALOG) if start.strength is Strength.ATOMIC]
    Random(0).shuffle(known)
    start = known[number % len(known)]
    while not (
        found := [saga for saga in situations(start, dice.choice(list(GROUPS)), share=1) if _hangs_on_work(saga)]
    ):
        continue
    return dice.choice(found)


def _hangs_on_work(saga: Saga) -> bool:
    """Leases are kept by the clock: a saga may have ended before one is."""
    return saga.strike is None or not saga.strike.place.endswith("store.lease")


def rewritten(saga: Saga, turns: Mapping[str, int]) -> Saga:
    """The saga for a ground whose places are come by so often: situations are drawn from what the twin comes by."""
    strike = saga.strike
    assert strike is not None
    return replace(saga, strike=replace(strike, turn=strike.turn % turns[strike.place]))


def play_here(saga: Saga) -> Played:
    with machine() as here:
        played = play(saga, ground=here.ground())
        here.require_as_told()
        return played


@pytest.mark.parametrize("number", range(SAMPLE))
def test_an_operation_ends_as_it_should_on_real_processes(
    number: int, record_property: Callable[[str, object], None]
) -> None:
    saga = situation(number)
    played = play_here(saga)
    if not played.as_written:
        assert play_here(rewritten(saga, played.turns)).as_written
    record_property("situations", 1)


async def _nothing(context: Context) -> Output:
    return {}


def test_an_operation_that_only_says_so_does_not_pass_on_real_processes() -> None:
    purge = CATALOG["purge", 1]
    idle = {name: replace(purge.actions[name], do=_nothing) for name in ("remove", "verify-gone")}
    catalog = {**CATALOG, ("purge", 1): replace(purge, actions={**purge.actions, **idle})}
    start = Start("purge", 1, Lifecycle.DELETED, Strength.ATOMIC, catalog)

    with machine() as here, pytest.raises(AssertionError, match=r"at rest: the target holds \{'"):
        play(start.saga(), ground=here.ground())

"""The saga harness: every operation of the catalog, from every lifecycle, on both kinds of target, in every kind of trouble.

It finds operations by itself. `make sagas` plays every situation; the ordinary run plays every error at every step, and a sample of
the crashes, zombies, bad calls, failing stores, cancels and releases.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from spectrum.operations import CATALOG
from tests.sagas.situations import GROUPS, Start, situations, starts
from tests.sagas.stage import play

SHARE = 1 if os.environ.get("SPECTRUM_TEST_SAGAS") == "all" else 20


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("start", starts(CATALOG), ids=str)
def test_an_operation_ends_as_it_should_whatever_goes_wrong(
    start: Start, group: str, record_property: Callable[[str, object], None]
) -> None:
    played = situations(start, group, SHARE)
    for saga in played:
        play(saga)
    record_property("situations", len(played))

"""Clients that do not read cost the server next to nothing, and the others nothing at all (`make soak-sse` plays it with 2,000)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.streams import MIB, Wish, soak
from spectrum.db.embedded import Embedded
from tests.postgres import chosen_binaries


def test_half_of_the_clients_read_nothing_and_nobody_misses_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = Wish(clients=80, stalled=40, restless=8, organizations=2, events=2500, size=4000, rate=0)
    embedded = Embedded(tmp_path / "database", durable=False, dies_with_parent=True, binaries=chosen_binaries())
    try:
        tally = asyncio.run(soak(wish, tmp_path, embedded.start().url()))
    finally:
        embedded.remove()
    with capsys.disabled():
        print("", *tally.lines(), sep="\n  ")
    assert tally.broken() == []
    assert tally.judged["events"] == wish.clients * wish.events
    assert tally.unread > tally.most > tally.peak - tally.idle > MIB

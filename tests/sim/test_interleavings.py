"""Ring 2 on a real PostgreSQL: all pairs of transactions, each interleaved statement by statement as its seed says."""

from __future__ import annotations

import pytest

from sim.interleave import command
from sim.interleave.catalogue import EXEMPT, writing
from sim.interleave.gates import name_of, parts_of
from sim.interleave.locks import KEY_SHARE, NO_KEY, UPDATE, row_mode
from sim.interleave.ring import LEFT, Ring, Summary, meeting, pairs, solos
from spectrum.db.sql import FOLDER, load, query, together

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quiet")]

SEEDS = range(1500)
CHUNK = 125


async def test_every_query_that_writes_is_reached_by_a_transaction_of_the_catalogue(ring: Ring) -> None:
    for name, scene in solos():
        outcome = await ring.alone(name, scene)
        assert not outcome.anomalies, command.story(outcome)
    missing = writing(load(FOLDER).items()) - set(ring.conductor.seen)
    assert not missing, f"enter a transaction that runs them into sim/interleave/catalogue.py: {sorted(missing)}"


def test_of_a_statement_that_carries_out_several_queries_each_is_seen_and_locks_as_it_says_itself() -> None:
    statement = together((query("jobs_update"), query("effects_delete"), query("events_append")))
    assert [name_of(part) for part in parts_of(statement)] == ["jobs_update", "effects_delete", "events_append"]
    assert row_mode(statement, "jobs") == UPDATE  # the strongest: what hangs on a deleted row is not named
    assert row_mode(together((query("jobs_update"), query("events_append"))), "jobs") == NO_KEY
    assert row_mode(together((query("jobs_update"), query("events_append"))), "targets") == KEY_SHARE


def test_what_is_exempt_from_the_catalogue_exists() -> None:
    assert set(EXEMPT) <= set(load(FOLDER))


def test_the_seeds_of_a_test_run_meet_every_pair() -> None:
    assert {meeting(seed)[0] for seed in SEEDS} == set(pairs())


@pytest.mark.parametrize("first", range(SEEDS.start, SEEDS.stop, CHUNK))
async def test_no_interleaving_of_two_transactions_breaks_a_promise(ring: Ring, first: int) -> None:
    summary = Summary()
    for seed in range(first, min(first + CHUNK, SEEDS.stop)):
        outcome = await ring.interleave(seed)
        assert not outcome.anomalies, command.story(outcome)
        summary.add(outcome)
    assert summary.interleavings == min(CHUNK, SEEDS.stop - first)


async def test_no_two_transactions_take_their_locks_in_opposite_orders(ring: Ring) -> None:
    cycles = await ring.record_locks()
    assert len(ring.locks.edges) > 500
    assert not cycles, "\n".join(cycles)


async def test_a_seed_tells_the_same_story_twice(ring: Ring) -> None:
    for seed in range(1000, 1010):
        stories = [(await ring.interleave(seed)).story for _ in range(2)]
        assert stories[0] == stories[1]


async def test_who_waits_is_told_and_goes_on_when_the_other_has_committed(ring: Ring) -> None:
    waits = [await ring.interleave(seed, ("remove target", "remove target"), "idle") for seed in range(8)]
    assert any(outcome.tally.waits for outcome in waits)
    assert LEFT in waits[0].answers


REMEMBERED = [
    ("create under one key", "remove target", "idle", 1864),  # refused where there was another choice
    ("create under one key", "remove target", "idle", 1802),  # an instance came onto a target while it was removed
    ("create under one key", "remove target", "empty", 577),
    ("create under one key", "remove target", "empty", 5476),  # and while the removal waited for its lock
    ("remove target", "remove target", "empty", 1054),  # both removed it
    ("drain worker", "revoke worker", "held", 652),  # a drain that changed nothing any more was written down
]


@pytest.mark.parametrize(("left", "right", "scene", "seed"), REMEMBERED)
async def test_what_was_found_once_is_not_found_again(ring: Ring, left: str, right: str, scene: str, seed: int) -> None:
    outcome = await ring.interleave(seed, (left, right), scene)
    assert not outcome.anomalies, command.story(outcome)

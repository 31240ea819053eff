"""The stream of faults: the same for a seed, dense, and never more than a part can bear."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest

from chaos.machine import Means
from chaos.nemesis import BOUT, DRAWN, LONGEST, Fault, Kind, faults, left_out
from chaos.network import Harm, Way
from chaos.tally import SLACK

LEASE = 5.0


def first(count: int, seed: int = 1, kinds: tuple[Kind, ...] = DRAWN) -> list[Fault]:
    return list(islice(faults(seed, LEASE, kinds), count))


def test_the_same_seed_does_the_same_harm_and_another_seed_another() -> None:
    assert first(200) == first(200)
    assert first(200) != first(200, seed=2)


@pytest.mark.parametrize("seed", range(20))
def test_in_a_bout_a_fault_comes_every_two_seconds_at_the_latest(seed: int) -> None:
    pairs = [pair for pair in pairwise(first(300, seed)) if pair[1].number % BOUT != 1]
    assert all(after.at - before.at <= LONGEST for before, after in pairs)


@pytest.mark.parametrize("seed", range(20))
def test_between_bouts_all_is_whole_for_as_long_as_a_job_may_wait_to_be_claimed_again(seed: int) -> None:
    stream = first(300, seed)
    for number, fault in enumerate(stream[BOUT::BOUT], 1):
        ended = max(before.at + before.seconds for before in stream[: number * BOUT])
        assert fault.at - ended >= LEASE + SLACK


def test_every_kind_of_fault_comes() -> None:
    assert {fault.kind for fault in first(200)} == set(DRAWN)


@pytest.mark.parametrize("seed", range(20))
def test_no_organ_is_seized_twice_at_once(seed: int) -> None:
    until: dict[tuple[str, str], float] = {}
    for fault in first(300, seed):
        assert until.get((fault.organ, fault.part), 0.0) < fault.at
        until[fault.organ, fault.part] = fault.at + fault.seconds


def test_few_kinds_of_faults_wait_for_a_part_to_be_whole() -> None:
    assert {fault.kind for fault in first(100, kinds=(Kind.RESTART,))} == {Kind.RESTART}
    assert len(first(100, kinds=(Kind.FREEZE,))) == 100


def test_who_is_frozen_sleeps_longer_than_the_lease() -> None:
    frozen = [fault for fault in first(300) if fault.kind is Kind.FREEZE]
    assert frozen
    assert all(fault.seconds > LEASE for fault in frozen)


def test_what_a_machine_does_not_allow_is_left_out_with_the_reason() -> None:
    absent = left_out({Means.NFTABLES: "nft is not installed"})
    assert absent == dict.fromkeys((Kind.DEAF, Kind.MUTE, Kind.LOSS), "nft is not installed")


def test_a_partition_drops_one_way_only() -> None:
    deaf, mute = Way("a", 7, None, harms={Harm.DEAF}), Way("b", 8, None, harms={Harm.MUTE})
    assert list(deaf.rules()) == [("arriving", "tcp sport 7 drop")]
    assert list(mute.rules()) == [("leaving", "tcp dport 8 drop")]

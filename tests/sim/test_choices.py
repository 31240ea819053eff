"""The tape: what a run chose brings it back, whatever the random generator does."""

from __future__ import annotations

from sim.choices import Choices
from sim.run import run
from tests.sim import toy


def test_a_tape_replays_a_run_under_another_seed_s_generator() -> None:
    choices = Choices(1)
    drawn = [choices.stream("a").below(10) for _ in range(20)]
    replayed = Choices(999, choices.tape())

    assert [replayed.stream("a").below(10) for _ in range(20)] == drawn


def test_a_tape_that_has_ended_says_zero() -> None:
    choices = Choices(1, {"a": (3,)})

    assert [choices.stream("a").below(10) for _ in range(3)] == [3, 0, 0]


def test_a_choice_that_is_out_of_range_is_the_last_option() -> None:
    assert Choices(1, {"a": (7,)}).stream("a").below(3) == 2


def test_streams_do_not_shift_each_other() -> None:
    one, other = Choices(1), Choices(1)
    other.stream("b").below(100)

    assert [one.stream("a").below(100) for _ in range(5)] == [other.stream("a").below(100) for _ in range(5)]


def test_what_cannot_be_chosen_is_not_on_the_tape() -> None:
    choices = Choices(1)
    choices.stream("a").below(1)
    choices.stream("a").chance(0.0)

    assert choices.stream("a").taken == []


def test_a_whole_run_replays_from_its_tape() -> None:
    for seed in (4, 5, 6, 7):  # one of each mode
        first = run(toy.fenced, seed)
        again = run(toy.fenced, seed, first.tape)

        assert again.digest == first.digest
        assert again.tape == first.tape

"""The call window: each number once, in any order within the last 1,024."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.signing import MAX_NUMBER, WINDOW_SIZE, CallWindow


def accept_all(numbers: list[int]) -> CallWindow:
    window = CallWindow()
    for number in numbers:
        window = window.accept(number) or window
    return window


@given(st.lists(st.integers(1, 3_000), max_size=200))
def test_a_window_accepts_what_a_set_of_used_numbers_would(numbers: list[int]) -> None:
    window, used, highest = CallWindow(), set[int](), 0
    for number in numbers:
        expected = number not in used and number > highest - WINDOW_SIZE
        after = window.accept(number)
        assert (after is not None) is expected
        if after is not None:
            window = after
            used.add(number)
            highest = max(highest, number)
    assert window.highest == highest


@given(st.lists(st.integers(1, MAX_NUMBER), max_size=30))
def test_a_window_survives_being_stored(numbers: list[int]) -> None:
    window = accept_all(numbers)
    stored = window.seen_bytes()
    assert len(stored) == WINDOW_SIZE // 8
    assert CallWindow.from_bytes(window.highest, stored) == window


def test_a_late_number_is_accepted_once_and_an_ancient_one_never() -> None:
    window = accept_all([2_000])
    late = window.accept(2_000 - WINDOW_SIZE + 1)
    assert late is not None
    assert late.accept(2_000 - WINDOW_SIZE + 1) is None
    assert window.accept(2_000 - WINDOW_SIZE) is None


def test_numbers_out_of_range_are_refused() -> None:
    assert CallWindow().accept(0) is None
    assert CallWindow().accept(-1) is None
    assert CallWindow().accept(MAX_NUMBER + 1) is None

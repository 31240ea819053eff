"""How much one caller may ask for: never more than the rate, and all of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.rates import BURST_SECONDS, Rate

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

asking = st.lists(st.tuples(st.integers(1, 400), st.floats(0, 20)), max_size=40)
rates = st.sampled_from([0.1, 1 / 3, 1.0, 7.0, 200.0])


@given(rates, asking)
def test_nobody_gets_more_than_a_burst_and_what_was_earned_since(
    per_second: float, asked: list[tuple[int, float]]
) -> None:
    rate, spent, now, total = Rate(per_second), None, NOON, 0
    for wanted, pause in asked:
        granted, spent = rate.take(spent, wanted, now)
        total += granted
        assert total <= rate.burst + (now - NOON).total_seconds() * per_second + 0.01
        now += timedelta(seconds=pause)


@given(rates, asking)
def test_who_waits_as_long_as_told_gets_a_request(per_second: float, asked: list[tuple[int, float]]) -> None:
    rate, spent, now = Rate(per_second), None, NOON
    for wanted, pause in asked:
        _, spent = rate.take(spent, wanted, now)
        wait = rate.wait(spent, now)
        assert wait <= 1.001 / per_second + 0.001  # a thousandth of a request is rounded
        assert rate.take(spent, 1, now + timedelta(seconds=wait + 0.001))[0] == 1
        now += timedelta(seconds=pause)


def test_after_a_rest_a_whole_burst_may_be_taken_at_once() -> None:
    rate = Rate(2.0)
    granted, spent = rate.take(None, 1_000, NOON)
    assert granted == rate.burst == 60
    assert rate.take(spent, 1, NOON)[0] == 0
    assert rate.take(spent, 1_000, NOON + timedelta(seconds=BURST_SECONDS))[0] == 60


def test_a_long_rest_saves_up_no_more_than_a_burst() -> None:
    _, spent = Rate(2.0).take(None, 10, NOON)
    assert Rate(2.0).take(spent, 1_000, NOON + timedelta(days=9))[0] == 60

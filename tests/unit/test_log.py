"""The order of the log within one batch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.log import Unplaced, in_order

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def event(subject: str, sequence: int, second: float) -> Unplaced:
    return Unplaced(f"evt_{subject}_{sequence}", subject, sequence, NOW + timedelta(seconds=second))


def test_events_are_ordered_by_their_time() -> None:
    events = [event("b", 1, 2), event("a", 1, 1), event("a", 2, 3)]
    assert [(e.subject, e.sequence) for e in in_order(events)] == [("a", 1), ("b", 1), ("a", 2)]


def test_a_clock_that_went_back_turns_no_subject_around() -> None:
    events = [event("a", 1, 9), event("b", 1, 5), event("a", 2, 1)]
    assert [(e.subject, e.sequence) for e in in_order(events)] == [("a", 1), ("b", 1), ("a", 2)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=30), st.randoms(use_true_random=False))
def test_every_event_comes_once_and_every_subject_in_sequence_however_they_were_read(told, random) -> None:  # type: ignore[no-untyped-def]
    counts: dict[str, int] = {}
    events = []
    for subject, second in told:
        counts[subject] = counts.get(subject, 0) + 1
        events.append(event(subject, counts[subject], second))
    shuffled = events.copy()
    random.shuffle(shuffled)

    ordered = in_order(shuffled)

    assert sorted(ordered, key=lambda e: e.id) == sorted(events, key=lambda e: e.id)
    for subject, count in counts.items():
        assert [e.sequence for e in ordered if e.subject == subject] == list(range(1, count + 1))
    assert ordered == in_order(events)

"""The window of the log: what it holds of an organization is all that there is after a place, or it says that it is not."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from spectrum.control.window import OVERHEAD_BYTES, Told, Window

ORGANIZATIONS = ("org_a", "org_b", "org_c")
BEGIN = 40
MOST = 7


def told(position: int, organization: str = "org_a", size: int = 10) -> Told:
    return Told(position, organization, "ins_1", "io.spectrum.job.failed.v1", b"x" * size)


def positions(events: Sequence[Told] | None) -> list[int] | None:
    return None if events is None else [event.position for event in events]


@given(
    batches=st.lists(st.lists(st.tuples(st.sampled_from(ORGANIZATIONS), st.integers(0, 400)), max_size=8), max_size=12),
    limit=st.integers(0, 5 * OVERHEAD_BYTES),
)
def test_whoever_is_within_the_window_misses_nothing_and_it_is_never_larger_than_it_may_be(
    batches: list[list[tuple[str, int]]], limit: int
) -> None:
    window, log = Window(BEGIN, limit), list[Told]()
    for batch in batches:
        new = [told(BEGIN + len(log) + n, *each) for n, each in enumerate(batch, 1)]
        log += new
        assert window.add(new) == {event.organization for event in new}
        assert window.size <= limit
        assert window.position == BEGIN + len(log)
        for organization in ORGANIZATIONS:
            own = [event.position for event in log if event.organization == organization]
            for place in range(BEGIN - 1, window.position + 1):
                found = positions(window.since(organization, place, MOST))
                assert found in (None, [position for position in own if position > place][:MOST])
            assert window.since(organization, window.position, MOST) == ([] if own else ())
            assert window.since(organization, BEGIN - 1, MOST) is None


def test_one_who_waited_long_while_others_were_told_much_is_still_within_the_window() -> None:
    window = Window(BEGIN, 4 * OVERHEAD_BYTES)
    window.add([told(BEGIN + 1, "org_quiet")])
    window.add([told(BEGIN + n, "org_loud") for n in range(2, 100)])
    assert positions(window.since("org_quiet", BEGIN, MOST)) is None
    assert positions(window.since("org_quiet", BEGIN + 1, MOST)) == []
    assert positions(window.since("org_silent", BEGIN, MOST)) == []
    assert positions(window.since("org_loud", BEGIN + 50, MOST)) is None

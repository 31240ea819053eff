"""Ids: typed, ordered by time, told apart by prefix."""

from datetime import UTC, datetime, timedelta

import pytest

from spectrum.core import ids

NOON = datetime(2026, 11, 23, 12, 0, 0, 123000, UTC)


def test_an_id_says_its_kind_and_its_moment() -> None:
    made = ids.make("ins", NOON, bytes(10))
    assert ids.is_id("ins", made)
    assert not ids.is_id("job", made)
    assert ids.moment_of(made) == NOON


def test_later_ids_sort_after_earlier_ones() -> None:
    earlier = ids.make("job", NOON, b"\xff" * 10)
    later = ids.make("job", NOON + timedelta(milliseconds=1), bytes(10))
    assert earlier < later


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown id prefix"):
        ids.make("xyz", NOON, bytes(10))


@pytest.mark.parametrize(
    "text",
    ["", "ins_", "ins_123", "INS_0198c0f5-5d7b-7000-8000-000000000000", "ins_0198c0f5-5d7b-4000-8000-000000000000"],
)
def test_what_is_not_an_id_is_told(text: str) -> None:
    assert not ids.is_id("ins", text)

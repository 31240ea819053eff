"""Within a version an event only grows, by members that nobody has to send."""

from __future__ import annotations

from typing import Any

import pytest

from spectrum.core.events.compatibility import breaking

TEXT = {"type": "string", "description": "What for."}
PUBLISHED: dict[str, Any] = {
    "properties": {"name": TEXT, "health": {"type": "string", "enum": ["good", "bad"]}},
    "required": ["name"],
}


def changed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"properties": {**PUBLISHED["properties"], **properties}, "required": required}


def test_an_optional_member_and_better_words_break_nobody() -> None:
    now = changed({"note": {"type": "string"}, "name": {**TEXT, "description": "Better words."}}, ["name"])
    assert breaking(PUBLISHED, now) == []


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({"properties": {"name": TEXT}, "required": ["name"]}, "health is gone"),
        (changed({"name": {"type": "integer"}}, ["name"]), "name means something else"),
        (changed({"health": {"type": "string", "enum": ["good"]}}, ["name"]), "health means something else"),
        (
            changed({"health": {"type": "string", "enum": ["good", "bad", "ugly"]}}, ["name"]),
            "health means something else",
        ),
        (changed({"name": {**TEXT, "pattern": "^a"}}, ["name"]), "name means something else"),
        (changed({}, []), "name was always there"),
        (changed({"note": {"type": "string"}}, ["name", "note"]), "note is required now"),
    ],
)
def test_anything_else_is_told(now: dict[str, Any], why: str) -> None:
    (told,) = breaking(PUBLISHED, now)
    assert told.startswith(why)

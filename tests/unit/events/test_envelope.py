"""An event keeps what it says, in both of the forms in which it travels, and what is none is refused in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.events.envelope import EnvelopeError, Event, from_json, from_record

EVENT = Event(
    id="evt_1",
    type="io.spectrum.job.submitted.v1",
    source="/v1/organizations/org_1",
    subject="ins_1",
    time=datetime(2026, 11, 23, 12, 0, 0, 5000, tzinfo=UTC),
    sequence=7,
    position=41,
    data={"job_id": "job_1", "words": "grüße"},
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)

texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)
)
events = st.builds(
    Event,
    id=texts,
    type=texts,
    source=texts,
    subject=texts,
    time=st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    sequence=st.integers(1, 2**53),
    position=st.integers(1, 2**53),
    data=st.dictionaries(texts, values, max_size=4),
    traceparent=st.none() | texts,
)


@given(events)
def test_both_forms_give_back_the_same_event(event: Event) -> None:
    _, headers, value = event.as_record()
    assert from_record(headers, value) == event
    assert from_json(json.loads(json.dumps(event.as_json()))) == event


def test_a_record_has_the_headers_of_the_binary_mode_and_the_subject_for_a_key() -> None:
    key, headers, value = EVENT.as_record()
    said = {name: text.decode() for name, text in headers}
    assert key == b"ins_1"
    assert said["content-type"] == "application/json"
    assert (said["ce_specversion"], said["ce_id"], said["ce_partitionkey"]) == ("1.0", "evt_1", "ins_1")
    assert said["ce_dataschema"] == "urn:spectrum:schema:io.spectrum.job.submitted.v1"
    assert (said["ce_time"], said["ce_sequence"]) == ("2026-11-23T12:00:00.005Z", "7")
    assert json.loads(value) == EVENT.data


def test_a_header_may_be_written_in_capitals() -> None:
    _, headers, value = EVENT.as_record()
    assert from_record([(name.upper(), text) for name, text in headers], value) == EVENT


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in EVENT.as_json().items() if key != name}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ([], "An event is a JSON object"),
        (without("id"), "The attribute id is missing"),
        (without("sequence"), "The attribute sequence is missing"),
        (without("data"), "The data of an event is a JSON object"),
        ({**EVENT.as_json(), "specversion": "0.3"}, "specversion is '0.3'"),
        ({**EVENT.as_json(), "subject": ""}, "subject must be a text"),
        ({**EVENT.as_json(), "sequence": "many"}, "An attribute can't be read"),
        ({**EVENT.as_json(), "time": "noon"}, "An attribute can't be read"),
        ({**EVENT.as_json(), "data": {"deep": [{"er": "a\0b"}]}}, "U\\+0000"),
    ],
)
def test_what_is_no_event_is_refused_in_words(body: Any, why: str) -> None:
    with pytest.raises(EnvelopeError, match=why):
        from_json(body)


@pytest.mark.parametrize(
    ("headers", "value", "why"),
    [
        ([], b"{}", "content-type is missing"),
        ([("content-type", b"application/avro")], b"{}", "content-type is application/avro"),
        ([("content-type", b"application/json")], b"\xff\xfe", "no JSON in UTF-8"),
        ([("content-type", b"application/json"), ("ce_id", b"\xff")], b"{}", "no JSON in UTF-8"),
        ([("content-type", b"application/json")], b"{", "no JSON in UTF-8"),
        ([("content-type", b"application/json")], None, "no JSON in UTF-8"),
        ([("content-type", None)], b"{}", "content-type is missing"),
    ],
)
def test_a_poisoned_record_is_refused_in_words(
    headers: list[tuple[str, bytes | None]], value: bytes | None, why: str
) -> None:
    with pytest.raises(EnvelopeError, match=why):
        from_record(headers, value)

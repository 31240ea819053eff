"""An event as it travels: CloudEvents 1.0, as one JSON object (structured mode) or as headers and data (binary mode, for Kafka).

Extension attributes: `sequence` (gapless per subject), `position` (gapless per cell), `partitionkey` (the subject), `traceparent`.
In binary mode every attribute is a header `ce_<name>` in UTF-8 and the value of the record is the data (Kafka Protocol Binding
for CloudEvents 1.0.2, §3.2).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spectrum.core.errors import SpectrumError
from spectrum.core.events.catalogue import SCHEMAS
from spectrum.core.moments import stamp

SPECVERSION = "1.0"
JSON = "application/json"
_HEADER = "ce_"


class EnvelopeError(SpectrumError):
    """What came is no event that can be read; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Event:
    """A fact with its place in the log. `(source, id)` is its own, whoever delivers it how often."""

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    sequence: int
    position: int
    data: Mapping[str, Any]
    traceparent: str | None = None

    def attributes(self) -> dict[str, str]:
        """Every attribute but the data, as text."""
        attributes = {
            "specversion": SPECVERSION,
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "subject": self.subject,
            "time": stamp(self.time),
            "dataschema": f"{SCHEMAS}{self.type}",
            "partitionkey": self.subject,
            "sequence": str(self.sequence),
            "position": str(self.position),
        }
        return {**attributes, "traceparent": self.traceparent} if self.traceparent else attributes

    def as_json(self) -> dict[str, Any]:
        """Structured mode."""
        return {
            **self.attributes(),
            "datacontenttype": JSON,
            "position": self.position,
            "traceparent": self.traceparent,
            "data": dict(self.data),
        }

    def as_record(self) -> tuple[bytes, list[tuple[str, bytes]], bytes]:
        """Binary mode: key, headers and value of a record."""
        headers = [(f"{_HEADER}{name}", text.encode()) for name, text in self.attributes().items()]
        value = json.dumps(self.data, ensure_ascii=False, separators=(",", ":")).encode()
        return self.subject.encode(), [*headers, ("content-type", JSON.encode())], value


def from_json(body: Any) -> Event:
    """The event in a structured-mode object. Raises EnvelopeError."""
    if not isinstance(body, Mapping):
        raise EnvelopeError("An event is a JSON object.")
    return _event(body, body.get("data"))


def from_record(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> Event:
    """The event in a binary-mode record. Raises EnvelopeError."""
    try:
        texts = {name.lower(): (text or b"").decode() for name, text in headers}
        data = json.loads((value or b"").decode())
    except ValueError as error:
        raise EnvelopeError(f"The record is no JSON in UTF-8: {error}.") from None
    if (kind := texts.get("content-type", "").partition(";")[0].strip().lower()) != JSON:
        raise EnvelopeError(f"The record's content-type is {kind or 'missing'}, not {JSON}.")
    attributes = {name.removeprefix(_HEADER): text for name, text in texts.items() if name.startswith(_HEADER)}
    return _event(attributes, data)


def _event(attributes: Mapping[str, Any], data: Any) -> Event:
    if attributes.get("specversion") != SPECVERSION:
        raise EnvelopeError(f"specversion is {attributes.get('specversion')!r}, not {SPECVERSION!r}.")
    if not isinstance(data, Mapping):
        raise EnvelopeError("The data of an event is a JSON object.")
    _refuse_nul([*attributes.values(), data])
    try:
        return Event(
            id=_text(attributes, "id"),
            type=_text(attributes, "type"),
            source=_text(attributes, "source"),
            subject=_text(attributes, "subject"),
            time=datetime.fromisoformat(_text(attributes, "time")),
            sequence=int(attributes["sequence"]),
            position=int(attributes["position"]),
            data=data,
            traceparent=attributes.get("traceparent") or None,
        )
    except KeyError as error:
        raise EnvelopeError(f"The attribute {error.args[0]} is missing.") from None
    except (TypeError, ValueError) as error:
        raise EnvelopeError(f"An attribute can't be read: {error}.") from None


def _text(attributes: Mapping[str, Any], name: str) -> str:
    text = attributes[name]
    if not isinstance(text, str) or not text:
        raise ValueError(f"{name} must be a text that is not empty")
    return text


def _refuse_nul(value: Any) -> None:
    """PostgreSQL holds no U+0000: whoever keeps the event would stumble over it."""
    match value:
        case str():
            if "\0" in value:
                raise EnvelopeError("A text of the event holds the character U+0000.")
        case Mapping():
            for name, item in value.items():
                _refuse_nul(name)
                _refuse_nul(item)
        case list() | tuple():
            for item in value:
                _refuse_nul(item)

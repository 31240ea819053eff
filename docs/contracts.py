"""The contracts of events, made from `spectrum.core.events.catalogue`: a JSON Schema for each type, and one AsyncAPI 3 document.

`python -m docs.contracts release` notes that what is told now has been published: from then on `make check` refuses a change that
would break a reader (`spectrum.core.events.compatibility`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import spectrum
from spectrum.core.events.catalogue import CATALOGUE, FACTS, EventType
from spectrum.core.events.compatibility import breaking

FOLDER = Path(__file__).parent / "events"
PUBLISHED = FOLDER / "published.json"
HINTS = "spectrum.jobs.v1.{pool}"

_TEXT = {"type": "string"}
_ATTRIBUTES = {
    "ce_specversion": {"const": "1.0"},
    "ce_id": {**_TEXT, "description": "Unique within the source: by it a consumer knows what it has seen."},
    "ce_source": {**_TEXT, "description": "The organization whose fact it is."},
    "ce_subject": {**_TEXT, "description": "The id of the instance, worker or release that it is about."},
    "ce_time": {**_TEXT, "format": "date-time"},
    "ce_dataschema": {**_TEXT, "description": "The name of the schema of the data."},
    "ce_partitionkey": {
        **_TEXT,
        "description": "The subject, and the key of the record: one subject's events keep their order.",
    },
    "ce_sequence": {**_TEXT, "pattern": "^[1-9][0-9]*$", "description": "Gapless per subject, from 1."},
    "ce_position": {**_TEXT, "pattern": "^[1-9][0-9]*$", "description": "Gapless per cell: where to go on reading."},
    "ce_traceparent": {**_TEXT, "description": "The trace of the request that brought it about (W3C Trace Context)."},
    "content-type": {"const": "application/json"},
}
_OPTIONAL = {"ce_traceparent"}


def schemas() -> dict[str, dict[str, Any]]:
    return {each.type: each.schema() for each in CATALOGUE}


def asyncapi() -> dict[str, Any]:
    """What is on which topic (AsyncAPI 3.0.0, Kafka bindings 0.5.0)."""
    messages = {each.type: _message(each) for each in CATALOGUE}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "SPECTRUM",
            "version": spectrum.__version__,
            "description": "Facts about instances, jobs and workers. A record may come twice: its source and id tell.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "facts": {
                "address": FACTS,
                "description": "Every fact, in the order of the log for each subject.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            },
            "hints": {
                "address": HINTS,
                "description": "For workers: a job of the pool may be ready. It proves nothing, and losing one costs seconds.",
                "parameters": {"pool": {"description": "The id of the pool."}},
                "messages": {"hint": {"$ref": "#/components/messages/hint"}},
            },
        },
        "operations": {
            "tellFacts": {"action": "send", "channel": {"$ref": "#/channels/facts"}},
            "hint": {"action": "send", "channel": {"$ref": "#/channels/hints"}},
        },
        "components": {"messages": {**messages, "hint": _HINT}},
    }


_HINT = {
    "title": "A job may be ready",
    "bindings": {"kafka": {"key": {**_TEXT, "description": "The id of the instance."}}},
    "payload": {
        "type": "object",
        "properties": {"job_id": _TEXT, "instance_id": _TEXT},
        "required": ["job_id", "instance_id"],
    },
}


def _message(event: EventType) -> dict[str, Any]:
    schema = {name: part for name, part in event.schema().items() if name not in ("$schema", "$id")}
    headers = {**_ATTRIBUTES, "ce_type": {"const": event.type}}
    return {
        "title": event.type,
        "summary": event.says,
        "headers": {"type": "object", "properties": headers, "required": sorted(headers.keys() - _OPTIONAL)},
        "bindings": {"kafka": {"key": {**_TEXT, "description": f"The id of the {event.subject.value}."}}},
        "payload": schema,
    }


def documents() -> dict[str, str]:
    """Every file of `docs/events` that is made from the catalogue, by name."""
    return {
        "asyncapi.json": _pretty(asyncapi()),
        **{f"{name}.json": _pretty(schema) for name, schema in schemas().items()},
    }


def broken() -> list[str]:
    """What of the published contracts is not kept any more, in words."""
    now = schemas()
    published: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    gone = [
        f"{name} was published and is not in the catalogue any more" for name in sorted(published.keys() - now.keys())
    ]
    return gone + [
        f"{name}: {why}" for name, old in published.items() if name in now for why in breaking(old, now[name])
    ]


def release() -> None:
    """Note what is told now as published. Refuses what breaks what was published before."""
    if PUBLISHED.exists() and (wrong := broken()):
        sys.exit("\n".join([*wrong, "Make it a new version with an upcaster."]))
    PUBLISHED.write_text(_pretty(schemas()), encoding="utf-8")


def _pretty(document: Any) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["release"]:
        sys.exit("usage: python -m docs.contracts release")
    release()

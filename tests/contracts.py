"""Whether events are what their schemas say, and nothing more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import asyncpg
from jsonschema import Draft202012Validator

from spectrum.core.events.catalogue import BY_TYPE


def faults(type_: str, data: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an event. A writer is held to more than a reader: it tells nothing that the schema does not list."""
    if type_ not in BY_TYPE:
        yield f"{type_} is not in the catalogue"
        return
    for error in _validator(type_).iter_errors(data):
        yield f"{type_}: {error.message}"
    for name in data.keys() - BY_TYPE[type_].data.keys():
        yield f"{type_}: {name} is not in the schema"


@cache
def _validator(type_: str) -> Draft202012Validator:
    return Draft202012Validator(BY_TYPE[type_].schema())


async def unlike_their_schemas(admin_url: str) -> list[str]:
    """The faults of all events of a database that have one of our types; tests write others by hand."""
    connection = await asyncpg.connect(admin_url)
    try:
        rows = await connection.fetch("SELECT DISTINCT type, data FROM events WHERE type LIKE 'io.spectrum.%'")
    finally:
        await connection.close()
    return [fault for row in rows for fault in faults(row["type"], json.loads(row["data"]))]

"""Which changes of an event's schema its readers survive: additions only (the FULL_TRANSITIVE of schema registries).

Old readers read new events and new readers old ones, over all versions ever published. So within one version a member may be
added where it is optional and descriptions may change. Anything else is a new version with an upcaster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_WORDS = frozenset({"description", "title", "examples", "$id", "$schema"})


def breaking(published: Schema, now: Schema) -> list[str]:
    """What of the change from `published` to `now` would break somebody, in words; empty where nothing does."""
    return list(_object(published, now))


def _object(published: Schema, now: Schema) -> Iterator[str]:
    old, new = published.get("properties", {}), now.get("properties", {})
    for name in sorted(old.keys() - new.keys()):
        yield f"{name} is gone: somebody reads it"
    for name in sorted(old.keys() & new.keys()):
        if _meaning(old[name]) != _meaning(new[name]):
            yield f"{name} means something else: it was {_meaning(old[name])} and is {_meaning(new[name])}"
    before, after = set(published.get("required", ())), set(now.get("required", ()))
    for name in sorted(before - after):
        yield f"{name} was always there and is optional now: somebody relies on it"
    for name in sorted(after - before):
        yield f"{name} is required now: events that were written before do not have it"


def _meaning(schema: Any) -> Any:
    """A schema without what is only for people."""
    match schema:
        case Mapping():
            return {name: _meaning(value) for name, value in schema.items() if name not in _WORDS}
        case list() | tuple():
            return [_meaning(value) for value in schema]
        case _:
            return schema

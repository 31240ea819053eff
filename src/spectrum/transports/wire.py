"""The JSON of the worker protocol: the same shapes on both sides, read and written by one definition."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from spectrum.core.errors import Problem, Where
from spectrum.core.jobs.commands import Holding
from spectrum.transports.protocol import (
    Chunk,
    Handback,
    Incarnation,
    JobRef,
    News,
    Onward,
    Polled,
    Pulse,
    Room,
    Sighting,
)

PREFIX = "/worker/v1"
REPORTS_LIMIT = 256  # in one call: its answers are many times longer than the shortest of them
PLACES_LIMIT = 20
SIGHTINGS_LIMIT = 1024
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


@dataclass(frozen=True, slots=True)
class Enrol:
    """A worker asks to be let in: its token, its public keys (hex), what it can run."""

    token: str
    name: str
    signing_key: str
    sealing_key: str
    protocol_version: int
    operations: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Enrolled:
    worker_id: str
    pool: str
    public_url: str


@dataclass(frozen=True, slots=True)
class Start:
    boot: str
    operations: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Poll:
    seconds: float
    room: Room = field(default_factory=Room)
    work: bool = True  # whether a hint of work is waited for


@dataclass(frozen=True, slots=True)
class Observations:
    sightings: Annotated[tuple[Sighting, ...], Field(max_length=SIGHTINGS_LIMIT)]


@dataclass(frozen=True, slots=True)
class ClaimCall:
    incarnation: int
    number: int
    want: int
    holds_others: bool
    operations: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    incarnation: int
    number: int
    claim_seen: int
    held: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Reports:
    """News of several jobs that travel together; each is applied, answered and repeated for itself."""

    reports: Annotated[tuple[News, ...], Field(max_length=REPORTS_LIMIT)]


@dataclass(frozen=True, slots=True)
class _Pieces:
    """`Reports` of which one is wrong in itself."""

    reports: Annotated[tuple[Any, ...], Field(max_length=REPORTS_LIMIT)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A no to one report: the slug of its problem, and what it says."""

    slug: str
    detail: str
    extra: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to one report: a holding, or why there is none."""

    holding: Holding | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """To each report in its place."""

    answers: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class ReleaseCall:
    job: JobRef
    release_id: str


@dataclass(frozen=True, slots=True)
class Document:
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret parameter, sealed to the worker's X25519 key; base64."""

    name: str
    version: int
    sealed: str


@dataclass(frozen=True, slots=True)
class Secrets:
    instance_id: str
    secrets: tuple[SealedSecret, ...]


@dataclass(frozen=True, slots=True)
class Empty:
    """Nothing to say."""


_SHAPES = (
    Enrol,
    Enrolled,
    Start,
    Incarnation,
    Poll,
    Polled,
    Observations,
    Chunk,
    Onward,
    ClaimCall,
    Heartbeat,
    Pulse,
    News,
    Reports,
    _Pieces,
    Answers,
    Handback,
    JobRef,
    ReleaseCall,
    Document,
    Secrets,
    Empty,
)
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {shape: TypeAdapter(shape) for shape in (*_SHAPES, Sequence[Holding])}
_LISTS = frozenset({"list", "tuple"})


def _failing_fast(schema: Any) -> Any:
    """The schema with lists that are given up at their first wrong item: to tell of a million of them takes half a minute."""
    if isinstance(schema, list):
        return [_failing_fast(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    fast = {name: _failing_fast(each) for name, each in schema.items()}
    return {**fast, "fail_fast": True} if schema.get("type") in _LISTS else fast


_READERS = {shape: SchemaValidator(_failing_fast(adapter.core_schema)) for shape, adapter in _ADAPTERS.items()}


def encode(value: Any) -> bytes:
    """The JSON of one of the protocol's shapes, or of a sequence of holdings.

    What is as its shape's default is left out: it is the larger part of a holding. So a default is part of the protocol.
    """
    adapter = _ADAPTERS[Sequence[Holding] if isinstance(value, list | tuple) else type(value)]
    encoded: bytes = adapter.dump_json(value, exclude_defaults=True)
    return encoded


def together(reports: Sequence[bytes]) -> bytes:
    """`Reports` of encoded news."""
    return b'{"reports":[' + b",".join(reports) + b"]}"


def apart(body: bytes) -> list[News | Problem]:
    """The news in the body of `Reports`, each by itself: one that is no news is nothing to the others.

    Raises `Problem(malformed)` where there is no list of them.
    """
    try:
        reports: Reports = decode(Reports, body)
    except Problem:
        pieces: _Pieces = decode(_Pieces, body)
        return [_news(piece) for piece in pieces.reports]
    return list(reports.reports)


def _news(piece: Any) -> News | Problem:
    try:
        news: News = decode(News, json.dumps(piece).encode())
    except Problem as problem:
        return problem
    return news


def decode(shape: Any, body: bytes) -> Any:
    """One of the protocol's shapes. Raises `Problem(malformed)` that says where the body is wrong."""
    try:
        return _READERS[shape].validate_json(_without_nul(body))
    except ValidationError as error:
        raise Problem("malformed", f"The body is not a {getattr(shape, '__name__', 'list')}.", _places(error)) from None


def _places(error: ValidationError) -> tuple[Where, ...]:
    """Where a body is wrong; nothing where it is wrong in more places than anybody reads."""
    if error.error_count() > PLACES_LIMIT:
        return ()
    return tuple(Where(each["msg"], "/" + "/".join(map(str, each["loc"]))) for each in error.errors(include_url=False))


def _without_nul(body: bytes) -> bytes:
    """Programs print NUL characters, and PostgreSQL can't keep them: what says so stands in for them."""
    return _NUL.sub(rb"\1\\ufffd", body) if rb"\u0000" in body else body

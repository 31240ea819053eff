"""The audit chain: how records are sealed, one chain per organization, and how an export is verified without the database.

A sealed record holds its number in the chain, the hash of the record before it, and its own hash: SHA-256 of its canonical JSON
(RFC 8785) without that hash. The head is the last record's number and hash, signed by the cell (Ed25519): it holds the whole chain
before it fast, and shows where the chain ended.

An export is a file of lines, each in canonical JSON: a header, the records in the order of the chain, the head. So there is one
way to write it, and a change of any byte is found. Signatures are made and checked by functions that are passed in: whoever only
writes exports needs no cryptography.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeGuard

from spectrum.core.canonical import canonical
from spectrum.core.errors import SpectrumError
from spectrum.core.moments import stamp

FORMAT = "spectrum-audit/1"
GENESIS = bytes(32)  # what the first record of a chain names as the hash before it

_HEAD_CONTEXT = b"spectrum-audit-head/1\n"
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_HEADER = {"format": str, "organization_id": str, "after": int}
_SEAL = {"number": int, "previous": str, "hash": str, "sealed_at": str}
_HEAD = {"organization_id": str, "number": int, "hash": str, "sealed_at": str, "key_id": str, "signature": str}

Json = Mapping[str, Any]
Sign = Callable[[bytes], bytes]
Genuine = Callable[[str, bytes, bytes], bool]
"""Whether the owner of a key id signed this: (key id, data, signature)."""


@dataclass(frozen=True, slots=True)
class Record:
    """Who did what to what."""

    id: str
    organization_id: str
    recorded_at: datetime
    actor: str
    action: str
    subject: str
    request_id: str | None
    evidence: Json

    def as_json(self, seal: Seal | None = None) -> dict[str, Any]:
        """As it is shown and, once sealed, hashed and exported."""
        return {
            "id": self.id,
            "organization_id": self.organization_id,
            "recorded_at": stamp(self.recorded_at),
            "actor": self.actor,
            "action": self.action,
            "subject": self.subject,
            "request_id": self.request_id,
            "evidence": self.evidence,
            "seal": seal and seal.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Seal:
    """A record's place in the chain; numbers count from 1."""

    number: int
    previous: bytes
    hash: bytes
    sealed_at: datetime

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "previous": self.previous.hex(),
            "hash": self.hash.hex(),
            "sealed_at": stamp(self.sealed_at),
        }


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends, signed by the cell."""

    organization_id: str
    number: int
    hash: bytes
    sealed_at: datetime
    key_id: str
    signature: bytes = b""

    def as_json(self) -> dict[str, Any]:
        return {
            "organization_id": self.organization_id,
            "number": self.number,
            "hash": self.hash.hex(),
            "sealed_at": stamp(self.sealed_at),
            "key_id": self.key_id,
            "signature": self.signature.hex(),
        }


def seal(record: Record, after: Seal | Head | None, now: datetime) -> Seal:
    """The seal of the record that comes next in its organization's chain; `after` is the end of the chain so far."""
    number, previous = (after.number + 1, after.hash) if after else (1, GENESIS)
    open_seal = Seal(number, previous, b"", now)
    return Seal(number, previous, _hash(record.as_json(open_seal)), now)


def sign_head(organization_id: str, last: Seal, key_id: str, sign: Sign) -> Head:
    """The head of a chain that ends with `last`."""
    said = Head(organization_id, last.number, last.hash, last.sealed_at, key_id)
    return replace(said, signature=sign(_signed(said.as_json())))


def is_genuine(head: Json, genuine: Genuine) -> bool:
    """Whether the head is signed by the key that it names. Whose key that is, it can't tell."""
    signature: str = head["signature"]
    if _SIGNATURE.fullmatch(signature) is None:
        return False
    return genuine(head["key_id"], _signed(head), bytes.fromhex(signature))


def _hash(record: Json) -> bytes:
    sealed = {name: value for name, value in record["seal"].items() if name != "hash"}
    return hashlib.sha256(canonical({**record, "seal": sealed})).digest()


def _signed(head: Json) -> bytes:
    return _HEAD_CONTEXT + canonical({name: value for name, value in head.items() if name != "signature"})


# Exports --------------------------------------------------------------------------------------------------------------


def header_line(organization_id: str, after: int) -> bytes:
    """The first line of an export of the records with numbers above `after`."""
    return line({"format": FORMAT, "organization_id": organization_id, "after": after})


def head_line(head: Json) -> bytes:
    """The last line of an export."""
    return line({"head": head})


def line(document: Json) -> bytes:
    return canonical(document) + b"\n"


class Broken(SpectrumError):
    """An export is not what was sealed. `line` is where that shows, from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True)
class Known:
    """A record that somebody noted down: an export that has another one, or none, in its place is not of the same chain."""

    number: int
    hash: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What an export was proven to hold: the records `first` to `last`, of a chain that ended there when it was exported."""

    organization_id: str
    first: int
    last: int
    hash: str
    sealed_at: str
    key_id: str

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def verify(lines: Iterable[bytes], genuine: Genuine, key_id: str | None = None, known: Known | None = None) -> Verified:
    """Check an export from its first line to its last.

    Without `key_id`, the head's own word is taken for whose key signed it: whoever rewrites a whole export and signs it anew with
    a key of their own is found only with it. Raises Broken.
    """
    number = 0
    reading: _Reading | None = None
    for number, text in enumerate(lines, 1):
        document = _document(number, text)
        if reading is None:
            reading = _Reading.begin(document, known)
        elif reading.head is not None:
            raise Broken(number, "Something stands after the head, which is the last line of an export.")
        elif "head" in document:
            reading.end(number, document, genuine, key_id)
        else:
            reading.add(number, document)
    if reading is None or reading.head is None:
        raise Broken(number + 1, "The head is missing: the end of this export was cut off.")
    return reading.verified(reading.head)


@dataclass
class _Reading:
    """How far an export was read: the number and hash of the last record, which is as good as its whole past."""

    organization_id: str
    after: int
    number: int
    known: Known | None
    hash: str | None = None
    sealed_at: str | None = None
    head: Json | None = None

    @classmethod
    def begin(cls, header: Json, known: Known | None) -> _Reading:
        if not _has(header, _HEADER) or header.keys() != _HEADER.keys() or header["format"] != FORMAT:
            raise Broken(1, f"This is not the first line of an audit export ({FORMAT}).")
        after = header["after"]
        if after < 0:
            raise Broken(1, f"An export can't begin after record {after}.")
        if known is not None and known.number <= after:
            raise Broken(1, f"Record {known.number} is not in this export, which begins after {after}.")
        return cls(header["organization_id"], after, after, known)

    def add(self, at: int, record: Json) -> None:
        sealed = record.get("seal")
        if not _has(sealed, _SEAL) or sealed["hash"] != _hash(record).hex():
            raise Broken(at, f"The record{_named(record)} was changed: its hash is that of something else.")
        if record.get("organization_id") != self.organization_id:
            raise Broken(at, f"The record{_named(record)} is of another organization than this export.")
        self._follow(at, sealed)
        self._compare(at, sealed)
        self.number, self.hash, self.sealed_at = sealed["number"], sealed["hash"], sealed["sealed_at"]

    def _follow(self, at: int, sealed: Json) -> None:
        found, due = sealed["number"], self.number + 1
        if found > due:
            raise Broken(at, f"Record {due} is missing: record {found} stands in its place.")
        if found < due:
            raise Broken(at, f"Record {found} stands where record {due} belongs: moved here, or repeated.")
        previous = GENESIS.hex() if due == 1 else self.hash
        if previous is not None and sealed["previous"] != previous:
            raise Broken(
                at, f"Record {found} was not sealed after the record before it: one of them is not of this chain."
            )

    def _compare(self, at: int, sealed: Json) -> None:
        if self.known is not None and sealed["number"] == self.known.number and sealed["hash"] != self.known.hash:
            raise Broken(at, f"Record {self.known.number} is not the one that you know: the chain was written anew.")

    def end(self, at: int, line: Json, genuine: Genuine, key_id: str | None) -> None:
        head = line["head"]
        if line.keys() != {"head"} or not _has(head, _HEAD) or not is_genuine(head, genuine):
            raise Broken(at, "The head was changed: its signature does not fit.")
        if key_id is not None and head["key_id"] != key_id:
            raise Broken(at, f"The head is signed with the key {head['key_id']}, not with the one that you know.")
        if head["organization_id"] != self.organization_id:
            raise Broken(at, "The head is of another organization than this export.")
        if head["number"] != self.number:
            raise Broken(at, f"The chain ends with record {head['number']}, this export with record {self.number}.")
        if self.hash is not None and (head["hash"], head["sealed_at"]) != (self.hash, self.sealed_at):
            raise Broken(at, f"The head is of another chain than record {self.number} before it.")
        if self.known is not None and self.known.number > self.number:
            raise Broken(at, f"Record {self.known.number} is not in this export, which ends with {self.number}.")
        self.head = head

    def verified(self, head: Json) -> Verified:
        return Verified(
            self.organization_id, self.after + 1, self.number, head["hash"], head["sealed_at"], head["key_id"]
        )


def _has(document: Any, members: Mapping[str, type]) -> TypeGuard[dict[str, Any]]:
    """Whether it is an object with these members, of exactly these types (true is no number)."""
    return isinstance(document, dict) and all(type(document.get(name)) is kind for name, kind in members.items())


def _named(record: Json) -> str:
    return f" {record['id']}" if isinstance(record.get("id"), str) else ""


def _document(at: int, text: bytes) -> Json:
    if not text.endswith(b"\n"):
        raise Broken(at, "The line is cut off.")
    try:
        document = json.loads(text)
        written = line(document)
    except (ValueError, RecursionError):
        raise Broken(at, "The line was changed: it is no JSON.") from None
    if not isinstance(document, dict) or written != text:
        raise Broken(at, "The line was changed: exports are written in canonical JSON (RFC 8785), which this is not.")
    return document

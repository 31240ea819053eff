"""Typed ids: a prefix that names the kind and a UUIDv7, so that an id of one kind is never taken for another (P16)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NewType

OrganizationId = NewType("OrganizationId", str)
InstanceId = NewType("InstanceId", str)
JobId = NewType("JobId", str)
StepId = NewType("StepId", str)
WorkerId = NewType("WorkerId", str)
TargetId = NewType("TargetId", str)
PoolId = NewType("PoolId", str)
ReleaseId = NewType("ReleaseId", str)
EventId = NewType("EventId", str)
TokenId = NewType("TokenId", str)
LeaseId = NewType("LeaseId", str)
PlacementId = NewType("PlacementId", str)
CellId = NewType("CellId", str)
BrakeId = NewType("BrakeId", str)
AuditId = NewType("AuditId", str)
BlobId = NewType("BlobId", str)
RequestId = NewType("RequestId", str)

PLATFORM = OrganizationId("org_00000000-0000-7000-8000-000000000000")  # owns what all organizations share

ENTROPY_BYTES = 10  # that an id is made of beside its moment

PREFIXES = {
    "org": OrganizationId,
    "ins": InstanceId,
    "job": JobId,
    "stp": StepId,
    "wrk": WorkerId,
    "tgt": TargetId,
    "pol": PoolId,
    "rel": ReleaseId,
    "evt": EventId,
    "tok": TokenId,
    "lea": LeaseId,
    "plc": PlacementId,
    "cel": CellId,
    "brk": BrakeId,
    "aud": AuditId,
    "blb": BlobId,
    "req": RequestId,
}

_PATTERN = re.compile(r"([a-z]{3})_([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})")


def make(prefix: str, moment: datetime, entropy: bytes) -> str:
    """An id of kind `prefix` from a moment (UTC) and at least `ENTROPY_BYTES` random bytes (RFC 9562, §5.7)."""
    if prefix not in PREFIXES:
        raise ValueError(f"unknown id prefix {prefix!r}")
    milliseconds = int(moment.timestamp() * 1000)
    random_bits = int.from_bytes(entropy[:ENTROPY_BYTES], "big")
    value = (milliseconds & (2**48 - 1)) << 80
    value |= 0x7 << 76
    value |= (random_bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62
    value |= random_bits & (2**62 - 1)
    text = f"{value:032x}"
    return f"{prefix}_{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_id(prefix: str, text: str) -> bool:
    match = _PATTERN.fullmatch(text)
    return match is not None and match[1] == prefix


def moment_of(identifier: str) -> datetime:
    """The moment in an id, to the millisecond, UTC."""
    return datetime.fromtimestamp(int(identifier[4:12] + identifier[13:17], 16) / 1000, UTC)

"""Every error of SPECTRUM, in one tree.

    SpectrumError
    ├── Problem          something a caller asked for can't be done (RFC 9457)
    └── Fault            something that was tried did not work, classified once (DESIGN §3.12)

A `Problem` is an answer; a `Fault` decides what happens next to a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

MAX_EVIDENCE_LINES = 50
MAX_MESSAGE = 2_000
MAX_CODE = 100


class SpectrumError(Exception):
    """The root of all errors that SPECTRUM raises on purpose."""


class ErrorClass(StrEnum):
    """What a failure means for the step that met it."""

    TRANSIENT = "transient"  # try again, later and later
    THROTTLED = "throttled"  # try again when told
    DEPENDENCY = "dependency"  # the target does not answer: its breaker counts it
    CONFLICT = "conflict"  # the world is not as we thought: observe again
    INVALID = "invalid"  # the product or the input is wrong: never retried
    FATAL = "fatal"  # no use in trying again

    @property
    def retryable(self) -> bool:
        return self not in (ErrorClass.INVALID, ErrorClass.FATAL)


class Actor(StrEnum):
    """Who can do something about it."""

    VENDOR = "vendor"
    OPERATOR = "operator"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Failure:
    """A classified failure, as it is stored and shown. `message` is for the vendor; `detail` stays inside."""

    kind: ErrorClass
    code: str
    message: str
    actor: Actor = Actor.NOBODY
    detail: str = ""
    evidence: tuple[str, ...] = ()
    next: str = ""
    retry_after: float | None = None  # seconds

    def trimmed(self) -> Failure:
        """The same failure, small enough to travel and to store."""
        wait = self.retry_after
        return replace(
            self,
            code=self.code[:MAX_CODE],
            message=self.message[:MAX_MESSAGE],
            detail=self.detail[:MAX_MESSAGE],
            evidence=tuple(line[:500] for line in self.evidence[-MAX_EVIDENCE_LINES:]),
            next=self.next[:MAX_MESSAGE],
            retry_after=wait if wait is not None and math.isfinite(wait) else None,
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "class": self.kind.value,
            "code": self.code,
            "actor": self.actor.value,
            "message": self.message,
            "detail": self.detail,
            "evidence": list(self.evidence),
            "next": self.next,
            "retry_after": self.retry_after,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Failure:
        return cls(
            kind=ErrorClass(data["class"]),
            code=str(data["code"]),
            message=str(data["message"]),
            actor=Actor(data.get("actor", "nobody")),
            detail=str(data.get("detail", "")),
            evidence=tuple(data.get("evidence", ())),
            next=str(data.get("next", "")),
            retry_after=data.get("retry_after"),
        )


class Fault(SpectrumError):
    """Raised by providers and steps: a failure that knows its class."""

    def __init__(self, kind: ErrorClass, code: str, message: str, **rest: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.failure = Failure(kind, code, message, **rest)


class StaleFence(Fault):
    """A provider has seen a higher fence or token: the caller has lost its right and must let go (P4)."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorClass.FATAL, "stale-fence", message)


@dataclass(frozen=True, slots=True)
class Where:
    """One place where an input is wrong: what, where, and what to do."""

    message: str
    pointer: str = ""
    file: str = ""
    line: int | None = None
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            key: value
            for key in ("pointer", "file", "line", "message", "hint")
            if (value := getattr(self, key)) not in ("", None)
        }


PROBLEM = "urn:spectrum:problem:"  # before the slug, in the member `type` of a problem (RFC 9457)
STATUS = {
    "malformed": 400,
    "idempotency-key-missing": 400,
    "unauthenticated": 401,
    "join-token-invalid": 401,
    "signature-invalid": 401,
    "signature-replayed": 401,
    "forbidden": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "instance-busy": 409,
    "not-allowed-now": 409,
    "stale-fence": 409,
    "report-gap": 409,
    "operation-not-available": 409,
    "precondition-failed": 412,
    "too-large": 413,
    "unsupported-media-type": 415,
    "idempotency-key-reused": 422,
    "invalid-product": 422,
    "invalid-parameter": 422,
    "rate-limited": 429,
    "internal": 500,
    "unavailable": 503,
}


@dataclass(eq=False)
class Problem(SpectrumError):
    """An answer that says no: RFC 9457, type `urn:spectrum:problem:<slug>`.

    `detail` says what was wrong and what to do, in words for the caller; `extra` are further members.
    """

    slug: str
    detail: str
    errors: tuple[Where, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(f"{self.slug}: {self.detail}")

    @property
    def status(self) -> int:
        return STATUS[self.slug]

    @property
    def type(self) -> str:
        return f"{PROBLEM}{self.slug}"

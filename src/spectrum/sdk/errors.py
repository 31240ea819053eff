"""What can go wrong for a client, in one tree; every error knows the exit code of a program that ends because of it.

SpectrumError
└── ClientError          something the client could not do
    ├── ProblemError     the server said no (RFC 9457)
    ├── Unreachable      nobody answered, or not in words that we know
    ├── JobFailed        the job that was waited for ended badly
    └── WaitTimeout      the wait ended, the job goes on
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from spectrum.core.errors import PROBLEM, SpectrumError, Where

if TYPE_CHECKING:
    from spectrum.sdk.models import Job


class ExitCode(IntEnum):
    """How a program ends (INTERFACES §5)."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    JOB_FAILED = 5
    QUARANTINED = 6
    NOT_ALLOWED = 7
    TIMEOUT = 124
    INTERRUPTED = 130


_BY_SLUG = {"idempotency-key-reused": ExitCode.CONFLICT}
_BY_STATUS = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    412: ExitCode.CONFLICT,
}


class ClientError(SpectrumError):
    """Something the client could not do. `hint` says what to do about it."""

    exit_code: ExitCode = ExitCode.ERROR

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ProblemError(ClientError):
    """The server's answer was no. `slug` names the problem; `errors` say where the input was wrong."""

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        errors: tuple[Where, ...] = (),
        request_id: str = "",
        docs: str = "",
        extra: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail or slug)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.errors = errors
        self.request_id = request_id
        self.docs = docs
        self.extra = dict(extra or {})
        self.retry_after = retry_after  # seconds
        self.exit_code = _BY_SLUG.get(slug) or _BY_STATUS.get(status, ExitCode.ERROR)

    @classmethod
    def parse(cls, status: int, body: Mapping[str, Any], retry_after: float | None = None) -> ProblemError:
        """From the members of an `application/problem+json` document; unknown members land in `extra`."""
        known = {"type", "title", "status", "detail", "errors", "request_id", "docs"}
        return cls(
            status,
            str(body.get("type") or "").removeprefix(PROBLEM) or f"http-{status}",
            str(body.get("detail") or body.get("title") or ""),
            errors=tuple(_where(entry) for entry in body.get("errors") or () if isinstance(entry, Mapping)),
            request_id=str(body.get("request_id") or ""),
            docs=str(body.get("docs") or ""),
            extra={key: value for key, value in body.items() if key not in known},
            retry_after=retry_after,
        )


class Unreachable(ClientError):
    """Nobody answered at the URL, or what answered is not SPECTRUM."""


class JobFailed(ClientError):
    """The job ended `failed` or `cancelled`; `job` is its last state."""

    def __init__(self, job: Job) -> None:
        reason = job.error.message if job.error else f"it was {job.state}"
        hint = (job.error.next if job.error else "") or f"spectrum job show {job.id}"
        super().__init__(f"{job.operation} of {job.subject.label} {job.state}: {reason}", hint)
        self.job = job
        self.exit_code = ExitCode.QUARANTINED if job.residue else ExitCode.JOB_FAILED


class WaitTimeout(ClientError):
    """The time to wait is over; the job goes on."""

    exit_code = ExitCode.TIMEOUT


def _where(entry: Mapping[str, Any]) -> Where:
    line = entry.get("line")
    return Where(
        message=str(entry.get("message") or ""),
        pointer=str(entry.get("pointer") or ""),
        file=str(entry.get("file") or ""),
        line=line if isinstance(line, int) else None,
        hint=str(entry.get("hint") or ""),
    )

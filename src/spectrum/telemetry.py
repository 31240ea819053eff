"""What the parts say about themselves: structured logs, trace ids (W3C Trace Context) and Prometheus metrics.

Ids of the job, step, instance and request at hand are bound once (`bound`) and then stand in every line. Fields with
the name of a secret, and tokens wherever they stand in a text, are blotted out before anything is written (P18).
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from structlog.typing import EventDict, Processor, WrappedLogger

from spectrum.core.moments import stamp
from spectrum.ports import Clock
from spectrum.settings import LogFormat

BLOT = "[secret]"
SECRET_FIELDS = frozenset(
    {
        "authorization",
        "cookie",
        "ciphertext",
        "database_url",
        "dsn",
        "join_token",
        "passphrase",
        "password",
        "private_key",
        "secret",
        "secrets",
        "seed",
        "set-cookie",
        "token",
    }
)
_SECRET_ENDING = ("_password", "_secret", "_token", "_private_key")
_TOKEN = re.compile(r"\bsp[kj]_[A-Za-z0-9_-]{8,}")
_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+(?=@)")
_BEARER = re.compile(r"(?i)(?<=bearer )\S+")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a distributed trace: 16 bytes of trace, 8 bytes of span, in hex (W3C Trace Context)."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self, entropy: bytes) -> Trace:
        """The next span of the same trace, from eight random bytes."""
        return Trace(self.trace_id, _not_zero(entropy[:8]), self.sampled)


def parse_traceparent(header: str | None) -> Trace | None:
    """What a `traceparent` header says; None where it is missing or no good, which starts a new trace."""
    match = _TRACEPARENT.fullmatch(header or "")
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    if not match[2].strip("0") or not match[3].strip("0"):
        return None
    return Trace(match[2], match[3], bool(int(match[4], 16) & 1))


def new_trace(entropy: bytes) -> Trace:
    """The first span of a new trace, from 24 random bytes."""
    return Trace(_not_zero(entropy[:16]), _not_zero(entropy[16:24]))


def _not_zero(data: bytes) -> str:
    return data.hex() if any(data) else data[:-1].hex() + "01"


@contextlib.contextmanager
def bound(**ids: str | None) -> Iterator[None]:
    """Every log line inside carries these ids, in this task and in those it starts. None leaves one out."""
    with structlog.contextvars.bound_contextvars(**{name: value for name, value in ids.items() if value is not None}):
        yield


def configure_logs(
    log_format: LogFormat,
    clock: Clock,
    stream: TextIO | None = None,
    level: int = logging.INFO,
) -> None:
    """Send all logs, those of libraries too, to `stream` (standard error) in one format. Times come from `clock`."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        _dated(clock),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    _hand_over_uvicorn()
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for every call of a worker says nothing


def _hand_over_uvicorn() -> None:
    """The web server's own handlers would write each line a second time; its access log repeats ours."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = name != "uvicorn.access"


def _rendering(log_format: LogFormat) -> list[Processor]:
    if log_format is LogFormat.JSON:
        return [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer(default=str)]
    return [structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)]


def _dated(clock: Clock) -> Processor:
    def dated(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["timestamp"] = stamp(clock.now())
        return event

    return dated


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: blot out secret fields at any depth, and tokens inside of texts."""
    return {name: BLOT if _is_secret(name) else _clean(value) for name, value in event.items()}


def _is_secret(name: object) -> bool:
    lower = str(name).lower()
    return lower in SECRET_FIELDS or lower.endswith(_SECRET_ENDING)


def _clean(value: Any) -> Any:
    match value:
        case str():
            return clean_text(value)
        case bytes():
            return f"<{len(value)} bytes>"
        case Mapping():
            return {name: BLOT if _is_secret(name) else _clean(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_clean(inner) for inner in value]
        case _:
            return value


def clean_text(text: str) -> str:
    """The text without tokens, passwords in addresses, and bearer credentials."""
    return _BEARER.sub(BLOT, _URL_PASSWORD.sub(rf"\1:{BLOT}", _TOKEN.sub(BLOT, text)))


class Metrics:
    """The metrics of one process, under the names that dashboards and alerts rely on. One registry each: no globals."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Counter(
            "spectrum_jobs", "Jobs that reached a terminal state.", ["operation", "outcome"], registry=self.registry
        )
        self.job_duration = Histogram(
            "spectrum_job_duration_seconds",
            "From submit to the terminal state.",
            ["operation"],
            buckets=(0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3_600),
            registry=self.registry,
        )
        self.jobs_open = Gauge(
            "spectrum_jobs_open", "Jobs that have not ended, by state.", ["state"], registry=self.registry
        )
        self.jobs_unclaimed = Gauge(
            "spectrum_jobs_unclaimed_seconds",
            "For how long the oldest job that a worker may claim has waited for one.",
            registry=self.registry,
        )
        self.workers_live = Gauge(
            "spectrum_workers_live", "Workers with a lease that has not ended.", registry=self.registry
        )
        self.breakers_open = Gauge(
            "spectrum_breakers_open", "Targets that are not asked, since they did not answer.", registry=self.registry
        )
        self.queue = Gauge(
            "spectrum_queue_length",
            "What waits inside this process: commands for a transaction, callers for news.",
            ["queue"],
            registry=self.registry,
        )
        self.connections = Gauge(
            "spectrum_database_connections",
            "Connections of this process to PostgreSQL, by role: in use, and the most that there may be.",
            ["role", "state"],
            registry=self.registry,
        )
        self.steps_in_flight = Gauge("spectrum_steps_in_flight", "Steps being executed now.", registry=self.registry)
        self.step_retries = Counter(
            "spectrum_step_retries",
            "Attempts after the first, by cause.",
            ["operation", "cause"],
            registry=self.registry,
        )
        self.leases_expired = Counter("spectrum_leases_expired", "Leases that lapsed.", registry=self.registry)
        self.outbox_lag = Gauge(
            "spectrum_outbox_lag_seconds", "Age of the oldest event without a position.", registry=self.registry
        )
        self.log_lag = Gauge(
            "spectrum_log_lag_events",
            "Events that have a position and that a consumer of the log, such as the relay to Kafka, has not dealt with.",
            ["consumer"],
            registry=self.registry,
        )
        self.log_lag_seconds = Gauge(
            "spectrum_log_lag_seconds",
            "Age of the oldest event that a consumer of the log has not dealt with.",
            ["consumer"],
            registry=self.registry,
        )
        self.stream_clients = Gauge(
            "spectrum_stream_clients", "Clients that follow events at /v1/stream here.", registry=self.registry
        )
        self.stream_lag = Gauge(
            "spectrum_stream_lag_events",
            "How far in the log the client of /v1/stream that is furthest behind is behind what is known of it here.",
            registry=self.registry,
        )
        self.stream_bytes = Gauge(
            "spectrum_stream_window_bytes",
            "What is kept of the log's end for all clients of /v1/stream.",
            registry=self.registry,
        )
        self.streams_dropped = Counter(
            "spectrum_streams_dropped",
            "Clients of /v1/stream that were cut off because they did not read.",
            registry=self.registry,
        )
        self.hints_lost = Counter(
            "spectrum_hints_lost",
            "Hints to workers that did not get to Kafka: time, nothing else.",
            registry=self.registry,
        )
        self.audit_lag = Gauge(
            "spectrum_audit_lag_seconds",
            "Age of the oldest audit record without a seal.",
            registry=self.registry,
        )
        self.jobs_stuck = Gauge(
            "spectrum_jobs_stuck", "Instances that are on hold as quarantined.", registry=self.registry
        )
        self.requests = Counter(
            "spectrum_http_requests", "Answered requests.", ["method", "route", "status"], registry=self.registry
        )
        self.request_duration = Histogram(
            "spectrum_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["method", "route"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )

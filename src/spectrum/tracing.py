"""Spans of a request's way through the parts: OpenTelemetry over OTLP, on where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

The id of a job's span is made of the job's own. So every process can hang its part below it, though it is told last, by whoever
saw the job's end. Names, ids and durations travel; no text of a failure does (P18).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from spectrum.core.errors import SpectrumError
from spectrum.telemetry import Trace, parse_traceparent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    from spectrum.core.jobs.model import Job

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
About = Mapping[str, object]  # what is neither a number nor a text is told as a text

_own_id: ContextVar[int | None] = ContextVar(
    "own_id", default=None
)  # of the span that is being begun, where it is known


class TracingError(SpectrumError):
    """Traces are asked for and can't be had; the message says what to install."""


@dataclass
class _State:
    """Spans go nowhere until `configure_traces`."""

    tracer: otel.Tracer | None = None


_state = _State()


@dataclass(frozen=True, slots=True)
class Noted:
    """A span under way. Without tracing it is None inside, and everything is a no-op."""

    span: otel.Span | None = None

    @property
    def trace(self) -> Trace | None:
        """Where this span is, to be handed on as `traceparent`."""
        if self.span is None:
            return None
        at = self.span.get_span_context()
        return Trace(f"{at.trace_id:032x}", f"{at.span_id:016x}", at.trace_flags.sampled)

    def name(self, name: str) -> None:
        if self.span is not None:
            self.span.update_name(name)

    def note(self, about: About) -> None:
        if self.span is not None:
            self.span.set_attributes(_attributes(about))

    def fail(self, code: str) -> None:
        """`code` is an error's, never its text."""
        if self.span is not None:
            self.span.set_status(Status(StatusCode.ERROR, code))


_NOTHING = Noted()


def configure_traces(part: str) -> Callable[[], None]:
    """Send this process's spans where the environment says, in the background; what the answer does ends that.

    The variables are OpenTelemetry's own (`OTEL_EXPORTER_OTLP_*`, `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`). Raises
    `TracingError` where its packages are not installed.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingError(
            f"{ENDPOINTS[0]} is set, and {error.name} is not installed. Install spectrum-orchestrator[traces], or unset it."
        ) from error

    resource = Resource.create({"service.name": f"spectrum-{part}"})
    provider = TracerProvider(resource=resource, id_generator=ids(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return use(provider)


def ids() -> IdGenerator:
    """Random ones, but for spans whose id is known before they begin."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        def generate_span_id(self) -> int:
            return _own_id.get() or super().generate_span_id()

    return Ids()


def use(provider: TracerProvider) -> Callable[[], None]:
    """Let spans go to this provider. It is not OpenTelemetry's global one: libraries would add spans that say nothing."""
    _state.tracer = provider.get_tracer("spectrum")

    def end() -> None:
        _state.tracer = None
        provider.shutdown()

    return end


def on() -> bool:
    return _state.tracer is not None


# ---- spans


@contextmanager
def span(
    name: str,
    parent: str | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    own: str | None = None,
    root: bool = False,
    about: About | None = None,
) -> Iterator[Noted]:
    """A span around what is done inside. `parent` is a traceparent; without one it hangs below the span around it.

    Where neither is, there is no span, unless it may be the `root` of a new trace. `own` is what its id is made of.
    """
    tracer = _state.tracer
    if tracer is None:
        yield _NOTHING
        return
    context = _below(parent)
    if not root and not otel.get_current_span(context).get_span_context().is_valid:
        yield _NOTHING
        return
    with _owning(own):
        begun = tracer.start_span(name, context, kind, _attributes(about or {}))
    with otel.use_span(begun, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield Noted(begun)


def tell(
    name: str,
    parent: str | None,
    began: datetime,
    ended: datetime,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    own: str | None = None,
    failed: str = "",
    about: About | None = None,
) -> None:
    """A span of something that has ended already."""
    tracer = _state.tracer
    if tracer is None or parse_traceparent(parent) is None:
        return
    with _owning(own):
        told = tracer.start_span(name, _below(parent), kind, _attributes(about or {}), start_time=_nanoseconds(began))
    if failed:
        told.set_status(Status(StatusCode.ERROR, failed))
    told.end(_nanoseconds(ended))


def _below(parent: str | None) -> Context | None:
    """The context of a span's parent; None where that is whatever is around it."""
    place = parse_traceparent(parent)
    if place is None:
        return None
    flags = otel.TraceFlags(otel.TraceFlags.SAMPLED if place.sampled else otel.TraceFlags.DEFAULT)
    at = otel.SpanContext(int(place.trace_id, 16), int(place.span_id, 16), is_remote=True, trace_flags=flags)
    return otel.set_span_in_context(otel.NonRecordingSpan(at))


def _attributes(about: About) -> dict[str, str | int | float]:
    return {name: value if isinstance(value, int | float) else str(value) for name, value in about.items()}


@contextmanager
def _owning(own: str | None) -> Iterator[None]:
    """The spans that are begun inside have the id that is made of `own`."""
    token = _own_id.set(int(span_id(own), 16) if own else None)
    try:
        yield
    finally:
        _own_id.reset(token)


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6) * 1000


# ---- places that are known beforehand


def span_id(own: str) -> str:
    """Sixteen hex digits, not all of them zero."""
    digest = hashlib.sha256(own.encode()).digest()[:8]
    return (digest if any(digest) else digest[:-1] + b"\x01").hex()


def of_job(job: Job) -> str | None:
    """The traceparent of a job's span; None where whoever asked for the job told of no trace."""
    asked = parse_traceparent(job.traceparent)
    return str(Trace(asked.trace_id, span_id(job.id), asked.sampled)) if asked else None


def id_of(job: Job) -> str | None:
    """Of the trace that a job is part of, if any."""
    asked = parse_traceparent(job.traceparent)
    return asked.trace_id if asked else None

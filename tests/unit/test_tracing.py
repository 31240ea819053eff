"""Spans hang where they belong, in whatever process they are told, and without tracing nothing is done."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from spectrum import tracing
from spectrum.telemetry import Trace

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ASKED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = ASKED[:-1] + "0"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    kept = InMemorySpanExporter()
    provider = TracerProvider(id_generator=tracing.ids())
    provider.add_span_processor(SimpleSpanProcessor(kept))
    end = tracing.use(provider)
    yield kept
    end()


def hexadecimal(place: SpanContext | None) -> str:
    return f"{place.span_id:016x}" if place else ""


def test_without_tracing_there_is_nothing_to_hand_on() -> None:
    with tracing.span("POST", ASKED, root=True) as noted:
        noted.name("another")
        noted.note({"a": 1})
        noted.fail("code")
    assert (noted.trace, tracing.on()) == (None, False)


def test_a_span_below_nothing_is_none_unless_it_may_be_a_root(exporter: InMemorySpanExporter) -> None:
    with tracing.span("target ensure"):
        pass
    with tracing.span("GET", root=True):
        pass
    assert [span.name for span in exporter.get_finished_spans()] == ["GET"]


def test_a_span_inside_another_hangs_below_it_and_has_an_id_of_its_own(exporter: InMemorySpanExporter) -> None:
    with tracing.span("outer", ASKED, own="job_1") as outer, tracing.span("inner") as inner:
        assert inner.trace is not None
        assert outer.trace == Trace(inner.trace.trace_id, tracing.span_id("job_1"))
    parents = {span.name: span.parent for span in exporter.get_finished_spans()}
    assert inner.trace.span_id != tracing.span_id("job_1") == hexadecimal(parents["inner"])
    assert hexadecimal(parents["outer"]) == ASKED.split("-")[2]


def test_what_the_caller_does_not_sample_is_not_told(exporter: InMemorySpanExporter) -> None:
    with tracing.span("POST", UNSAMPLED, root=True) as noted:
        pass
    tracing.tell("job create", UNSAMPLED, NOW, NOW)
    assert (exporter.get_finished_spans(), noted.trace and noted.trace.sampled) == ((), False)


def test_an_ended_span_has_the_times_that_it_is_told_with(exporter: InMemorySpanExporter) -> None:
    tracing.tell("job create", ASKED, NOW, NOW + timedelta(microseconds=1500), own="job_1", failed="timeout")
    (span,) = exporter.get_finished_spans()
    began = int(NOW.timestamp()) * 10**9
    assert (span.start_time, span.end_time) == (began, began + 1_500_000)
    assert (span.status.description, hexadecimal(span.context)) == ("timeout", tracing.span_id("job_1"))


def test_a_thing_without_a_trace_is_not_told(exporter: InMemorySpanExporter) -> None:
    for parent in (None, "", "nonsense"):
        tracing.tell("job create", parent, NOW, NOW)
    assert not exporter.get_finished_spans()


def test_an_error_that_passes_through_leaves_no_text_behind(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="the password is"), tracing.span("POST", root=True):
        raise ValueError("the password is hunter2")
    assert "hunter2" not in exporter.get_finished_spans()[0].to_json()


def test_tracing_that_is_asked_for_and_not_installed_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(tracing.TracingError, match=r"Install spectrum-orchestrator\[traces\], or unset it"):
        tracing.configure_traces("server")

"""Logs carry ids and no secrets; traces go on; metrics have the names that alerts use."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from spectrum.ports import SystemClock
from spectrum.settings import LogFormat
from spectrum.telemetry import BLOT, Metrics, Trace, bound, configure_logs, new_trace, parse_traceparent, redact

NOW = datetime(2026, 11, 23, 12, 0, 0, 123_456, tzinfo=UTC)
TOKEN = "spk_0123456789abcdef_AbCdEfGhIjKlMnOpQrStUvWxYz"


class Frozen(SystemClock):
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs(LogFormat.JSON, Frozen(), stream)
    yield stream
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_carries_the_ids_at_hand_and_loses_them_afterwards(output: io.StringIO) -> None:
    log = structlog.get_logger("spectrum.test")
    with bound(request_id="req_1", job_id="job_1", step_id=None):
        log.info("inside")
    log.info("outside")
    inside, outside = lines(output)
    assert inside["message"] == "inside"
    assert (inside["request_id"], inside["job_id"], inside["level"]) == ("req_1", "job_1", "info")
    assert inside["timestamp"] == "2026-11-23T12:00:00.123Z"
    assert "step_id" not in inside
    assert "request_id" not in outside


def test_libraries_log_in_the_same_format(output: io.StringIO) -> None:
    with bound(request_id="req_1"):
        logging.getLogger("some.library").warning("took %s seconds", 3)
    (line,) = lines(output)
    assert (line["message"], line["logger"], line["request_id"]) == ("took 3 seconds", "some.library", "req_1")


def test_secrets_are_blotted_out_of_lines_and_tracebacks(output: io.StringIO) -> None:
    log = structlog.get_logger("spectrum.test")
    log.info(
        f"token {TOKEN} given", password="hidden1", nested={"db_password": "hidden2", "list": [{"token": "hidden3"}]}
    )
    try:
        raise ValueError(f"could not use {TOKEN} at postgresql://user:hidden4@host/db")
    except ValueError:
        log.exception("failed", headers={"Authorization": "Bearer hidden5"}, raw=b"hidden6")
    logging.getLogger("some.library").error("Authorization: Bearer hidden7")
    text = output.getvalue()
    assert "hidden" not in text
    assert TOKEN not in text
    assert text.count(BLOT) >= 6
    assert "postgresql://user:" in text


def test_the_console_format_is_for_people(output: io.StringIO) -> None:
    stream = io.StringIO()
    configure_logs(LogFormat.CONSOLE, Frozen(), stream)
    structlog.get_logger("spectrum.test").info("hello", job_id="job_1")
    assert "hello" in stream.getvalue()
    assert "job_id=job_1" in stream.getvalue()


@given(name=st.sampled_from(["password", "Token", "db_secret", "AUTHORIZATION"]), value=st.text(min_size=1))
def test_a_secret_field_is_blotted_out_whatever_it_holds(name: str, value: str) -> None:
    assert redact(None, "info", {name: value}) == {name: BLOT}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    ],
)
def test_a_traceparent_that_breaks_the_standard_is_as_good_as_none(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_a_trace_goes_on_with_a_span_of_its_own() -> None:
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    trace = parse_traceparent(header)
    assert trace is not None
    assert str(trace) == header
    child = trace.child(bytes(range(8)))
    assert (child.trace_id, child.span_id, child.sampled) == (trace.trace_id, "0001020304050607", True)


def test_a_later_version_of_traceparent_is_understood() -> None:
    later = parse_traceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more")
    assert later == Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", False)


@given(entropy=st.binary(min_size=24, max_size=24))
def test_a_new_trace_is_always_valid(entropy: bytes) -> None:
    trace = new_trace(entropy)
    assert parse_traceparent(str(trace)) == trace


def test_metrics_have_the_names_that_dashboards_use() -> None:
    metrics = Metrics()
    metrics.jobs.labels("create", "succeeded").inc()
    text = generate_latest(metrics.registry).decode()
    for name in (
        'spectrum_jobs_total{operation="create",outcome="succeeded"} 1.0',
        "spectrum_steps_in_flight",
        "spectrum_leases_expired_total",
        "spectrum_outbox_lag_seconds",
        "spectrum_jobs_stuck",
        "# TYPE spectrum_job_duration_seconds histogram",
        "# TYPE spectrum_step_retries_total counter",
    ):
        assert name in text

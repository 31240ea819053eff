"""One trace follows a request through the real programs: API, job, worker, target, and the worker's reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.trace import Collector, Span, draw
from tests.e2e.installation import HELLO, installed
from tests.waiting import wait_until

CREATE = "POST /v1/instances"


def whole(collector: Collector) -> list[Span]:
    """The trace, once it has its end: the job's own span is told last by the server, and the worker's come in batches."""
    spans = collector.trace_of(CREATE)
    reports = sum(span.name == "report" for span in spans)
    complete = any(span.name == "job create" for span in spans)
    return spans if complete and reports == sum(span.name == "take report" for span in spans) else []


def test_one_trace_follows_a_create_from_the_request_to_its_target_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector().listening() as collector:
        for name, value in collector.environment().items():
            monkeypatch.setenv(name, value)
        with installed(tmp_path) as installation, installation.client() as client:
            job = client.jobs.wait(installation.create(client, "traced", HELLO).id, timeout=120)
            spans = wait_until(lambda: whole(collector), 60)
            installation.watch.said += map(repr, collector.spans)  # is searched for secrets in the end

    ids = {span.id for span in spans}
    below = {span.id: span for span in spans}
    assert [span.name for span in spans if span.parent not in ids] == [CREATE]
    assert {span.service for span in spans} == {"spectrum-server", "spectrum-worker"}
    names = {span.name for span in spans}
    assert {"job create", "wait for a worker", "target survey", "target ensure", "report", "take report"} <= names
    assert {f"do {step.name}" for step in job.steps} <= names
    for span in spans:
        assert (span.name != "take report") or below[span.parent].name == "report"
        assert (span.name != "target ensure") or below[span.parent].name.startswith("do ")
    assert not any(span.failed for span in spans)
    assert draw(spans).count("<text") > len(spans)

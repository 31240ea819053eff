"""Draws one trace: `make trace` brings up an installation, creates an instance, and draws what was done for it.

The collector takes OTLP over HTTP, as any other would: spans come from the real programs, by the real exporter.
"""

from __future__ import annotations

import argparse
import gzip
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import escape

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
DELAY = "OTEL_BSP_SCHEDULE_DELAY"  # milliseconds until a batch of spans is sent


@dataclass(frozen=True, slots=True)
class Span:
    """What is drawn of a span. Times are seconds."""

    trace_id: str
    id: str
    parent: str  # empty for a root
    service: str
    name: str
    began: float
    ended: float
    failed: bool
    about: tuple[tuple[str, str], ...]


@dataclass
class Collector:
    """Takes spans, and keeps them."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator[Collector]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.spans += _read(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing: what comes in is what counts."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def environment(self) -> dict[str, str]:
        """What makes a program send its spans here, soon."""
        return {ENDPOINT: self.url, DELAY: "200"}

    def trace_of(self, root: str) -> list[Span]:
        """The latest trace whose first span has this name, from its first span on; nothing where there is none."""
        roots = [span for span in self.spans if span.name == root and not span.parent]
        if not roots:
            return []
        trace_id = max(roots, key=lambda span: span.began).trace_id
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.began)


def _read(request: ExportTraceServiceRequest) -> list[Span]:
    found = []
    for resource in request.resource_spans:
        service = next((a.value.string_value for a in resource.resource.attributes if a.key == "service.name"), "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                about = tuple((a.key, str(getattr(a.value, a.value.WhichOneof("value")))) for a in span.attributes)
                began, ended = span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9
                place = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), service)
                found.append(Span(*place, span.name, began, ended, span.status.code == 2, about))
    return found


# ---- drawing

WIDTH, NAMES, ROW, TOP = 1180, 330, 20, 46
_COLOURS = {"spectrum-server": "#4f6bed", "spectrum-worker": "#2f9e6e"}


def draw(spans: Sequence[Span]) -> str:
    """A trace as SVG: a row for each span, below its parent, as long as it took."""
    rows = list(_rows(spans))
    began, ended = min(span.began for span in spans), max(span.ended for span in spans)
    scale = (WIDTH - NAMES - 90) / (ended - began)
    height = TOP + ROW * len(rows) + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_legend(ended - began),
    ]
    for number, (depth, span) in enumerate(rows):
        y, x = TOP + ROW * number, NAMES + (span.began - began) * scale
        width = max((span.ended - span.began) * scale, 1.5)
        colour = "#c92a2a" if span.failed else _COLOURS.get(span.service, "#868e96")
        took = f"{1000 * (span.ended - span.began):,.0f} ms"
        lines += [
            f'<text x="{10 + 14 * depth}" y="{y + 14}" fill="#212529">{escape(_label(span))}</text>',
            f'<rect x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="12" rx="2" fill="{colour}"/>',
            f'<text x="{x + width + 5:.1f}" y="{y + 14}" fill="#868e96" font-size="10">{took}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _rows(spans: Sequence[Span], parent: str = "", depth: int = 0) -> Iterator[tuple[int, Span]]:
    for span in (each for each in spans if each.parent == parent):
        yield depth, span
        yield from _rows(spans, span.id, depth + 1)


def _label(span: Span) -> str:
    slot = dict(span.about).get("spectrum.slot")
    return f"{span.name} {slot}" if slot else span.name


def _legend(seconds: float) -> Iterator[str]:
    yield f'<text x="10" y="20" font-weight="bold" fill="#212529">One create, {seconds:.2f} s</text>'
    for number, (service, colour) in enumerate(_COLOURS.items()):
        x = NAMES + 160 * number
        yield f'<rect x="{x}" y="10" width="12" height="12" rx="2" fill="{colour}"/>'
        yield f'<text x="{x + 18}" y="20" fill="#212529">{service}</text>'


def main() -> None:
    from tests.e2e.installation import HELLO, installed
    from tests.waiting import wait_until

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    with Collector().listening() as collector, tempfile.TemporaryDirectory() as folder:
        os.environ |= collector.environment()
        with installed(Path(folder)) as installation, installation.client() as client:
            job = installation.create(client, "traced", HELLO)
            client.jobs.wait(job.id, timeout=120)
            wait_until(lambda: any(s.name == "job create" for s in collector.trace_of("POST /v1/instances")), 60)
            installation.remove(client, "traced")
        given.picture.write_text(draw(collector.trace_of("POST /v1/instances")))


if __name__ == "__main__":
    main()

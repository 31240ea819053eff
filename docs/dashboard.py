"""The Grafana dashboard, from a table of panels: `make docs` writes deploy/grafana/spectrum.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, WIDTH, HEIGHT = 3, 8, 8


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: what is asked of Prometheus, and how each line is called."""

    title: str
    lines: Sequence[tuple[str, str]]
    unit: str = "short"


ROWS: dict[str, Sequence[Panel]] = {
    "Jobs": (
        Panel("Jobs that ended, a minute", (("sum by (outcome) (rate(spectrum_jobs_total[5m])) * 60", "{{outcome}}"),)),
        Panel(
            "How long they took",
            tuple(
                (
                    f"histogram_quantile({share}, sum by (le, operation) (rate(spectrum_job_duration_seconds_bucket[15m])))",
                    f"{{{{operation}}}} p{round(100 * share)}",
                )
                for share in (0.5, 0.99)
            ),
            "s",
        ),
        Panel("Open jobs", (("max by (state) (spectrum_jobs_open)", "{{state}}"),)),
        Panel("Oldest job that may be claimed", (("max(spectrum_jobs_unclaimed_seconds)", "waits"),), "s"),
        Panel("Quarantined instances", (("max(spectrum_jobs_stuck)", "quarantined"),)),
        Panel(
            "Attempts after the first, an hour",
            (("sum by (cause) (increase(spectrum_step_retries_total[1h]))", "{{cause}}"),),
        ),
    ),
    "Workers and targets": (
        Panel("Live workers", (("max(spectrum_workers_live)", "workers"),)),
        Panel("Leases that lapsed, an hour", (("sum(increase(spectrum_leases_expired_total[1h]))", "lapsed"),)),
        Panel("Attempts under way", (("max(spectrum_steps_in_flight)", "attempts"),)),
        Panel("Targets that are not asked", (("max(spectrum_breakers_open)", "targets"),)),
    ),
    "Log": (
        Panel("Behind the log", (("max by (consumer) (spectrum_log_lag_seconds)", "{{consumer}}"),), "s"),
        Panel("Events not dealt with", (("max by (consumer) (spectrum_log_lag_events)", "{{consumer}}"),)),
        Panel(
            "Before the log",
            (
                ("max(spectrum_outbox_lag_seconds)", "without position"),
                ("max(spectrum_audit_lag_seconds)", "not sealed"),
            ),
            "s",
        ),
    ),
    "Control plane": (
        Panel("Requests a second", (("sum by (status) (rate(spectrum_http_requests_total[5m]))", "{{status}}"),)),
        Panel(
            "How long they took, p99",
            (
                (
                    "histogram_quantile(0.99, sum by (le, route) (rate(spectrum_http_request_duration_seconds_bucket[5m])))",
                    "{{route}}",
                ),
            ),
            "s",
        ),
        Panel("Queues", (("sum by (queue) (spectrum_queue_length)", "{{queue}}"),)),
        Panel(
            "Connections to PostgreSQL",
            (
                ('max by (role) (spectrum_database_connections{state="used"})', "{{role}}, used"),
                ('max by (role) (spectrum_database_connections{state="most"})', "{{role}}, most"),
            ),
        ),
    ),
}


def dashboard() -> str:
    """The JSON that Grafana imports."""
    return (
        json.dumps(
            {
                "title": "SPECTRUM",
                "uid": "spectrum",
                "schemaVersion": 39,
                "timezone": "browser",
                "refresh": "30s",
                "time": {"from": "now-6h", "to": "now"},
                "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
                "panels": _panels(),
            },
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
    )


def _panels() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    y = 0
    for name, panels in ROWS.items():
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": name,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": COLUMNS * WIDTH, "h": 1},
            }
        )
        for number, panel in enumerate(panels):
            x, down = number % COLUMNS * WIDTH, y + 1 + number // COLUMNS * HEIGHT
            made.append(_graph(len(made) + 1, panel, x, down))
        y += 1 + -(-len(panels) // COLUMNS) * HEIGHT
    return made


def _graph(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
            for place, (expression, legend) in enumerate(panel.lines)
        ],
    }

"""Alerts and the dashboard ask for metrics that there are, and every alert has a runbook. promtool judges the rest."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from ruamel.yaml import YAML

from spectrum.telemetry import Metrics
from tests.keeper import REPOSITORY, is_missing

ALERTS = REPOSITORY / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "spectrum.json"
RUNBOOKS = REPOSITORY / "docs" / "runbooks.md"


def rules() -> list[dict[str, Any]]:
    groups = YAML(typ="safe").load(ALERTS)["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [*(rule["expr"] for rule in rules()), *(t["expr"] for p in panels for t in p.get("targets", ()))]


@pytest.mark.parametrize("expression", expressions())
def test_what_is_asked_for_is_told(expression: str) -> None:
    names = {
        name for metric in Metrics().registry.collect() for name in [metric.name, *_suffixed(metric.type, metric.name)]
    }
    asked = set(re.findall(r"\bspectrum_[a-z_]+", expression))
    assert asked <= names


def _suffixed(kind: str, name: str) -> list[str]:
    endings = {"counter": ["total"], "histogram": ["bucket", "count", "sum"]}.get(kind, [])
    return [f"{name}_{ending}" for ending in endings]


def test_every_alert_has_a_chapter_in_the_runbooks_and_every_chapter_an_alert() -> None:
    chapters = re.findall(r"(?m)^## (\w+)$", RUNBOOKS.read_text())
    assert chapters == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{rule['alert'].lower()}"


def test_every_alert_rings_where_it_should_and_nowhere_else() -> None:
    tool = shutil.which("promtool")
    if tool is None:
        is_missing(
            "promtool", "Alert rules are tested by Prometheus' promtool, which is not there: install prometheus."
        )
    tested = YAML(typ="safe").load(ALERTS.with_name("alerts_test.yaml"))["tests"]
    rung = str([sample for test in tested for asked in test["promql_expr_test"] for sample in asked["exp_samples"]])
    assert [rule["alert"] for rule in rules() if f'"{rule["alert"]}"' not in rung] == []
    for words in (["check", "rules", ALERTS.name], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run([tool, *words], cwd=ALERTS.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

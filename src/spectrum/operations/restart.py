"""Restart: stop every service, then start it anew, until the instance answers."""

from __future__ import annotations

from spectrum.core.jobs.table import Lifecycle
from spectrum.core.plan import Given, Operation, Plan
from spectrum.operations import steps


def plan(given: Given) -> Plan:
    outline = steps.outline_of(given)
    down = steps.stopping(outline)
    nodes = down + steps.starting(outline, needs=steps.names(down))
    nodes.append(steps.verify_running(outline, steps.names(nodes)))
    return steps.as_plan(nodes)


OPERATION = Operation(
    name="restart",
    version=1,
    allowed=frozenset({Lifecycle.RUNNING}),
    plan=plan,
    actions=steps.ACTIONS,
)

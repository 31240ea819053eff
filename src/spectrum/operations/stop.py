"""Stop: end the services of an instance, those that need others first; its data stays."""

from __future__ import annotations

from spectrum.core.jobs.table import Lifecycle
from spectrum.core.plan import Given, Operation, Plan
from spectrum.operations import steps


def plan(given: Given) -> Plan:
    outline = steps.outline_of(given)
    nodes = steps.stopping(outline)
    nodes.append(steps.verify_stopped(outline, steps.names(nodes)))
    return steps.as_plan(nodes)


OPERATION = Operation(
    name="stop",
    version=1,
    allowed=frozenset({Lifecycle.RUNNING}),
    plan=plan,
    actions=steps.ACTIONS,
    success=lambda instance, job: Lifecycle.STOPPED,
)

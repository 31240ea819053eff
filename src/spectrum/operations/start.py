"""Start: bring the services of a stopped instance up again, in order, until it answers."""

from __future__ import annotations

from spectrum.core.jobs.table import Lifecycle
from spectrum.core.plan import Given, Operation, Plan
from spectrum.operations import steps


def plan(given: Given) -> Plan:
    outline = steps.outline_of(given)
    nodes = steps.starting(outline)
    nodes.append(steps.verify_running(outline, steps.names(nodes)))
    return steps.as_plan(nodes)


OPERATION = Operation(
    name="start",
    version=1,
    allowed=frozenset({Lifecycle.STOPPED}),
    plan=plan,
    actions=steps.ACTIONS,
    success=lambda instance, job: Lifecycle.RUNNING,
)

"""Create: make ready what the release needs, the instance's base and volumes, then its services in order, until it answers."""

from __future__ import annotations

from spectrum.core.jobs.table import Lifecycle
from spectrum.core.plan import Given, Operation, Plan
from spectrum.operations import steps


def plan(given: Given) -> Plan:
    outline = steps.outline_of(given)
    nodes = [steps.stock(), steps.base(needs=("stock",))]
    nodes += [steps.volume(name) for name in outline.volumes]
    nodes += steps.starting(outline, needs=("prepare",), hooks_on="create", volumes=True)
    nodes.append(steps.verify_running(outline, steps.names(nodes)))
    return steps.as_plan(nodes)


OPERATION = Operation(
    name="create",
    version=1,
    allowed=frozenset({Lifecycle.CREATING}),
    plan=plan,
    actions=steps.ACTIONS,
    success=lambda instance, job: Lifecycle.RUNNING,
    failure=Lifecycle.FAILED,
)

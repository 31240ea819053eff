"""Delete: stop the instance and keep its data until the retention is over. One that never came to be is removed at once."""

from __future__ import annotations

from spectrum.core.jobs.model import Instance, Job
from spectrum.core.jobs.table import Lifecycle
from spectrum.core.plan import Given, Operation, Plan
from spectrum.operations import steps


def plan(given: Given) -> Plan:
    if given.instance.lifecycle is Lifecycle.FAILED:
        nodes = steps.removing(given)
        nodes.append(steps.verify_gone(steps.names(nodes)))
        return steps.as_plan(nodes)
    outline = steps.outline_of(given)
    nodes = steps.stopping(outline)
    nodes.append(steps.verify_stopped(outline, steps.names(nodes)))
    return steps.as_plan(nodes)


def after(instance: Instance, job: Job) -> Lifecycle:
    return Lifecycle.PURGED if instance.lifecycle is Lifecycle.FAILED else Lifecycle.DELETED


OPERATION = Operation(
    name="delete",
    version=1,
    allowed=frozenset({Lifecycle.RUNNING, Lifecycle.STOPPED, Lifecycle.SUSPENDED, Lifecycle.FAILED}),
    plan=plan,
    actions=steps.ACTIONS,
    success=after,
    on_hold=True,
    preempts=True,
    clears_hold=True,
)

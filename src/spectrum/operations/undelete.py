"""Undelete: bring a deleted instance back to what it was wanted to be, running or stopped, with its data."""

from __future__ import annotations

from spectrum.core.jobs.model import Instance, Job
from spectrum.core.jobs.table import Desired, Lifecycle
from spectrum.core.plan import Given, Operation, Plan
from spectrum.operations import steps


def plan(given: Given) -> Plan:
    outline = steps.outline_of(given)
    if after(given.instance, given.job) is Lifecycle.STOPPED:
        return steps.as_plan([steps.verify_stopped(outline, ())])
    nodes = steps.starting(outline)
    nodes.append(steps.verify_running(outline, steps.names(nodes)))
    return steps.as_plan(nodes)


def after(instance: Instance, job: Job) -> Lifecycle:
    spec = instance.accepted or instance.requested
    return Lifecycle.STOPPED if spec.desired_state is Desired.STOPPED else Lifecycle.RUNNING


OPERATION = Operation(
    name="undelete",
    version=1,
    allowed=frozenset({Lifecycle.DELETED}),
    plan=plan,
    actions=steps.ACTIONS,
    success=after,
)

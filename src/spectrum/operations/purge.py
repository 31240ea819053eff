"""Purge: remove everything that an instance has, its data too. There is no way back: it goes forward until its deadline."""

from __future__ import annotations

from spectrum.core.jobs.table import Lifecycle
from spectrum.core.plan import Given, Operation, Plan
from spectrum.operations import steps


def plan(given: Given) -> Plan:
    nodes = steps.removing(given)
    nodes.append(steps.verify_gone(steps.names(nodes)))
    return steps.as_plan(nodes)


OPERATION = Operation(
    name="purge",
    version=1,
    allowed=frozenset({Lifecycle.DELETED, Lifecycle.FAILED}),
    plan=plan,
    actions=steps.ACTIONS,
    success=lambda instance, job: Lifecycle.PURGED,
    forward_only=True,
)

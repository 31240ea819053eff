"""What a command would do, said without doing it: the same decision on what is read, and nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from spectrum.core.errors import Problem
from spectrum.core.jobs.commands import Rejection, Submit, Submitted
from spectrum.core.jobs.decide import decide
from spectrum.core.jobs.model import Aggregate, Job, Step, Surroundings
from spectrum.core.plan import Catalog, Given, Plan, PlanError
from spectrum.core.product.outline import Outline
from spectrum.db import reading
from spectrum.db.pools import Connection


@dataclass(frozen=True, slots=True)
class Planned:
    """The steps that a job would have, and the hash by which this plan is told from another."""

    operation: str
    plan_hash: str
    steps: tuple[Mapping[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        return {"operation": self.operation, "plan_hash": self.plan_hash, "steps": [dict(step) for step in self.steps]}


async def planned(connection: Connection, submit: Submit, catalog: Catalog) -> Planned:
    """The plan as it would be now. Where others wait or run before it, it is made anew when its turn comes.

    Raises Problem as the command itself would.
    """
    aggregate = await _aggregate(connection, submit)
    around = (await reading.surroundings(connection, [aggregate.instance]))[aggregate.instance.id]
    outlines = await _outlines(connection, aggregate, submit, around.target_kind)
    aggregate = replace(aggregate, outlines=outlines)
    decision = decide(aggregate, submit, around, catalog)
    if isinstance(decision, Rejection):
        raise decision.problem
    job = _job_of(decision.answer)
    if job.state.terminal and job.failure is not None:
        raise Problem("not-allowed-now", job.failure.message)
    if job.plan_hash:
        return Planned(job.operation, job.plan_hash, tuple(_step(step) for step in job.steps))
    return _ahead_of_its_turn(job, aggregate, around, catalog)


def _job_of(answer: object) -> Job:
    if not isinstance(answer, Submitted):
        raise TypeError(f"a submit is answered by a job, not {type(answer).__name__}")
    return answer.job


def _ahead_of_its_turn(job: Job, aggregate: Aggregate, around: Surroundings, catalog: Catalog) -> Planned:
    """The job would wait behind others: its plan as it would be if they changed nothing."""
    given = Given.of(aggregate.instance, job, aggregate.effects, aggregate.outlines, around.target_kind)
    try:
        plan = catalog[job.operation, job.operation_version].plan(given)
    except PlanError as error:
        raise Problem("not-allowed-now", f"{error}.") from error
    return Planned(job.operation, plan.digest(), _nodes(plan))


def _nodes(plan: Plan) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        _as_json(node.name, node.needs, node.slot, node.irreversible, node.destructive, node.condition)
        for node in plan.nodes
    )


def _step(step: Step) -> Mapping[str, Any]:
    runs = step.state.value != "skipped"
    return _as_json(step.name, step.needs, step.slot, step.irreversible, step.destructive, runs)


def _as_json(
    name: str, needs: tuple[str, ...], slot: str | None, irreversible: bool, destructive: bool, runs: bool
) -> Mapping[str, Any]:
    return {
        "name": name,
        "needs": list(needs),
        "slot": slot,
        "state": "pending" if runs else "skipped",
        "irreversible": irreversible,
        "destructive": destructive,
    }


# ---- what the decision sees


async def _aggregate(connection: Connection, submit: Submit) -> Aggregate:
    """The aggregate as it is read, without a lock."""
    if submit.new is not None:
        return Aggregate(submit.new)
    found = await reading.aggregates(connection, [submit.instance_id])
    if submit.instance_id not in found:
        raise Problem("not-found", f"There is no instance {submit.instance_id}.")
    return found[submit.instance_id]


async def _outlines(connection: Connection, aggregate: Aggregate, submit: Submit, kind: str) -> Mapping[Any, Outline]:
    specs = (submit.spec, aggregate.instance.requested, aggregate.instance.accepted)
    return await reading.outlines(connection, {spec.release_id: kind for spec in specs if spec is not None})

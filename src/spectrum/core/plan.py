"""The plan of a job: a DAG of steps, what may start next, and what may be undone next.

An operation turns what is known of an instance into a `Plan`; promotion turns the plan into steps. `ready` and `unwindable` are
asked by the worker, which runs steps, and by the engine, which refuses an intent that they do not allow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spectrum.core import ids
from spectrum.core.errors import SpectrumError
from spectrum.core.ids import ReleaseId, StepId
from spectrum.core.jobs.table import SATISFIED, UNWOUND, Lifecycle, StepState, Wants

if TYPE_CHECKING:
    from spectrum.core.jobs.model import Effect, Instance, Job, Step


class PlanError(SpectrumError):
    """The operation cannot be planned against the state of this moment; the message is for the vendor."""


@dataclass(frozen=True, slots=True)
class Node:
    """One step to be. Durations are seconds; `needs` are names of other nodes; a false `condition` skips it.

    A `key` that is given keeps the effect that is already there; otherwise the slot is made anew under the next key.
    """

    name: str
    action: str
    slot: str | None = None
    wants: Wants = Wants.NOTHING
    needs: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    condition: bool = True
    irreversible: bool = False
    destructive: bool = False
    tries: int = 5
    attempt_seconds: float = 60.0
    step_seconds: float = 300.0
    retry_cap: float = 60.0
    key: str | None = None

    def __post_init__(self) -> None:
        if (self.slot is None) != (self.wants is Wants.NOTHING):
            raise PlanError(f"step {self.name}: a step has a slot exactly if it wants something of it")


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes in topological order, and how long the whole may take, forward and back (seconds)."""

    nodes: tuple[Node, ...]
    job_seconds: float
    unwind_seconds: float

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for node in self.nodes:
            if node.name in seen:
                raise PlanError(f"two steps are named {node.name}")
            if missing := [need for need in node.needs if need not in seen]:
                raise PlanError(f"step {node.name} needs {', '.join(missing)}, which does not come before it")
            seen.add(node.name)

    def digest(self) -> str:
        """`sha256:…` over everything that the plan says, so that an approved plan can be told from another."""
        return "sha256:" + hashlib.sha256(json.dumps(_plain(self), sort_keys=True).encode()).hexdigest()


def _plain(plan: Plan) -> dict[str, Any]:
    nodes = [
        {name: getattr(node, name) for name in Node.__slots__} | {"arguments": dict(node.arguments)}
        for node in plan.nodes
    ]
    return {"nodes": nodes, "job_seconds": plan.job_seconds, "unwind_seconds": plan.unwind_seconds}


@dataclass(frozen=True, slots=True)
class Given:
    """What planning sees: the instance and its effects at the moment of promotion, the job, and the release's outline."""

    instance: Instance
    job: Job
    effects: tuple[Effect, ...]
    outline: Any
    target_kind: str

    @classmethod
    def of(
        cls,
        instance: Instance,
        job: Job,
        effects: Mapping[tuple[str, str], Effect],
        outlines: Mapping[ReleaseId, Any],
        target_kind: str,
    ) -> Given:
        """What a plan of `job` made now sees. The release is the one that the job works towards, else the instance's own."""
        spec = job.spec or instance.accepted or instance.requested
        in_order = tuple(effect for _, effect in sorted(effects.items()))
        return cls(instance, job, in_order, outlines.get(spec.release_id), target_kind)

    @property
    def present(self) -> Mapping[str, Effect]:
        """What is wanted present, by slot."""
        return {effect.slot: effect for effect in self.effects if effect.present}

    def wanted(self, slots: Iterable[str]) -> dict[str, str | None]:
        """Slot -> the key that is wanted there, or None where nothing is; sorted by slot."""
        present = self.present
        return {slot: present[slot].key if slot in present else None for slot in sorted(set(slots))}


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be done to an instance: versioned code that yields a plan. `actions` are run by workers.

    `allowed` are the lifecycles it may start from; `success` is the lifecycle after it (None: stays as it is). A `forward_only`
    operation has no undo: it is retried until its deadline, then fails with its residue. One that is `on_hold` is possible under a
    hold too, one that `needs_hold` only there.
    """

    name: str
    version: int
    allowed: frozenset[Lifecycle]
    plan: Callable[[Given], Plan]
    actions: Mapping[str, Any]
    success: Callable[[Instance, Job], Lifecycle | None] = lambda instance, job: None
    failure: Lifecycle | None = None
    on_hold: bool = False
    preempts: bool = False
    forward_only: bool = False
    clears_hold: bool = False
    needs_hold: bool = False


Catalog = Mapping[tuple[str, int], Operation]


def newest_version(catalog: Catalog, operation: str) -> int:
    """The version that a new job gets; 1 where the operation is not there at all, which is then refused."""
    return max((version for name, version in catalog if name == operation), default=1)


def step_id(job_id: str, name: str) -> StepId:
    """Derived from job and name, so that planning needs no chance: the same plan gives the same ids."""
    entropy = hashlib.sha256(f"{job_id}/{name}".encode()).digest()
    return StepId(ids.make("stp", ids.moment_of(job_id), entropy))


def _satisfied(steps: Iterable[Step], assumed_done: Collection[str]) -> set[str]:
    return {s.name for s in steps if s.state in SATISFIED or s.name in assumed_done}


def ready(steps: tuple[Step, ...], assumed_done: Collection[str] = ()) -> list[Step]:
    """Steps whose needs are all done and which have no try under way, in plan order.

    `assumed_done` are steps whose outcome is known but travels in the same report.
    """
    satisfied = _satisfied(steps, assumed_done)
    startable = (StepState.PENDING, StepState.RETRYING, StepState.UNKNOWN, StepState.REPLACING)
    return [
        step
        for step in steps
        if step.state in startable and step.name not in assumed_done and all(need in satisfied for need in step.needs)
    ]


def unwindable(steps: tuple[Step, ...], assumed_undone: Collection[str] = ()) -> list[Step]:
    """Steps to undo next, newest first: everything that was built on them is undone (or was never touched)."""
    settled = {s.name for s in steps if s.state in UNWOUND or s.name in assumed_undone}
    built_on: dict[str, list[str]] = {}
    for step in steps:
        for need in step.needs:
            built_on.setdefault(need, []).append(step.name)
    return [
        step
        for step in reversed(steps)
        if step.state is StepState.UNDOING
        and step.name not in assumed_undone
        and all(later in settled for later in built_on.get(step.name, ()))
    ]

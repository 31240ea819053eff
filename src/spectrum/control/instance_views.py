"""An instance as it is shown: requested, accepted and observed, and what may be asked of it now (INTERFACES §2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectrum.core.access import Principal
from spectrum.core.errors import Problem
from spectrum.core.jobs.asking import MAX_WAITING
from spectrum.core.jobs.model import Instance, Spec
from spectrum.core.jobs.table import Hold, Lifecycle
from spectrum.core.moments import stamp
from spectrum.core.plan import Catalog, Operation
from spectrum.db import rows
from spectrum.db.pools import Connection
from spectrum.db.sql import query
from spectrum.db.visits import Row

_FIND = query("instances_find")

OPERATOR = "operator"  # the audience of outputs that are not for everybody
FEW = 2


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One customer's environment. `for_operators`: outputs for operators are shown too."""

    instance: Instance
    target: str
    secrets: Mapping[str, int]  # name -> version
    waiters: int
    catalog: Catalog
    for_operators: bool

    @property
    def generation(self) -> int:
        return self.instance.generation

    def as_json(self) -> dict[str, Any]:
        instance, spec = self.instance, spec_in_force(self.instance)
        return {
            "id": instance.id,
            "name": instance.name,
            "organization_id": instance.organization_id,
            "product": spec.product,
            "release": spec.version,
            "plan": spec.plan,
            "target": self.target,
            "labels": dict(instance.labels),
            "generation": instance.generation,
            "accepted_generation": instance.accepted_generation,
            "desired_state": spec.desired_state.value,
            "lifecycle": instance.lifecycle.value,
            "hold": instance.hold.value,
            "health": instance.health.value,
            "observed_at": stamp(instance.observed_at),
            "parameters": self._parameters(spec),
            **self._observed(),
            "active_job_id": instance.active_job_id,
            "actions": actions(instance, self.waiters, self.catalog),
            "created_at": stamp(instance.created_at),
            "updated_at": stamp(instance.updated_at),
            "deleted_at": stamp(instance.deleted_at),
            "purge_at": stamp(instance.purge_at),
        }

    def _parameters(self, spec: Spec) -> dict[str, Any]:
        secret = {name: {"secret": True, "version": version} for name, version in self.secrets.items()}
        return dict(sorted({**spec.parameters, **secret}.items()))

    def _observed(self) -> dict[str, Any]:
        """What was found out about it; of a purged one nothing is left."""
        there = self.instance.lifecycle is not Lifecycle.PURGED
        outputs = self.instance.outputs if there else {}
        values = outputs.get("values", {})
        return {
            "outputs": {name: each["value"] for name, each in sorted(values.items()) if self._may_see(each)},
            "endpoints": list(outputs.get("endpoints", ())),
            "services": list(self.instance.services) if there else [],
            "conditions": [{"since": None, **condition} for condition in self.instance.conditions] if there else [],
        }

    def _may_see(self, output: Mapping[str, Any]) -> bool:
        return self.for_operators or output.get("audience") != OPERATOR


async def find_instance(connection: Connection, principal: Principal, name_or_id: str) -> Row:
    """The row of an instance in the principal's organization. Raises Problem `not-found`."""
    (found,) = await find_instances(connection, principal.organization, [name_or_id])
    if isinstance(found, Exception):
        raise found
    return found


async def find_instances(
    connection: Connection, organization: str, names_or_ids: Sequence[str]
) -> list[Row | Exception]:
    """The row of each of these instances, or Problem `not-found`."""
    rows = {row["place"]: row for row in await connection.fetch(_FIND, organization, list(names_or_ids))}
    return [rows.get(place) or _no_such_instance(each) for place, each in enumerate(names_or_ids, 1)]


def _no_such_instance(name_or_id: str) -> Problem:
    return Problem("not-found", f"There is no instance {name_or_id!r}. See `spectrum instance list`.")


def instance_view(row: Row, catalog: Catalog, for_operators: bool) -> InstanceView:
    """From a row of `instances_find` or `instance_list`."""
    instance = rows.instance_of(row, "")
    return InstanceView(instance, row["target"], row["secret_versions"], row["waiters"], catalog, for_operators)


def spec_in_force(instance: Instance) -> Spec:
    """What the instance is on its way to: what was asked for last, unless that was rejected."""
    rejected = instance.rejected_generation == instance.generation
    return instance.accepted if rejected and instance.accepted is not None else instance.requested


def actions(instance: Instance, waiters: int, catalog: Catalog) -> list[dict[str, Any]]:
    """Every verb, and whether a submit of it would be accepted now."""
    newest = {name: operation for (name, _), operation in sorted(catalog.items()) if name != "create"}
    found = ((name, why_not(operation, instance, waiters)) for name, operation in sorted(newest.items()))
    return [{"verb": name, "allowed": not why, "reason": why or None} for name, why in found]


def why_not(operation: Operation, instance: Instance, waiters: int) -> str:
    """The reason for which the operation would be refused now; empty where it would not.

    It says what `core.jobs.asking` decides: while a job is active, others wait behind it.
    """
    if instance.hold is not Hold.NONE and not operation.on_hold:
        return instance.hold.value
    if instance.hold is Hold.NONE and operation.needs_hold:
        return "not_on_hold"
    if instance.active_job_id is None and instance.lifecycle not in operation.allowed:
        return _not_from_here(operation, instance.lifecycle)
    return "queue_full" if waiters >= MAX_WAITING else ""


def _not_from_here(operation: Operation, lifecycle: Lifecycle) -> str:
    allowed = [state for state in Lifecycle if state in operation.allowed]
    return f"not_{allowed[0].value}" if len(allowed) <= FEW else f"is_{lifecycle.value}"

"""Instances: what may be asked of them, and how they are shown. Everything that is asked for becomes a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from spectrum.control.changes import Changes, own
from spectrum.control.commands import Listing, Mutation, Page, Reply
from spectrum.control.engine import Engine
from spectrum.control.instance_views import InstanceView, find_instances, instance_view, spec_in_force
from spectrum.control.jobs import Seen, accepted, keyed
from spectrum.control.plans import Planned, planned
from spectrum.control.specs import Choice, Order, check_desired_state, choose, complete, seal
from spectrum.core.access import Principal
from spectrum.core.errors import Problem
from spectrum.core.ids import InstanceId, JobId, PlacementId
from spectrum.core.jobs.commands import Submit
from spectrum.core.jobs.model import Instance, Spec
from spectrum.core.jobs.store import Asked, TargetRemoved
from spectrum.core.jobs.table import Desired, Lifecycle
from spectrum.core.plan import newest_version
from spectrum.core.product.extension import Retention
from spectrum.core.product.parameters import Value
from spectrum.core.product.release import Release
from spectrum.core.product.render import validate_parameters
from spectrum.core.sealing import Context, Sealed
from spectrum.db.pools import Connection
from spectrum.db.sql import query
from spectrum.db.visits import Row, visiting
from spectrum.ports import Clock, new_id

_FIND = query("instances_find")
_LIST = query("instance_list")
_RELEASE = query("release_document")
_RETENTION = query("release_retention")
_SECRETS = query("secrets_of_instance")

VERBS = ("start", "stop", "restart", "undelete", "purge", "resolve")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which instances a list holds. None: all. `name` is how a name begins."""

    product: str | None = None
    release: str | None = None
    plan: str | None = None
    target: str | None = None
    lifecycle: str | None = None
    hold: str | None = None
    health: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True, slots=True)
class Instances:
    """Instances in PostgreSQL, changed through the engine alone."""

    changes: Changes
    engine: Engine
    clock: Clock

    # ---- showing

    async def instances(self, principal: Principal, page: Page, filters: Filters) -> Listing[InstanceView]:
        """Those that are not purged, unless the filter asks for these."""
        f = filters
        chosen = (f.product, f.release, f.plan, f.target, f.lifecycle, f.hold, f.health, dict(f.labels), f.name)
        async with visiting(self.changes.pool, own(principal)) as connection:
            rows = await connection.fetch(_LIST, principal.organization, page.after, page.limit + 1, *chosen)
        views = [self._view(principal, row) for row in rows]
        return Listing.of(views, page, [row["id"] for row in rows])

    async def instance(self, principal: Principal, name_or_id: str) -> InstanceView:
        """A purged one is found by its id alone. Raises Problem `not-found`."""
        row: Row = await self.changes.reads.ask(principal.organization, find_instances, name_or_id)
        return self._view(principal, row)

    def _view(self, principal: Principal, row: Row) -> InstanceView:
        return instance_view(row, self.engine.catalog, "admin" in principal.scopes)

    # ---- asking

    async def create(self, mutation: Mutation, name: str, order: Order) -> Reply:
        """A new instance. Raises Problem `invalid-parameter`, `not-allowed-now` where the name is taken."""

        return await self._unless_answered(mutation, lambda: self._make(mutation, name, order))

    async def put(self, mutation: Mutation, name: str, order: Order, absent: bool, expected: int | None) -> Reply:
        """A new instance, or nothing where there is one that is so already.

        Raises Problem as `create` does, `precondition-failed`, and `operation-not-available` for a change of what is there.
        """

        async def ask() -> Reply:
            present = await self._present(mutation.principal, name, order, absent, expected)
            if present is None:
                return await self._make(mutation, name, order)
            # It may be there because this very request was made before.
            stored = await self.changes.find(mutation)
            return stored or Reply(200, present.as_json())

        return await self._unless_answered(mutation, ask)

    async def act(self, mutation: Mutation, verb: str, name_or_id: str, expected: int | None) -> Reply:
        """One of `VERBS`, or delete.

        Raises Problem `not-found`, `not-allowed-now`, `instance-busy`, `precondition-failed`, `operation-not-available`.
        """

        async def ask() -> Reply:
            submit, name = await self._act(mutation.principal, verb, name_or_id, expected)
            return await self._execute(mutation, submit, name)

        return await self._unless_answered(mutation, ask)

    # ---- saying what would be done

    async def plan_create(self, principal: Principal, name: str, order: Order) -> Planned:
        """What `create` would do."""
        async with visiting(self.changes.pool, own(principal)) as connection:
            if await connection.fetchrow(_FIND, principal.organization, [name]) is not None:
                raise Problem("not-allowed-now", f"There is already an instance named {name}. Choose another name.")
        return await self._plan(principal, await self._create(principal, name, order))

    async def plan_put(
        self, principal: Principal, name: str, order: Order, absent: bool, expected: int | None
    ) -> Planned:
        """What `put` would do: nothing, or a create."""
        if await self._present(principal, name, order, absent, expected) is not None:
            return Planned("none", "", ())
        return await self._plan(principal, await self._create(principal, name, order))

    async def plan_act(self, principal: Principal, verb: str, name_or_id: str, expected: int | None) -> Planned:
        """What `act` would do."""
        submit, _ = await self._act(principal, verb, name_or_id, expected)
        return await self._plan(principal, submit)

    async def _plan(self, principal: Principal, submit: Submit) -> Planned:
        async with visiting(self.changes.pool, own(principal)) as connection:
            return await planned(connection, submit, self.engine.catalog)

    # ---- commands

    async def _execute(self, mutation: Mutation, submit: Submit, shown_as: str, taking: str | None = None) -> Reply:
        seen = Seen(shown_as)
        submit = replace(submit, traceparent=mutation.traceparent or None)
        return accepted(await self.engine.execute(Asked(submit, keyed(mutation, seen), taking)), seen)

    async def _unless_answered(self, mutation: Mutation, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """What a request is refused for may be its own doing, when it was sent twice at once: then its answer is there."""
        try:
            return await ask()
        except Problem:
            if stored := await self.changes.find(mutation):
                return stored
            raise

    async def _make(self, mutation: Mutation, name: str, order: Order) -> Reply:
        """Ask for a new instance, again with another choice where the chosen target is removed meanwhile."""
        while True:
            submit = await self._create(mutation.principal, name, order)
            with suppress(TargetRemoved):
                return await self._execute(mutation, submit, name, name)

    async def _create(self, principal: Principal, name: str, order: Order) -> Submit:
        check_desired_state(order.desired_state)
        async with visiting(self.changes.pool, own(principal)) as connection:
            choice = await choose(connection, principal.organization, order)
        entropy, release = self.changes.entropy, choice.release
        values = complete(release, choice.plan, order.parameters or {}, entropy)
        new = self._new(principal, name, order, choice, values)
        secrets = seal(release, values, new.id, self.changes.keyring, entropy)
        return replace(self._submit(principal, new.id, "create"), spec=new.requested, new=new, secrets=secrets)

    def _new(
        self, principal: Principal, name: str, order: Order, choice: Choice, values: Mapping[str, Value]
    ) -> Instance:
        return Instance(
            id=InstanceId(self._new_id("ins")),
            organization_id=principal.organization,
            name=name,
            target_id=choice.target["id"],
            pool_id=choice.target["pool_id"],
            placement_id=PlacementId(self._new_id("plc")),
            requested=choice.spec(values),
            labels=dict(order.labels or {}),
        )

    async def _act(self, principal: Principal, verb: str, name_or_id: str, expected: int | None) -> tuple[Submit, str]:
        if verb not in (*VERBS, "delete"):
            raise Problem(
                "operation-not-available", f"This version can't {verb} instances. It can: {', '.join(VERBS)}."
            )
        instance = (await self.instance(principal, name_or_id)).instance
        parameters: dict[str, Any] = {}
        if verb == "delete":
            async with visiting(self.changes.pool, own(principal)) as connection:
                parameters = await _retention(connection, instance)
        submit = self._submit(principal, instance.id, verb)
        spec = _towards(verb, instance)
        return replace(submit, spec=spec, parameters=parameters, expected_generation=expected), instance.name

    def _submit(self, principal: Principal, instance_id: InstanceId, operation: str) -> Submit:
        job_id = JobId(self._new_id("job"))
        return Submit(
            id=job_id,
            instance_id=instance_id,
            organization_id=principal.organization,
            actor=principal.actor,
            job_id=job_id,
            operation=operation,
            operation_version=newest_version(self.engine.catalog, operation),
        )

    def _new_id(self, prefix: str) -> str:
        return new_id(prefix, self.clock.now(), self.changes.entropy)

    # ---- a PUT on what is there

    async def _present(
        self, principal: Principal, name: str, order: Order, absent: bool, expected: int | None
    ) -> InstanceView | None:
        """The instance, if there is one and it is as the order says; None if there is none."""
        async with visiting(self.changes.pool, own(principal)) as connection:
            row = await connection.fetchrow(_FIND, principal.organization, [name])
            if row is None:
                if expected is not None:
                    raise Problem("precondition-failed", f"There is no instance {name!r}, and If-Match names one.")
                return None
            view = self._view(principal, row)
            _check_present(view, absent, expected)
            release = Release(await connection.fetchval(_RELEASE, spec_in_force(view.instance).release_id))
        changed = _differences(view, order) or await self._changed_parameters(view, release, order)
        if changed:
            what = f"This version can't change {changed} of an instance. {name} was left as it is."
            raise Problem("operation-not-available", what)
        return view

    async def _changed_parameters(self, view: InstanceView, release: Release, order: Order) -> str:
        if order.parameters is None:
            return ""
        spec = spec_in_force(view.instance)
        before = {**spec.parameters, **await self._opened(view.instance)}
        wanted = validate_parameters(release, spec.plan, order.parameters, before)
        changed = sorted(name for name, value in wanted.items() if before.get(name) != value)
        return f"the parameters {', '.join(changed)}" if changed else ""

    async def _opened(self, instance: Instance) -> dict[str, Value]:
        """Its secrets, to compare with what is asked for."""
        async with visiting(self.changes.engine, [instance.organization_id]) as connection:
            found = await connection.fetch(_SECRETS, instance.id)
        return {
            row["name"]: self.changes.keyring.open(
                Sealed(row["key_id"], row["ciphertext"]), Context("secrets", instance.id, row["name"], row["version"])
            ).decode()
            for row in found
        }


async def _retention(connection: Connection, instance: Instance) -> dict[str, Any]:
    spec = spec_in_force(instance)
    stored = await connection.fetchval(_RETENTION, spec.release_id)
    return {"retention_seconds": Retention.from_json(stored or {}).deleted}


def _towards(verb: str, instance: Instance) -> Spec | None:
    """What a start or stop wants the instance to be; the others leave that as it is."""
    wanted = {"start": Desired.RUNNING, "stop": Desired.STOPPED}.get(verb)
    return replace(spec_in_force(instance), desired_state=wanted) if wanted is not None else None


def _check_present(view: InstanceView, absent: bool, expected: int | None) -> None:
    instance = view.instance
    if absent:
        raise Problem("precondition-failed", f"There is already an instance named {instance.name}.")
    if expected is not None and expected != instance.generation:
        detail = f"{instance.name} is at generation {instance.generation}, not {expected}. Read it again, then repeat."
        raise Problem("precondition-failed", detail)
    helps = {Lifecycle.DELETED: "undelete", Lifecycle.FAILED: "delete"}
    if (verb := helps.get(instance.lifecycle)) is not None:
        detail = f"{instance.name} is {instance.lifecycle}. First: spectrum instance {verb} {instance.name}"
        raise Problem("not-allowed-now", detail, extra={"lifecycle": instance.lifecycle.value})


def _differences(view: InstanceView, order: Order) -> str:
    """What the order would change, but for the parameters."""
    spec = spec_in_force(view.instance)
    pairs = {
        "the product": (order.product, spec.product),
        "the release": (order.release, spec.version),
        "the plan": (order.plan, spec.plan),
        "the target": (order.target, view.target),
        "the labels": (order.labels, dict(view.instance.labels)),
        "the desired state": (order.desired_state, spec.desired_state.value),
    }
    return ", ".join(what for what, (wanted, present) in pairs.items() if wanted not in (None, present))

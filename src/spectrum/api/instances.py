"""Customers' environments: made, looked at, and what may be asked of them. Every change is answered by its job."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from spectrum.api.deps import Caller, Change, Condition, DryRun, Has, Paging, Wait, bad_parameter, listing, shown
from spectrum.api.models import Health, Hold, Instance, InstanceSpec, Job, Lifecycle, Name, NewInstance, Page, Plan
from spectrum.api.routing import Route, operation, reply
from spectrum.control.instances import VERBS, Filters
from spectrum.control.specs import Order
from spectrum.core.access import Action

router = APIRouter(prefix="/v1/instances", tags=["instances"], route_class=Route)

REFUSALS = ("not-found", "not-allowed-now", "instance-busy", "operation-not-available", "precondition-failed")
DRY: dict[int | str, dict[str, Any]] = {
    200: {"model": Plan, "description": "With `dry_run`: the plan as it would be now."}
}
DRY_OR_SAME: dict[int | str, dict[str, Any]] = {
    200: {"model": Instance | Plan, "description": "It is so already; or, with `dry_run`, the plan."}
}

Verb = Annotated[str, Path(json_schema_extra={"enum": list(VERBS)}, description="What is to be done.")]
Text = Annotated[str | None, Query(max_length=200)]
Labels = Annotated[
    list[str] | None, Query(alias="label", max_length=16, description="Only with this label: key=value.")
]


@router.get("", response_model=Page[Instance])
@operation(Action.INSTANCES_READ)
async def list_instances(
    caller: Caller,
    page: Paging,
    services: Has,
    product: Text = None,
    release: Text = None,
    plan: Text = None,
    target: Text = None,
    lifecycle: Lifecycle | None = None,
    hold: Hold | None = None,
    health: Health | None = None,
    label: Labels = None,
    name_prefix: Annotated[str, Query(max_length=63, description="Only names that begin so.")] = "",
) -> Response:
    """The organization's instances, oldest first; purged ones only with `lifecycle=purged`."""
    filters = Filters(product, release, plan, target, lifecycle, hold, health, _labels(label), name_prefix)
    return listing(await services.instances.instances(caller, page, filters))


@router.get("/{instance}", response_model=Instance)
@operation(Action.INSTANCES_READ)
async def show_instance(instance: str, caller: Caller, services: Has) -> Response:
    """One instance, by name or id; a purged one by its id alone. ETag is its generation."""
    found = await services.instances.instance(caller, instance)
    return shown(found, etag=found.generation)


@router.post("", status_code=202, response_model=Job, responses=DRY)
@operation(Action.INSTANCES_WRITE, "not-allowed-now", "operation-not-available")
async def create_instance(
    body: NewInstance, change: Change, services: Has, wait: Wait, dry_run: DryRun = False
) -> Response:
    """Make an instance."""
    if dry_run:
        return shown(await services.instances.plan_create(change.principal, body.name, _order(body)))
    asked = await services.instances.create(change, body.name, _order(body))
    return reply(await services.jobs.awaited(change.principal, asked, wait))


@router.put("/{instance}", status_code=202, response_model=Job, responses=DRY_OR_SAME)
@operation(Action.INSTANCES_WRITE, *REFUSALS)
async def put_instance(
    instance: Name,
    body: InstanceSpec,
    change: Change,
    condition: Condition,
    services: Has,
    wait: Wait,
    dry_run: DryRun = False,
) -> Response:
    """Make an instance of this name, unless there is one that is so already. This version can't change one."""
    order, absent, expected = _order(body), condition.absent, condition.generation
    if dry_run:
        return shown(await services.instances.plan_put(change.principal, instance, order, absent, expected))
    asked = await services.instances.put(change, instance, order, absent, expected)
    return reply(await services.jobs.awaited(change.principal, asked, wait))


@router.delete("/{instance}", status_code=202, response_model=Job, responses=DRY)
@operation(Action.INSTANCES_WRITE, *REFUSALS)
async def delete_instance(
    instance: str, change: Change, condition: Condition, services: Has, wait: Wait, dry_run: DryRun = False
) -> Response:
    """Stop an instance and keep its data until the retention of its release is over."""
    return await _act("delete", instance, change, condition, services, wait, dry_run)


@router.post("/{instance}:{verb}", status_code=202, response_model=Job, responses=DRY)
@operation(Action.INSTANCES_WRITE, *REFUSALS)
async def act_on_instance(
    instance: str, verb: Verb, change: Change, condition: Condition, services: Has, wait: Wait, dry_run: DryRun = False
) -> Response:
    """Start, stop, restart, undelete, purge or resolve an instance."""
    return await _act(verb, instance, change, condition, services, wait, dry_run)


async def _act(
    verb: str, name: str, change: Change, condition: Condition, services: Has, wait: Wait, dry_run: bool
) -> Response:
    if dry_run:
        return shown(await services.instances.plan_act(change.principal, verb, name, condition.generation))
    asked = await services.instances.act(change, verb, name, condition.generation)
    return reply(await services.jobs.awaited(change.principal, asked, wait))


def _order(body: InstanceSpec) -> Order:
    """What is said, and only that: a PUT leaves alone what it does not name."""
    said = body.model_fields_set
    return Order(
        product=body.product,
        release=body.release,
        plan=body.plan,
        target=body.target,
        labels=body.labels if "labels" in said else None,
        parameters=body.parameters if "parameters" in said else None,
        desired_state=body.desired_state if "desired_state" in said else None,
    )


def _labels(texts: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts or ()]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise bad_parameter("label", "a label is asked for as key=value")
    return {key: value for key, _, value in pairs}

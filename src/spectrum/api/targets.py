"""Targets: where instances run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from spectrum.api.deps import Caller, Change, Has, Paging, listing, shown
from spectrum.api.models import NewTarget, Page, Target
from spectrum.api.routing import Route, operation, reply
from spectrum.core.access import Action

router = APIRouter(prefix="/v1/targets", tags=["targets"], route_class=Route)


@router.get("", response_model=Page[Target])
@operation(Action.TARGETS_READ)
async def list_targets(caller: Caller, page: Paging, services: Has) -> Response:
    """The organization's targets and those that the platform shares."""
    return listing(await services.targets.targets(caller, page))


@router.get("/{target}", response_model=Target)
@operation(Action.TARGETS_READ)
async def show_target(target: str, caller: Caller, services: Has) -> Response:
    """One target, by name or id."""
    return shown(await services.targets.target(caller, target))


@router.post("", status_code=201, response_model=Target)
@operation(Action.TARGETS_WRITE, "not-allowed-now")
async def add_target(body: NewTarget, change: Change, services: Has) -> Response:
    """Add a target. Its pool is made if there is none of the name."""
    return reply(await services.targets.add_target(change, body.name, body.url, body.pool))


@router.delete("/{target}", status_code=204, response_class=Response)
@operation(Action.TARGETS_WRITE, "not-allowed-now", "operation-not-available")
async def remove_target(
    target: str,
    change: Change,
    services: Has,
    gone: Annotated[bool, Query(description="It is lost, with everything that was on it.")] = False,
) -> Response:
    """Remove a target on which no instance is left."""
    return reply(await services.targets.remove_target(change, target, gone))

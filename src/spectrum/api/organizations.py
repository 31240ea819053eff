"""Organizations: made by the platform, seen by those who belong to them."""

from __future__ import annotations

from fastapi import APIRouter, Response

from spectrum.api.deps import Caller, Change, Has, Paging, listing, shown
from spectrum.api.models import NewOrganization, Organization, Page
from spectrum.api.routing import Route, operation, reply
from spectrum.core.access import Action

router = APIRouter(prefix="/v1/organizations", tags=["organizations"], route_class=Route)


@router.get("", response_model=Page[Organization])
@operation(Action.ORGANIZATIONS_READ)
async def list_organizations(caller: Caller, page: Paging, services: Has) -> Response:
    """Your own organization; to the platform, all of them."""
    return listing(await services.identity.organizations(caller, page))


@router.get("/{organization}", response_model=Organization)
@operation(Action.ORGANIZATIONS_READ)
async def show_organization(organization: str, caller: Caller, services: Has) -> Response:
    """One organization, by name or id."""
    return shown(await services.identity.organization(caller, organization))


@router.post("", status_code=201, response_model=Organization)
@operation(Action.ORGANIZATIONS_CREATE, "not-allowed-now")
async def create_organization(body: NewOrganization, change: Change, services: Has) -> Response:
    """Make an organization. It takes a token of the platform."""
    return reply(await services.identity.create_organization(change, body.name))

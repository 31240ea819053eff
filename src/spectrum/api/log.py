"""What happened: the events of an organization by position, and its audit records."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from spectrum.api.deps import Caller, Has, Paging, listing
from spectrum.api.models import AuditRecord, Event, Page
from spectrum.api.routing import Route, operation
from spectrum.control import commands
from spectrum.core.access import Action

router = APIRouter(prefix="/v1", tags=["log"], route_class=Route)

Subject = Annotated[str | None, Query(max_length=100, description="Only of the thing with this id.")]


@router.get("/events", response_model=Page[Event])
@operation(Action.EVENTS_READ)
async def list_events(
    caller: Caller,
    page: Paging,
    services: Has,
    after: Annotated[int, Query(ge=0, description="Only events with a higher position.")] = 0,
    subject: Subject = None,
) -> Response:
    """Events in the order of the log. To go on later, ask with the highest position seen."""
    start = commands.Page(page.limit, page.after or str(after))
    return listing(await services.log.events(caller, start, subject))


@router.get("/audit", response_model=Page[AuditRecord])
@operation(Action.AUDIT_READ)
async def list_audit(caller: Caller, page: Paging, services: Has, subject: Subject = None) -> Response:
    """Audit records, oldest first."""
    return listing(await services.log.audit(caller, page, subject))

"""What happened: the events of an organization by position, and its audit records."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from spectrum.api.deps import Caller, Has, Paging, listing, shown
from spectrum.api.models import AuditHead, AuditRecord, Event, Page
from spectrum.api.routing import Route, operation
from spectrum.control.audit import AuditFilters
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
    return listing(await services.log.events(caller, page, after, subject))


@router.get("/audit", response_model=Page[AuditRecord])
@operation(Action.AUDIT_READ)
async def list_audit(
    caller: Caller,
    page: Paging,
    services: Has,
    subject: Subject = None,
    actor: Annotated[str | None, Query(max_length=100, description="Only what this one did.")] = None,
    action: Annotated[
        str | None, Query(max_length=100, description="Only what was done so, such as token.create.")
    ] = None,
    after: Annotated[
        int | None, Query(ge=0, description="Only sealed records with a higher number, in the order of their chain.")
    ] = None,
) -> Response:
    """Audit records, oldest first."""
    return listing(await services.audit.records(caller, page, AuditFilters(subject, actor, action, after)))


@router.get("/audit/head", response_model=AuditHead)
@operation(Action.AUDIT_READ, "not-found")
async def show_audit_head(caller: Caller, services: Has) -> Response:
    """Where the chain of sealed audit records ends, signed by the cell."""
    return shown(await services.audit.head(caller))

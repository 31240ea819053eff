"""The worker protocol's edge: one route; what a call means is the desk's. Answers are signed by `api.signed`."""

from __future__ import annotations

import structlog
from fastapi import APIRouter, Request, Response

from spectrum.api.services import Services
from spectrum.api.signed import call_of
from spectrum.core.errors import Problem
from spectrum.core.jobs.store import Unavailable
from spectrum.transports import wire

router = APIRouter(tags=["worker"])
_log = structlog.get_logger(__name__)


@router.post(wire.PREFIX + "/{what}", include_in_schema=False)
@router.post(wire.PREFIX + "/{what}/{id}", include_in_schema=False)
async def call(what: str, request: Request) -> Response:
    """One call of the worker protocol (INTERFACES §3)."""
    services: Services = request.app.state.services
    try:
        answer = await services.desk.serve(what, await call_of(request), request.query_params.get("lease"))
    except Unavailable as error:
        raise Problem("unavailable", f"{error}.") from error
    except Problem as problem:
        if problem.status in (401, 403):
            _log.warning("a worker's call was refused", call=what, why=problem.detail)
        raise
    return Response(wire.encode(answer), media_type="application/json")

"""The worker protocol's edge: a signed call comes in, a signed answer goes out, also where the answer is no."""

from __future__ import annotations

import structlog
from fastapi import APIRouter, Request, Response

from spectrum.api import problems
from spectrum.api.services import Services
from spectrum.core import signing
from spectrum.core.errors import Problem
from spectrum.core.jobs.store import Unavailable
from spectrum.core.signing import Call
from spectrum.transports import wire

router = APIRouter(tags=["worker"])
_log = structlog.get_logger(__name__)


@router.post(wire.PREFIX + "/{what}", include_in_schema=False)
async def call(what: str, request: Request) -> Response:
    """One call of the worker protocol (INTERFACES §3)."""
    services: Services = request.app.state.services
    body = await request.body()
    target = signing.target_uri(request.app.state.public_url, request.url.path, request.url.query)
    asked = Call(request.method, target, signing.fold(request.headers.items()), body)
    try:
        answer = await services.desk.serve(what, asked, request.query_params.get("lease"))
        return _signed(services, asked, 200, wire.encode(answer), "application/json")
    except Unavailable as error:
        return _refused(services, request, asked, Problem("unavailable", f"{error}."))
    except Problem as problem:
        return _refused(services, request, asked, problem)


def _refused(services: Services, request: Request, asked: Call, problem: Problem) -> Response:
    if problem.status in (401, 403):
        _log.warning("a worker's call was refused", path=request.url.path, why=problem.detail)
    shown = problems.response_to(request, problem)
    response = _signed(services, asked, problem.status, bytes(shown.body), problems.MEDIA_TYPE)
    response.headers.update(problems.headers_of(problem))
    return response


def _signed(services: Services, asked: Call, status: int, body: bytes, media_type: str) -> Response:
    """Signed for this very call. A call without a signature that could be covered gets a plain answer, which nobody acts on."""
    response = Response(body, status, media_type=media_type)
    if (answered := signing.call_signature(asked.headers)) is not None:
        signer = services.desk.keys.signer
        response.headers.update(signing.sign_answer(status, body, answered, signer, services.clock.now()))
    return response

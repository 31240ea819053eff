"""What the surroundings ask: is it alive, is it ready, what does it measure, what does a problem mean."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from spectrum.api.deps import Has
from spectrum.api.problems import CATALOGUE
from spectrum.core.errors import PROBLEM, STATUS, Problem

router = APIRouter(tags=["system"])


@router.get("/livez", include_in_schema=False)
async def livez() -> Response:
    """The process answers. Nothing else is looked at: a database that is away is no reason to restart it."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", include_in_schema=False)
async def readyz(services: Has) -> Response:
    """Whether requests can be served, and what is missing."""
    checks = {name: trouble or "ok" for name, trouble in (await services.readiness.checks()).items()}
    ready = all(result == "ok" for result in checks.values())
    return JSONResponse({"status": "ok" if ready else "not ready", "checks": checks}, 200 if ready else 503)


@router.get("/metrics", include_in_schema=False)
async def metrics(services: Has) -> Response:
    """Prometheus text format."""
    await services.measures.look()
    return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/problems/{slug}", include_in_schema=False)
async def problem(slug: str) -> Response:
    """What a problem means and what to do about it: where the member `docs` of every problem points to."""
    if slug not in CATALOGUE:
        raise Problem("not-found", f"There is no problem {slug!r}.")
    title, remedy = CATALOGUE[slug]
    return JSONResponse({"type": f"{PROBLEM}{slug}", "title": title, "status": STATUS[slug], "remedy": remedy})

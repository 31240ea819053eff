"""The application: all resources, around them one edge, and the OpenAPI 3.1 document of it all."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRouter

import spectrum
from spectrum.api import (
    instances,
    jobs,
    log,
    logs,
    openapi,
    organizations,
    problems,
    products,
    stream,
    system,
    targets,
    tokens,
    worker,
    workers,
)
from spectrum.api.middleware import Edge
from spectrum.api.services import Services
from spectrum.api.signed import SignedAnswers
from spectrum.core.signing import Signer
from spectrum.settings import Tuning

ROUTERS: tuple[APIRouter, ...] = (
    organizations.router,
    tokens.router,
    products.router,
    instances.router,
    jobs.router,
    targets.router,
    workers.router,
    log.router,
    stream.router,
    logs.router,
    worker.router,
    system.router,
)


def create_app(
    services: Services,
    public_url: str = "http://127.0.0.1:8420",
    body_limit: int = Tuning().body_limit,
    routers: tuple[APIRouter, ...] = ROUTERS,
    signer: Signer | None = None,
) -> FastAPI:
    """The API over these services. `public_url` is where callers reach it, `body_limit` in bytes.

    With the cell's `signer`, answers to workers are signed.
    """
    app = FastAPI(
        title="SPECTRUM",
        version=spectrum.__version__,
        description="Gives every customer an environment of its own, and operates thousands of them.",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.openapi_version = "3.1.0"
    app.state.services = services
    app.state.public_url = public_url.rstrip("/")
    app.state.routes = [route for router in routers for route in router.routes]
    for router in routers:
        app.include_router(router)
    problems.install(app)
    app.add_middleware(Edge, services=services, body_limit=body_limit)
    if signer is not None:
        app.add_middleware(SignedAnswers, signer=signer, clock=services.clock)
    openapi.complete(app)
    return app

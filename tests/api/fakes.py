"""Control-plane protocols made by hand, for what the edge does before and after them: no database, every answer at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from spectrum.api.app import ROUTERS, create_app
from spectrum.api.deps import Caller, Change, Condition, DryRun, Has, Paging, Wait
from spectrum.api.models import Name, Wish
from spectrum.api.routing import Route, operation, reply
from spectrum.api.services import Services
from spectrum.api.signed import call_of
from spectrum.control.commands import Mutation, Reply
from spectrum.core.access import Action, Principal
from spectrum.core.errors import Problem
from spectrum.core.ids import OrganizationId
from spectrum.core.signing import Call, Signer, proven_call
from spectrum.ports import SystemClock, SystemEntropy
from spectrum.telemetry import Metrics
from tests.api import support

ORGANIZATION = OrganizationId("org_00000000-0000-7000-8000-000000000001")
BODY_LIMIT = 1_000
CELL = Signer.of(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


class FakeIdentity:
    """Knows two tokens: one that may do everything and one that may read."""

    async def authenticate(self, token: str) -> Principal:
        scopes = {"all": "admin", "reader": "read"}
        if token not in scopes:
            raise Problem("unauthenticated", "Nobody knows this token. It may belong to another installation.")
        return Principal(f"token:{token}", ORGANIZATION, frozenset({scopes[token]}))


@dataclass
class FakeIdempotency:
    """Remembers in a dict what the test put there."""

    stored: dict[str, Reply] = field(default_factory=dict)

    async def find(self, mutation: Mutation) -> Reply | None:
        return self.stored.get(mutation.key)


class FakeDesk:
    """Knows no call of the worker protocol."""

    async def serve(self, what: str, call: Call, lease_id: str | None) -> None:
        raise Problem("not-found", f"There is no call {what!r} in the worker protocol.")


class Thing(Wish):
    name: Name
    size: int = 1


class Ready:
    """A readiness that tests set."""

    def __init__(self) -> None:
        self.trouble: dict[str, str] = {"database": ""}

    async def checks(self) -> Mapping[str, str]:
        return self.trouble


router = APIRouter(prefix="/v1/things", route_class=Route)


@router.post("", status_code=201)
@operation(Action.TARGETS_WRITE)
async def make_thing(body: Thing, change: Change, dry_run: DryRun = False) -> Response:
    return reply(Reply(201, {"name": body.name, "size": body.size, "key": change.key, "dry_run": dry_run}))


@router.put("/{name}")
@operation(Action.TARGETS_WRITE, "precondition-failed")
async def put_thing(name: str, body: Thing, change: Change, condition: Condition) -> Response:
    return reply(Reply(200, {"name": name, "generation": condition.generation, "absent": condition.absent}))


@router.get("")
@operation(Action.TARGETS_READ)
async def list_things(page: Paging, wait: Wait, caller: Caller) -> Response:
    return JSONResponse({"limit": page.limit, "after": page.after, "wait": wait, "actor": caller.actor})


@router.get("/{name}")
@operation(Action.TARGETS_READ)
async def fail(name: str, services: Has) -> Response:
    match name:
        case "broken":
            raise RuntimeError("the password is hidden")
        case "away":
            raise Problem("unavailable", "The database can't be reached. Try again.", extra={"retry_after": 2.5})
        case _:
            raise Problem("not-found", f"There is no thing {name!r}.")


worker_router = APIRouter(prefix="/worker/v1")


@worker_router.post("/echo")
async def echo(request: Request) -> Response:
    call = proven_call(await call_of(request), SystemClock().now())
    if call.number == 13:
        raise RuntimeError("thirteen")
    return JSONResponse({"key_id": call.key_id, "number": call.number})


class Unlimited:
    """Everybody may ask for everything."""

    async def admit(self, principal: Principal) -> None:
        pass


class Unmeasured:
    """There is nothing to look at."""

    async def look(self) -> None:
        pass


@asynccontextmanager
async def served() -> AsyncIterator[tuple[httpx2.AsyncClient, FakeIdempotency, Ready]]:
    idempotency, ready = FakeIdempotency(), Ready()
    nothing = cast(Any, None)
    services = Services(
        identity=cast(Any, FakeIdentity()),
        rates=Unlimited(),
        idempotency=idempotency,
        products=nothing,
        targets=nothing,
        workers=nothing,
        instances=nothing,
        jobs=nothing,
        log=nothing,
        tail=nothing,
        audit=nothing,
        desk=cast(Any, FakeDesk()),
        streams=nothing,
        readiness=ready,
        metrics=Metrics(),
        measures=Unmeasured(),
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )
    app = create_app(services, support.PUBLIC_URL, BODY_LIMIT, (worker_router, *ROUTERS, router), CELL)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=support.PUBLIC_URL) as http:
        yield http, idempotency, ready

"""What happens around every handler under /v1, in this order: who, how often, whether, answered before, well-formed.

A handler is declared with the action that it performs and the problems that it may answer with:

    router = APIRouter(prefix="/v1/things", tags=["things"], route_class=Route)

    @router.post("", status_code=201, response_model=Thing)
    @operation(Action.THINGS_WRITE, "not-allowed-now")
    async def create(body: NewThing, change: Change, services: Has) -> Response:
        return reply(await services.things.create(change, body.name))
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette._utils import get_route_path
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import Scope

from spectrum.api import problems, strict_json
from spectrum.api.services import Services
from spectrum.control.commands import Mutation, Reply
from spectrum.core.access import Action, Principal, require
from spectrum.core.errors import Problem, Where

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Response]])

_ALWAYS = ("malformed", "unauthenticated", "forbidden", "invalid-parameter", "rate-limited", "internal", "unavailable")
_CHANGING = ("idempotency-key-missing", "idempotency-key-reused", "too-large", "unsupported-media-type")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Operation:
    """What a handler does, and how it may say no beyond what every handler may."""

    action: Action
    problems: tuple[str, ...]


def operation(action: Action, *slugs: str) -> Callable[[Handler], Handler]:
    """Declare a handler's action and problems. A route of class `Route` without it is refused at start."""

    def declare(handler: Handler) -> Handler:
        handler.__dict__["operation"] = Operation(action, slugs)
        return handler

    return declare


class StrictRequest(Request):
    """A request whose JSON is read by our rules, once, and before the framework asks for it.

    Problems that come up inside of the framework's own reading would lose what they say.
    """

    _value: Any = None

    async def read_json(self) -> None:
        """Raises Problem `unsupported-media-type` or `malformed`."""
        body = await self.body()
        if not body:
            return
        essence = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if essence != "application/json":
            raise Problem(
                "unsupported-media-type",
                f"The body is {essence or 'of no type'}. Send JSON, with the header Content-Type: application/json.",
            )
        self._value = strict_json.parse(body)

    async def json(self) -> Any:
        return self._value


class Route(APIRoute):
    """A route whose handler is only reached by those who may, once per key, with a well-formed body."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        declared = endpoint.__dict__.get("operation")
        if not isinstance(declared, Operation):
            raise TypeError(f"{endpoint.__qualname__} ({path}) does not declare its @operation")
        self.operation = declared
        changing = _changes(set(options.get("methods") or ()))
        slugs = (*_ALWAYS, *declared.problems, *(_CHANGING if changing else ()))
        if "{" in path:
            slugs = (*slugs, "not-found")
        options["responses"] = {**problems.schemas(*dict.fromkeys(slugs)), **(options.get("responses") or {})}
        options["openapi_extra"] = {
            "security": [{"token": []}],
            "x-spectrum-action": declared.action.value,
            **({"parameters": [_KEY_PARAMETER]} if changing else {}),
        }
        super().__init__(path, endpoint, **options)
        self.path_regex = re.compile(self.path_regex.pattern.replace("[^/]+", "[^/:]+"))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As the framework sees it, but that no name holds a colon: DELETE /v1/instances/a:stop is no DELETE of `a:stop`."""
        if self.path_regex.match(get_route_path(scope)) is None:
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = _query_names(self.dependant)

        async def run(request: Request) -> Response:
            services: Services = request.app.state.services
            principal = await services.identity.authenticate(bearer(request))
            await services.rates.admit(principal)
            require(principal, self.operation.action)
            strict = StrictRequest(request.scope, request.receive)
            strict.state.principal = principal
            if _changes({request.method}):
                strict.state.mutation = await _mutation(strict, principal)
                if stored := await services.idempotency.find(strict.state.mutation):
                    return reply(stored)
                await strict.read_json()
            _check_address(strict, known)
            return await handle(strict)

        return run


def reply(given: Reply) -> Response:
    """The HTTP form of an answer to a mutation."""
    headers = {"Location": given.location} if given.location else {}
    if given.repeated:
        headers["Idempotency-Replayed"] = "true"
    if given.body is None:
        return Response(status_code=given.status, headers=headers)
    return JSONResponse(given.body, given.status, headers)


_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    "description": "Chosen by the caller. The same key with the same body gets the same answer, and is done once.",
}


def _changes(methods: set[str]) -> bool:
    return bool(methods - {"GET", "HEAD", "OPTIONS"})


def bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem("unauthenticated", "This needs a token: send the header `Authorization: Bearer spk_…`.")
    return token.strip()


async def _mutation(request: Request, principal: Principal) -> Mutation:
    return Mutation(
        principal=principal,
        method=request.method,
        path=request.url.path,
        key=_idempotency_key(request),
        request_digest=await _digest(request),
        request_id=request.state.request_id,
        traceparent=request.state.traceparent,
    )


async def _digest(request: Request) -> str:
    """What was asked for: the body, and the query but for how long the caller waits."""
    asked = sorted((name, value) for name, value in request.query_params.multi_items() if name != "wait")
    body = strict_json.digest(await request.body())
    return f"{body}?{urlencode(asked)}" if asked else body


def _idempotency_key(request: Request) -> str:
    """The key as it was chosen: the header may be a quoted string, as the IETF draft has it, or bare."""
    given = request.headers.get("idempotency-key", "").strip()
    key = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not key:
        raise Problem(
            "idempotency-key-missing",
            "A request that changes something carries the header Idempotency-Key, so that it can be sent again safely.",
        )
    if _KEY.fullmatch(key) is None:
        raise Problem("malformed", "An Idempotency-Key has 1 to 255 printable ASCII characters.")
    return key


def _query_names(dependant: Dependant) -> frozenset[str]:
    own = {field.alias for field in dependant.query_params}
    return frozenset(own.union(*(_query_names(inner) for inner in dependant.dependencies)))


def _check_address(request: Request, known: frozenset[str]) -> None:
    """A misspelt filter must not silently select everything, and no text that PostgreSQL can't hold gets further."""
    values = (*request.path_params.values(), *(value for _, value in request.query_params.multi_items()))
    if any(_CONTROL.search(text) for text in values):
        raise Problem("malformed", "The address holds control characters.")
    for name in request.query_params:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.6)
            listed = f"Known here: {', '.join(sorted(known))}." if known else "None is known here."
            hint = f"Did you mean {near[0]}?" if near else listed
            where = Where("unknown query parameter", f"query:{name}", hint=hint)
            raise Problem("invalid-parameter", f"There is no query parameter {name!r} here. {hint}", (where,))

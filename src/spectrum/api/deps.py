"""What handlers ask for as arguments: who calls, what they change, which page, which precondition, how long to wait."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from spectrum.api.services import Services, View
from spectrum.control.commands import Listing, Mutation, Page
from spectrum.core.access import Principal
from spectrum.core.errors import Problem, Where
from spectrum.settings import Tuning

_DURATION = re.compile(r"([0-9]{1,4})(ms|s|m)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}
_ETAG = re.compile(r'(?:W/)?"([1-9][0-9]{0,15})"')


# All of them are coroutines: the framework runs whatever is none in a thread.


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def _mutation(request: Request) -> Mutation:
    mutation: Mutation = request.state.mutation
    return mutation


async def _page(
    limit: Annotated[int, Query(ge=1, le=200, description="At most so many items.")] = 50,
    cursor: Annotated[
        str,
        Query(
            max_length=500,
            description="`next_cursor` of the page before.",
            json_schema_extra={"pattern": "^[A-Za-z0-9_-]*$"},
        ),
    ] = "",
) -> Page:
    return Page(limit, read_cursor(cursor) if cursor else "")


async def _wait(
    wait: Annotated[
        str,
        Query(
            description="Answer when the job has ended, or after this long, such as 30s.",
            json_schema_extra={"pattern": rf"^({_DURATION.pattern})?$"},
        ),
    ] = "",
) -> float:
    if not wait:
        return 0.0
    match = _DURATION.fullmatch(wait)
    if match is None:
        raise bad_parameter("wait", f"{wait!r} is no duration; write 30s or 1m")
    return min(int(match[1]) * _SECONDS[match[2]], Tuning().longest_wait)


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must hold for a change: a generation to be replaced, or that there is nothing yet. None asks for nothing."""

    generation: int | None = None
    absent: bool = False


async def _precondition(
    if_match: Annotated[
        str | None,
        Header(
            description='The ETag that is to be replaced, such as "3".',
            json_schema_extra={"pattern": rf"^(\*|{_ETAG.pattern})$", "minLength": 1},
        ),
    ] = None,
    if_none_match: Annotated[
        str | None,
        Header(description="`*`: only if there is none yet.", json_schema_extra={"pattern": r"^\*?$"}),
    ] = None,
) -> Precondition:
    if if_none_match and if_none_match.strip() != "*":
        raise Problem("malformed", "If-None-Match is understood here with * alone.")
    if if_match is None or if_match.strip() == "*":
        return Precondition(None, bool(if_none_match))
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        raise Problem("malformed", f'If-Match must be one ETag of this resource, such as "3", not {if_match}.')
    return Precondition(int(match[1]), bool(if_none_match))


def make_cursor(key: str) -> str | None:
    """The `next_cursor` of a list that goes on after the row with this key; None where it ends."""
    return base64.urlsafe_b64encode(json.dumps([key]).encode()).decode().rstrip("=") if key else None


def read_cursor(cursor: str) -> str:
    """The key in a cursor. Raises Problem `invalid-parameter`: only what a list has given comes back."""
    try:
        (key,) = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, TypeError):
        key = None
    if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable():
        raise bad_parameter("cursor", "this is not a cursor that a list has given; start again without one")
    return key


def bad_parameter(name: str, message: str) -> Problem:
    """What is answered to a query parameter that means nothing."""
    return Problem("invalid-parameter", f"{name}: {message}.", (Where(message, f"query:{name}"),))


Has = Annotated[Services, Depends(_services)]
Caller = Annotated[Principal, Depends(_principal)]
Change = Annotated[Mutation, Depends(_mutation)]
Paging = Annotated[Page, Depends(_page)]
Wait = Annotated[float, Depends(_wait)]
DryRun = Annotated[bool, Query(alias="dry_run", description="Answer what would happen, and do nothing.")]
Condition = Annotated[Precondition, Depends(_precondition)]


def shown(view: View, etag: int | None = None) -> Response:
    """The HTTP form of one resource; `etag` is its generation."""
    return JSONResponse(view.as_json(), headers={"ETag": f'"{etag}"'} if etag is not None else None)


def listing(found: Listing[Any]) -> Response:
    """The HTTP form of a page of a list."""
    items = [view.as_json() for view in found.items]
    return JSONResponse({"items": items, "next_cursor": make_cursor(found.next_after)})

"""An instance's log lines, as they are read on its target: JSON lines, or server-sent events for who asks for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, cast

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from spectrum.api.deps import Caller, Has
from spectrum.api.routing import Route, operation
from spectrum.control.streams import LogsWish
from spectrum.core.access import Action

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
MOST_LINES = 10_000

router = APIRouter(prefix="/v1/instances", tags=["instances"], route_class=Route)

_LINE = {"type": "string", "description": 'One object a line: {"at", "service", "stream", "text"}.'}
_CONTENT = {NDJSON: {"schema": _LINE}, SSE: {"schema": _LINE}}


@router.get("/{instance}/logs", response_class=StreamingResponse, responses={200: {"content": _CONTENT}})
@operation(Action.INSTANCES_LOGS)
async def read_logs(
    instance: str,
    caller: Caller,
    services: Has,
    service: Annotated[str | None, Query(max_length=200, description="Only of this service.")] = None,
    since: Annotated[datetime | None, Query(description="Only lines that are newer (RFC 3339).")] = None,
    tail: Annotated[int, Query(ge=0, le=MOST_LINES, description="At most so many of the last lines.")] = 1000,
    follow: Annotated[bool, Query(description="Go on with new lines until the caller stops reading.")] = False,
    accept: Annotated[str, Header(description=f"`{SSE}` for server-sent events.")] = NDJSON,
) -> Response:
    """Log lines of an instance, oldest first. A line whose `stream` is `spectrum` says why they break off.

    Blank lines (comments, in server-sent events) show that the stream lives.
    """
    wish = LogsWish(service, since.replace(tzinfo=since.tzinfo or UTC) if since else None, tail, follow)
    lines = await services.streams.logs(caller, instance, wish)
    events = SSE in accept
    return StreamingResponse(_body(lines, _event if events else _json_line), media_type=SSE if events else NDJSON)


async def _body(lines: AsyncIterator[Mapping[str, Any]], form: Any) -> AsyncIterator[str]:
    try:
        async for line in lines:
            yield form(line)
    finally:
        await cast(Any, lines).aclose()


def _json_line(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n" if line else "\n"


def _event(line: Mapping[str, Any]) -> str:
    """Server-sent events (WHATWG HTML, §9.2): one message a line; a comment keeps the connection alive."""
    return f"data: {json.dumps(line)}\n\n" if line else ":\n\n"

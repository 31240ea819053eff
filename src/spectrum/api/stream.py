"""`GET /v1/stream`: events as they happen, as server-sent events (WHATWG HTML, §9.2). Who reconnects goes on where it was."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from spectrum.api.deps import Caller, Has, bad_parameter
from spectrum.api.log import Subject
from spectrum.api.logs import SSE
from spectrum.api.routing import Route, bearer, operation
from spectrum.control.tail import Follower, Wish
from spectrum.core.access import Action, require
from spectrum.core.errors import Problem
from spectrum.ports import Clock

CONNECTION = "spectrum.connection"  # the extension of an ASGI scope in which the server hands its transport over
BUFFER_BYTES = 64 * 1024  # on the way to one client: in the transport, and about twice that in the kernel
CHECK_SECONDS = 60.0  # a token that was revoked meanwhile is good for no longer
LAST = 2**63 - 1

router = APIRouter(prefix="/v1", tags=["log"], route_class=Route)

_log = structlog.get_logger(__name__)
_STREAM = {
    "type": "string",
    "description": "Events in the form of `GET /v1/events`: each is the `data` of a message, whose `id` is its position."
    " A message without data is a heartbeat.",
}


@router.get("/stream", response_class=StreamingResponse, responses={200: {"content": {SSE: {"schema": _STREAM}}}})
@operation(Action.EVENTS_READ, "not-found")
async def stream_events(
    request: Request,
    caller: Caller,
    services: Has,
    after: Annotated[
        int | None, Query(ge=0, le=LAST, description="Only events with a higher position; without it, only new ones.")
    ] = None,
    subject: Subject = None,
    instance: Annotated[str | None, Query(max_length=100, description="Only of this instance, by name or id.")] = None,
    types: Annotated[
        list[str] | None,
        Query(
            alias="type",
            max_length=50,
            description="Only of this type, or of all that go on with a dot behind it (io.spectrum.job). Several are allowed.",
        ),
    ] = None,
    last_event_id: Annotated[
        str, Header(description="The `id` of the last message that arrived: goes before `after`.")
    ] = "",
) -> Response:
    """Events as they happen, in the order of the log, each once. A client that does not read is cut off.

    Whenever the connection ends, ask again with the `id` that was read last: nothing is missed.
    """
    position = _position(last_event_id) if last_event_id else after
    follower = await services.tail.follow(caller, Wish(position, subject, instance, tuple(types or ())))

    async def check() -> None:
        require(await services.identity.authenticate(bearer(request)), Action.EVENTS_READ)

    return EventStream(follower, check, services.clock)


class EventStream(StreamingResponse):
    """Sends what a follower has, at the pace at which the client takes it. One that takes nothing is cut off."""

    def __init__(self, follower: Follower, check: Callable[[], Awaitable[None]], clock: Clock) -> None:
        # A proxy that gathers answers would hold events back.
        super().__init__(follower, media_type=SSE, headers={"X-Accel-Buffering": "no", "Connection": "close"})
        self._follower = follower
        self._check = check
        self._clock = clock
        self._transport: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._transport = scope.get("extensions", {}).get(CONNECTION, {}).get("transport")
        try:
            if self._transport is not None:
                _narrow(self._transport)
            await super().__call__(scope, receive, send)
        finally:
            self._follower.close()

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        check_at = self._clock.monotonic() + CHECK_SECONDS
        async for text in self._follower:
            await self._deliver(send, text)
            del text  # nobody needs it while the next one is waited for, which may be long
            if self._clock.monotonic() >= check_at:
                if not await self._may_go_on():
                    break
                check_at = self._clock.monotonic() + CHECK_SECONDS
        await self._deliver(send, b"", last=True)

    async def _deliver(self, send: Send, text: bytes, last: bool = False) -> None:
        # What is sent waits until there is room for more: only then it is known that the client reads.
        if not await self._follower.deliver(send({"type": "http.response.body", "body": text, "more_body": not last})):
            if self._transport is not None:
                # To close would be to wait until the client has read what it does not read.
                self._transport.abort()
            raise ClientDisconnect

    async def _may_go_on(self) -> bool:
        try:
            await self._check()
        except Problem as problem:
            if problem.slug != "unavailable":
                _log.info("a stream of events ends", why=problem.detail)
                return False
        return True


def _narrow(transport: Any) -> None:
    """Keep little for who does not read: a connection that was never full can't be seen to stand still."""
    transport.set_write_buffer_limits(high=BUFFER_BYTES)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)


def _position(last_event_id: str) -> int:
    """Raises Problem `invalid-parameter`: only what a stream has given comes back."""
    if not (last_event_id.isascii() and last_event_id.isdigit()) or int(last_event_id) > LAST:
        raise bad_parameter(
            "Last-Event-ID", "this is no id of a message of this stream; leave it out, or ask with after="
        )
    return int(last_event_id)

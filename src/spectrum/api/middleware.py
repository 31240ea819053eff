"""The outermost layer of the API: request and trace ids, the limit of bodies, metrics, the last catch of errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from fastapi import Request
from opentelemetry.trace import SpanKind
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spectrum import tracing
from spectrum.api import problems
from spectrum.api.services import Services
from spectrum.core.errors import Problem
from spectrum.ports import new_id
from spectrum.telemetry import Trace, bound, new_trace, parse_traceparent

HUNG_UP = 499  # is answered to nobody: what logs and metrics call a caller that went away before it had said all
_GIVEN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class BodyTooLargeError(Exception):
    """More came than is allowed, whatever the header Content-Length said."""


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, services: Services, body_limit: int) -> None:
        self._app = app
        self._services = services
        self._limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"traceparent", b"").decode("latin-1")
        with tracing.span(scope["method"], given, kind=SpanKind.SERVER, root=_may_begin(scope["path"])) as noted:
            request_id, trace = self._request_id(headers), noted.trace or self._trace(given)
            scope.setdefault("state", {}).update(request_id=request_id, traceparent=str(trace), span=noted)
            with bound(request_id=request_id, trace_id=trace.trace_id):
                await self._serve(scope, receive, send, request_id, trace)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str, trace: Trace) -> None:
        began = self._services.clock.monotonic()
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *_marks(request_id, trace)]}
            await send(message)

        try:
            await self._guarded(scope, receive, send_marked)
        except ClientDisconnect:
            status = status or HUNG_UP
        except Exception as error:
            problem = problems.unexpected(error)
            if status:
                raise  # the answer has begun: cutting it off is the only way left to say that it is not whole
            await problems.response_to(Request(scope), problem)(scope, receive, send_marked)
        finally:
            self._measure(scope, status, self._services.clock.monotonic() - began)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve with a limited body. One that is too large is answered here, since any layer may be reading it."""
        began = False

        async def send_noted(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            if _declared_length(scope) > self._limit:
                raise BodyTooLargeError
            await self._app(scope, self._limited(receive), send_noted)
        except BodyTooLargeError:
            if began:
                raise
            problem = Problem("too-large", f"A request body has at most {self._limit} bytes.")
            await problems.response_to(Request(scope), problem, {"Connection": "close"})(scope, receive, send)

    def _limited(self, receive: Receive) -> Receive:
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise BodyTooLargeError
            return message

        return receive_counted

    def _request_id(self, headers: Mapping[bytes, bytes]) -> str:
        """The caller's where it is harmless, else a new one."""
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        if _GIVEN_ID.fullmatch(given):
            return given
        return new_id("req", self._services.clock.now(), self._services.entropy)

    def _trace(self, given: str) -> Trace:
        """The caller's trace with a span of our own, else a new trace: events and logs have one where nobody collects spans."""
        parent = parse_traceparent(given)
        entropy = self._services.entropy.token(24)
        return parent.child(entropy) if parent else new_trace(entropy)

    def _measure(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "(none)")
        noted: tracing.Noted = scope["state"]["span"]
        noted.name(f"{scope['method']} {route}")
        noted.note({"http.request.method": scope["method"], "http.route": route, "http.response.status_code": status})
        metrics = self._services.metrics
        metrics.requests.labels(scope["method"], route, str(status)).inc()
        metrics.request_duration.labels(scope["method"], route).observe(max(seconds, 0.0))
        if route not in ("/livez", "/readyz", "/metrics"):
            logger = structlog.get_logger(__name__)
            # Workers call many times a second: their calls are counted, and told where they fail.
            tell = logger.debug if route.startswith("/worker/") and status < 400 else logger.info
            tell("request", method=scope["method"], path=scope["path"], status=status, seconds=round(seconds, 6))


def _may_begin(path: str) -> bool:
    """Whether a request that tells of no trace begins one: not those that come all the time by themselves."""
    return path.startswith("/v1/")


def _declared_length(scope: Scope) -> int:
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    return int(declared) if declared.isdigit() else 0


def _marks(request_id: str, trace: Trace) -> list[tuple[bytes, bytes]]:
    return [(b"x-request-id", request_id.encode()), (b"traceparent", str(trace).encode()), *_SAFE_HEADERS]

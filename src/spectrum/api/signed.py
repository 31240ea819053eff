"""The signatures of the worker protocol at the HTTP edge: of a worker's call, and of the cell's answer (INTERFACES §3)."""

from __future__ import annotations

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spectrum.core.signing import Call, CallSignature, Signer, call_signature, fold, sign_answer, target_uri
from spectrum.ports import Clock
from spectrum.transports import wire


async def call_of(request: Request) -> Call:
    """The request as it was signed."""
    path = request.scope.get("raw_path") or request.scope["path"].encode()
    query = request.scope["query_string"].decode("latin-1")
    target = target_uri(request.app.state.public_url, path.decode("latin-1"), query)
    return Call(request.method, target, fold(request.headers.items()), await request.body())


class SignedAnswers:
    """ASGI middleware: every answer under /worker/v1 is signed for its call, refusals and failures too.

    An answer is held back until it is whole, since its digest stands in its header. A call without a usable signature is
    answered unsigned: there is nothing to bind the answer to, and a worker acts on no such answer.
    """

    def __init__(self, app: ASGIApp, signer: Signer, clock: Clock) -> None:
        self._app = app
        self._signer = signer
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = _answered(scope)
        if answered is None:
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body"):
                await send(
                    {**start, "headers": [*start["headers"], *self._fields(start["status"], bytes(body), answered)]}
                )
                await send({"type": "http.response.body", "body": bytes(body)})

        await self._app(scope, receive, send_signed)

    def _fields(self, status: int, body: bytes, answered: CallSignature) -> list[tuple[bytes, bytes]]:
        fields = sign_answer(status, body, answered, self._signer, self._clock.now())
        return [(name.encode(), value.encode()) for name, value in fields.items()]


def _answered(scope: Scope) -> CallSignature | None:
    if scope["type"] != "http" or not scope["path"].startswith(f"{wire.PREFIX}/"):
        return None
    return call_signature(fold((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]))

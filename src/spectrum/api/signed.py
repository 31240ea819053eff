"""The signatures of the worker protocol at the HTTP edge: of a worker's call, and of the cell's answer (INTERFACES §3)."""

from __future__ import annotations

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spectrum.api.services import Services
from spectrum.core.errors import Problem
from spectrum.core.signing import (
    Call,
    CallSignature,
    ReadCall,
    Signer,
    call_signature,
    fold,
    public_key,
    read_call,
    sign_answer,
    target_uri,
    verify_call,
)
from spectrum.ports import Clock

PREFIX = "/worker/v1/"


async def signed_call(request: Request) -> ReadCall:
    """The call, proven to be signed by the key that it names. Whose key that is, and whether its number is new, comes next.

    Raises Problem `signature-invalid` or `signature-replayed`.
    """
    services: Services = request.app.state.services
    now = services.clock.now()
    read = read_call(await _call_of(request), now)
    try:
        key = public_key(read.key_id)
    except ValueError as error:
        raise Problem("signature-invalid", f"The key id of the signature is no good: {error}.") from None
    verify_call(read, key, now)
    return read


async def _call_of(request: Request) -> Call:
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
    if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
        return None
    return call_signature(fold((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]))

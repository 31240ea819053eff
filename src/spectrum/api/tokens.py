"""API tokens: shown once when made, hashed ever after."""

from __future__ import annotations

from fastapi import APIRouter, Response

from spectrum.api.deps import Caller, Change, Has, Paging, listing
from spectrum.api.models import NewToken, Page, Token
from spectrum.api.routing import Route, operation, reply
from spectrum.core.access import Action

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], route_class=Route)


@router.get("", response_model=Page[Token])
@operation(Action.TOKENS_READ)
async def list_tokens(caller: Caller, page: Paging, services: Has) -> Response:
    """The organization's tokens, oldest first, the revoked ones too."""
    return listing(await services.identity.tokens(caller, page))


@router.post("", status_code=201, response_model=Token)
@operation(Action.TOKENS_WRITE, "not-found", "not-allowed-now")
async def create_token(body: NewToken, change: Change, services: Has) -> Response:
    """Make a token. The answer holds it, once; a token grants no more than its maker has."""
    return reply(
        await services.identity.create_token(change, body.name, body.scopes, body.expires_at, body.organization)
    )


@router.delete("/{token_id}", status_code=204, response_class=Response)
@operation(Action.TOKENS_WRITE)
async def revoke_token(token_id: str, change: Change, services: Has) -> Response:
    """Revoke a token, from now on and for good."""
    return reply(await services.identity.revoke_token(change, token_id))

"""`spectrum token …`: what programs sign in with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.session import Session, duration

if TYPE_CHECKING:
    from spectrum.cli.output import Columns

NOUN = "token"

COLUMNS: Columns = (
    ("ID", lambda t: t.id),
    ("NAME", lambda t: t.name),
    ("SCOPES", lambda t: t.scopes),
    ("EXPIRES", lambda t: t.expires_at),
    ("REVOKED", lambda t: t.revoked_at),
)


def register(app: typer.Typer) -> None:
    group = nouns(app, NOUN, "What programs sign in with.")
    verb(group, "create", Kind.WRITE, NOUN)(create)
    verb(group, "list", Kind.READ, NOUN)(list_tokens)
    verb(group, "revoke", Kind.WRITE, NOUN)(revoke)


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What it is for.", metavar="NAME")],
    scope: Annotated[list[str] | None, typer.Option(help="What it may do; several times if needed.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends by itself, such as 90d.")] = None,
) -> None:
    """Make a token; it is shown once, on stdout."""
    end = datetime.now(UTC) + timedelta(seconds=duration(expires)) if expires else None
    token = session.client.tokens.create(name, scopes=tuple(scope or ()), expires_at=end, key=session.key)
    session.show(token, COLUMNS, lambda: f"{token.token}\n")
    session.say(f"Token {token.id} is shown only this once")


def list_tokens(session: Session) -> None:
    """List tokens, without their secrets."""
    session.show_all(session.client.tokens.list(), COLUMNS)


def revoke(session: Session, token_id: Annotated[str, typer.Argument(help="The token's id.", metavar="ID")]) -> None:
    """End a token at once, for good."""
    session.confirm(f"Revoke token {token_id} for good?")
    session.client.tokens.revoke(token_id, key=session.key)
    session.say(f"Token {token_id} is revoked")

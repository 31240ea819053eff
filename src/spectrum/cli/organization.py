"""`spectrum organization …`: the tenants of the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.session import Session

if TYPE_CHECKING:
    from spectrum.cli.output import Columns

NOUN = "organization"

COLUMNS: Columns = (("NAME", lambda o: o.name), ("ID", lambda o: o.id), ("CREATED", lambda o: o.created_at))


def register(app: typer.Typer) -> None:
    group = nouns(app, NOUN, "Vendors' accounts on this platform.")
    verb(group, "create", Kind.WRITE, NOUN)(create)
    verb(group, "list", Kind.READ, NOUN)(list_organizations)


def create(session: Session, name: Annotated[str, typer.Argument(help="A DNS label.", metavar="NAME")]) -> None:
    """Make an organization; takes a platform token."""
    session.show(session.client.organizations.create(name, key=session.key), COLUMNS)


def list_organizations(session: Session) -> None:
    """List the organizations that the token may see."""
    session.show_all(session.client.organizations.list(), COLUMNS)

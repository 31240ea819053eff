"""`spectrum event …`: the facts of the log, in order."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.session import Session

if TYPE_CHECKING:
    from spectrum.cli.output import Columns

NOUN = "event"

COLUMNS: Columns = (
    ("POSITION", lambda e: e.position),
    ("TIME", lambda e: e.time),
    ("TYPE", lambda e: e.type.removeprefix("io.spectrum.")),
    ("SUBJECT", lambda e: e.subject),
    ("SEQUENCE", lambda e: e.sequence),
)


def register(app: typer.Typer) -> None:
    group = nouns(app, NOUN, "What has happened.")
    verb(group, "list", Kind.READ, NOUN)(list_events)


def list_events(
    session: Session,
    after: Annotated[str | None, typer.Option(help="Only after this position of the log.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only of this instance, worker or release.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
) -> None:
    """List events, oldest first."""
    session.show_all(islice(session.client.events.list(after=after, subject=subject), limit), COLUMNS)

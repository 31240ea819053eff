"""`spectrum event …`: the facts of the log, in order."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.session import Session

if TYPE_CHECKING:
    from spectrum.cli.output import Columns
    from spectrum.sdk import ClientError

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
    verb(group, "watch", Kind.READ, NOUN)(watch)


def list_events(
    session: Session,
    after: Annotated[str | None, typer.Option(help="Only after this position of the log.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only of this instance, worker or release.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
) -> None:
    """List events, oldest first."""
    session.show_all(islice(session.client.events.list(after=after, subject=subject), limit), COLUMNS)


def watch(
    session: Session,
    after: Annotated[
        int | None, typer.Option(help="Begin after this position of the log; without it, with what is new.", min=0)
    ] = None,
    instance: Annotated[str | None, typer.Option(help="Only of this instance, by name or id.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only of the instance, worker or release with this id.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only of this type, or of those that begin so: job, job.failed.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="End after so many.", min=1)] = None,
) -> None:
    """Print events as they happen, until Ctrl-C. It goes on by itself, without a gap, when the connection is lost."""
    from spectrum.cli.output import streamed
    from spectrum.core.events.catalogue import PREFIX

    away = False

    def lost(error: ClientError) -> None:
        nonlocal away
        if not away:
            session.say(f"{error.message}; trying again")
        away = True

    wanted = [each if each.startswith(PREFIX) else f"{PREFIX}{each}" for each in types or ()]
    watched = session.client.events.watch(after=after, subject=subject, instance=instance, types=wanted, lost=lost)
    for event in islice(watched, limit):
        away = False
        sys.stdout.write(streamed(session.options.output, event, COLUMNS))
        sys.stdout.flush()

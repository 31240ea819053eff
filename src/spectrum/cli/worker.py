"""`spectrum worker …`: the processes that execute steps; `run` is one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.session import Session

if TYPE_CHECKING:
    from spectrum.cli.output import Columns

NOUN = "worker"
Id = Annotated[str, typer.Argument(help="The worker's id.", metavar="ID")]

COLUMNS: Columns = (
    ("ID", lambda w: w.id),
    ("NAME", lambda w: w.name),
    ("POOL", lambda w: w.pool),
    ("STATE", lambda w: w.state),
    ("TARGETS", lambda w: w.targets),
    ("SEEN", lambda w: w.seen_at),
)
TOKEN_COLUMNS: Columns = (("TOKEN", lambda t: t.token), ("EXPIRES", lambda t: t.expires_at))


def register(app: typer.Typer) -> None:
    group = nouns(app, NOUN, "The processes that do the work.")
    verb(group, "join-token", Kind.WRITE, NOUN)(join_token)
    verb(group, "list", Kind.READ, NOUN)(list_workers)
    verb(group, "show", Kind.READ, NOUN)(show)
    verb(group, "drain", Kind.WRITE, NOUN)(drain)
    verb(group, "revoke", Kind.WRITE, NOUN)(revoke)
    verb(group, "run", Kind.LOCAL, NOUN)(run)


def join_token(
    session: Session, target: Annotated[str, typer.Option(help="The target that the new worker will reach.")]
) -> None:
    """Make a token with which one worker may join; it is shown once and lasts 15 minutes."""
    from spectrum.cli.output import fields

    token = session.client.workers.join_token(target, key=session.key)
    session.show(token, TOKEN_COLUMNS, lambda: fields((("Token", token.token), ("Expires", token.expires_at))))
    session.say("Next: put it into a file, set SPECTRUM_JOIN_TOKEN_FILE, and run: spectrum worker run --target URL")


def list_workers(session: Session) -> None:
    """List workers."""
    session.show_all(session.client.workers.list(), COLUMNS)


def show(session: Session, worker_id: Id) -> None:
    """Show a worker."""
    from spectrum.cli.output import everything

    worker = session.client.workers.get(worker_id)
    session.show(worker, COLUMNS, lambda: everything(worker))


def drain(session: Session, worker_id: Id) -> None:
    """Let a worker finish what it holds and take nothing new."""
    session.show(session.client.workers.drain(worker_id, key=session.key), COLUMNS)


def revoke(session: Session, worker_id: Id) -> None:
    """Take a worker's key away for good; its jobs go to others."""
    session.confirm(f"Revoke worker {worker_id} for good?")
    session.show(session.client.workers.revoke(worker_id, key=session.key), COLUMNS)


def run(
    session: Session,
    target: Annotated[list[str] | None, typer.Option(help="A target's URL; by default SPECTRUM_TARGETS.")] = None,
) -> None:
    """Be a worker, in the foreground. Reads SPECTRUM_URL, TARGETS, KEY_FILE, JOIN_TOKEN_FILE and BUS."""
    from spectrum.cli.server import program

    program("spectrum.worker.main", "worker")(targets=tuple(target or ()))

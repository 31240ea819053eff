"""`spectrum target …`: where instances run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.session import Session

if TYPE_CHECKING:
    from spectrum.cli.output import Columns

NOUN = "target"
Name = Annotated[str, typer.Argument(help="The target's name.", metavar="NAME")]

COLUMNS: Columns = (
    ("NAME", lambda t: t.name),
    ("URL", lambda t: t.url),
    ("POOL", lambda t: t.pool),
    ("STATE", lambda t: t.state),
)


def register(app: typer.Typer) -> None:
    group = nouns(app, NOUN, "Where instances run.")
    verb(group, "add", Kind.WRITE, NOUN)(add)
    verb(group, "list", Kind.READ, NOUN)(list_targets)
    verb(group, "show", Kind.READ, NOUN)(show)
    verb(group, "remove", Kind.WRITE, NOUN)(remove)


def add(
    session: Session,
    name: Name,
    target_url: Annotated[
        str,
        typer.Argument(
            help="process:///folder; workers for docker:// and kubernetes:// are not there yet.", metavar="URL"
        ),
    ],
    pool: Annotated[str | None, typer.Option(help="The workers that reach it; by default a pool of its own.")] = None,
) -> None:
    """Add a target."""
    session.show(session.client.targets.add(name, target_url, pool=pool, key=session.key), COLUMNS)
    session.say(f"Next: spectrum worker join-token --target {name}")


def list_targets(session: Session) -> None:
    """List targets."""
    session.show_all(session.client.targets.list(), COLUMNS)


def show(session: Session, name: Name) -> None:
    """Show a target."""
    from spectrum.cli.output import everything

    target = session.client.targets.get(name)
    session.show(target, COLUMNS, lambda: everything(target))


def remove(
    session: Session,
    name: Name,
    gone: Annotated[bool, typer.Option("--gone", help="It is lost, with everything on it.")] = False,
) -> None:
    """Remove a target that has no instances, or declare one lost."""
    if gone:
        session.confirm(f"Declare target {name} lost, with every instance on it?")
    session.client.targets.remove(name, gone=gone, key=session.key)
    session.say(f"Target {name} is removed")

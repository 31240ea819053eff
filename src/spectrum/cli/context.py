"""`spectrum login`, `logout` and `context …`: the servers that a person works with."""

from __future__ import annotations

import getpass
import sys
from dataclasses import replace
from typing import Annotated
from urllib.parse import urlsplit

import typer

from spectrum.cli import contexts
from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.connection import read_token
from spectrum.cli.contexts import Context, Contexts
from spectrum.cli.errors import UsageError
from spectrum.cli.session import Session, connect

NOUN = "context"


def register(app: typer.Typer) -> None:
    verb(app, "login", Kind.LOCAL)(login)
    verb(app, "logout", Kind.LOCAL)(logout)
    group = nouns(app, NOUN, "The servers that you signed in to.")
    verb(group, "list", Kind.LOCAL, NOUN)(list_contexts)
    verb(group, "use", Kind.LOCAL, NOUN)(use)
    verb(group, "delete", Kind.LOCAL, NOUN)(delete)


def login(
    session: Session,
    url: Annotated[str, typer.Argument(help="The server, such as https://spectrum.example.com.", metavar="URL")],
    name: Annotated[str | None, typer.Option(help="What to call it; by default its host.")] = None,
    token_file: Annotated[str | None, typer.Option(help="The token, in a file; - is stdin.")] = None,
) -> None:
    """Sign in to a server, and use it from now on."""
    token = read_token(token_file) if token_file else _ask_token()
    with connect(url, token) as client:
        next(client.instances.list(), None)
    chosen = name or urlsplit(url).netloc
    stored = contexts.load()
    contexts.store(Contexts(chosen, stored.contexts | {chosen: Context(url.rstrip("/"), token)}))
    session.say(f"Signed in to {url} as context {chosen}")


def logout(
    session: Session, name: Annotated[str | None, typer.Argument(help="By default the current one.")] = None
) -> None:
    """Forget a server and its token. The token stays valid: `spectrum token revoke` ends it."""
    _forget(session, name or contexts.load().current)


def list_contexts(session: Session) -> None:
    """List the servers that you signed in to; the current one is marked."""
    from spectrum.cli.output import table

    stored = contexts.load()
    rows = [("*" if name == stored.current else "-", name, entry.url) for name, entry in stored.contexts.items()]
    data = [{"name": name, "url": url, "current": mark == "*"} for mark, name, url in rows]
    text = table(("CURRENT", "NAME", "URL"), rows)
    session.show_data({"items": data}, lambda: text, "\n".join(stored.contexts))


def use(session: Session, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Work with this server from now on."""
    stored = contexts.load()
    stored.named(name)
    contexts.store(replace(stored, current=name))
    session.say(f"Using {name}")


def delete(session: Session, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Forget a server and its token."""
    _forget(session, name)


def _forget(session: Session, name: str) -> None:
    stored = contexts.load()
    if name not in stored.contexts:
        raise UsageError(f"There is no context {name or '(none is current)'}", "spectrum context list")
    left = {other: entry for other, entry in stored.contexts.items() if other != name}
    contexts.store(Contexts("" if stored.current == name else stored.current, left))
    session.say(f"Forgot {name}")


def _ask_token() -> str:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("Nobody can be asked for a token without a terminal", "spectrum login URL --token-file -")
    token = getpass.getpass("Token: ", stream=sys.stderr).strip()
    if not token:
        raise UsageError("No token was given", "spectrum token create NAME makes one")
    return token

"""`spectrum server`: the control plane in the foreground; and how server parts are found where they are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Any

import typer

from spectrum.cli.command import Kind, verb
from spectrum.cli.errors import UsageError
from spectrum.cli.session import Session


def register(app: typer.Typer) -> None:
    verb(app, "server", Kind.LOCAL)(server)


def server(
    session: Session,
    parts: Annotated[str | None, typer.Option(help="Only these parts, such as api,sweeper; by default all.")] = None,
    bootstrap: Annotated[
        str | None,
        typer.Option(help="Have organization `default`, and let the token in this file sign in to it.", metavar="FILE"),
    ] = None,
    new_epoch: Annotated[bool, typer.Option("--new-epoch", help="Raise the cell's epoch first.")] = False,
) -> None:
    """Be a control plane, in the foreground. Reads SPECTRUM_LISTEN, PUBLIC_URL, DATABASE_URL, BUS and the others."""
    chosen = tuple(part.strip() for part in parts.split(",") if part.strip()) if parts else ()
    program("spectrum.server", "server")(parts=chosen, bootstrap=bootstrap, new_epoch=new_epoch)


def program(module: str, extra: str) -> Callable[..., Any]:
    """`run` of a part that a light install leaves out. Raises `UsageError` where it is not installed."""
    try:
        run: Callable[..., Any] = importlib.import_module(module).run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("spectrum."):
            raise
        raise missing(error, extra) from None
    return run


def missing(error: ModuleNotFoundError, extra: str) -> UsageError:
    return UsageError(f"{error.name} is not installed", f"pip install 'spectrum-orchestrator[{extra}]'")

"""How a function becomes a command: the options that all commands share, its session, and exit codes from errors."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, TypeVar

import typer

from spectrum.cli import environment
from spectrum.cli.errors import INTERRUPTED, UsageError, tell
from spectrum.cli.session import Interrupted, Options, Output, Session
from spectrum.core.errors import SpectrumError

F = TypeVar("F", bound=Callable[..., None])


class Kind(Enum):
    """Which shared options a command takes; each kind has those of the one before it."""

    LOCAL = 0  # speaks with no server
    READ = 1
    WRITE = 2
    JOB = 3  # starts a job


_CONNECTION = "Connection"
_SHARED: tuple[tuple[Kind, str, Any, Any], ...] = (
    (Kind.LOCAL, "output", Annotated[Output, typer.Option("-o", "--output", help="How to print.")], Output.TABLE),
    (
        Kind.READ,
        "context",
        Annotated[str | None, typer.Option(help="A server that you signed in to.", rich_help_panel=_CONNECTION)],
        None,
    ),
    (Kind.READ, "url", Annotated[str | None, typer.Option(help="Another server.", rich_help_panel=_CONNECTION)], None),
    (
        Kind.READ,
        "token_file",
        Annotated[
            str | None,
            typer.Option(help="The token for --url, in a file; - is stdin.", rich_help_panel=_CONNECTION),
        ],
        None,
    ),
    (Kind.WRITE, "yes", Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")], False),
    (
        Kind.WRITE,
        "idempotency_key",
        Annotated[str | None, typer.Option(help="Repeat a request safely: same key, done once.")],
        None,
    ),
    (Kind.JOB, "wait", Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the job is done.")], True),
    (Kind.JOB, "timeout", Annotated[str | None, typer.Option(help="Wait at most so long, such as 90s or 10m.")], None),
    (Kind.JOB, "dry_run", Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")], False),
)

SHARED = {name: str(typing.get_args(annotation)[1].help) for _, name, annotation, _ in _SHARED}
"""The help of each shared option, by its parameter."""


def verb(app: typer.Typer, name: str, kind: Kind, noun: str = "") -> Callable[[F], F]:
    """Register a function as a command. Its parameter `session` is filled in, not asked for."""

    def register(function: F) -> F:
        hints = typing.get_type_hints(function, include_extras=True)
        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for least, key, annotation, default in _SHARED
            if least.value <= kind.value
        ]
        own = [
            parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(function).parameters.values()
            if parameter.name != "session"
        ]

        def run(**arguments: Any) -> None:
            options = {parameter.name: arguments.pop(parameter.name) for parameter in shared}
            _guarded(function, options, arguments, noun)

        run.__doc__ = function.__doc__
        run.__name__ = function.__name__
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        app.command(name)(run)
        return function

    return register


def nouns(app: typer.Typer, name: str, help_text: str) -> typer.Typer:
    """A noun whose verbs are registered on what is returned."""
    group = typer.Typer(name=name, help=help_text, no_args_is_help=True)
    app.add_typer(group)
    return group


def _guarded(function: Callable[..., None], options: dict[str, Any], arguments: dict[str, Any], noun: str) -> None:
    """Run the command; every expected end becomes an exit code (INTERFACES §5)."""
    session: Session | None = None
    name = next((str(arguments[key]) for key in ("name", "job_id") if key in arguments), "")
    try:
        environment.refuse_unknown()
        session = Session(Options(**options))
        function(session=session, **arguments)
    except Interrupted as interrupted:
        sys.stderr.write(f"\nThe job goes on. Watch it: spectrum job watch {interrupted.job_id}\n")
        raise typer.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except UsageError as error:
        tell(error, noun, name)
        raise typer.Exit(error.exit_code) from None
    except SpectrumError as error:
        tell(_with_key(error, session), noun, name)
        raise typer.Exit(int(getattr(error, "exit_code", 1))) from None
    finally:
        if session is not None:
            session.close()


def _with_key(error: SpectrumError, session: Session | None) -> SpectrumError:
    """Whether a request arrived that nobody answered is not known: the same key makes its repetition safe."""
    if session is not None and session.unanswered(error):
        error.hint = f"the same command with --idempotency-key {session.key}: it is then done once"  # type: ignore[attr-defined]
    return error

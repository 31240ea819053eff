"""`spectrum version` and `spectrum completion SHELL`."""

from __future__ import annotations

import platform
import sys
from enum import StrEnum
from typing import Annotated

import typer

import spectrum
from spectrum.cli.command import Kind, verb
from spectrum.cli.session import Session


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def register(app: typer.Typer) -> None:
    verb(app, "version", Kind.LOCAL)(version)
    verb(app, "completion", Kind.LOCAL)(completion)


def version(session: Session) -> None:
    """Print the version."""
    data = {"version": spectrum.__version__, "python": platform.python_version()}
    session.show_data(data, lambda: f"spectrum {spectrum.__version__}\n", spectrum.__version__)


def completion(session: Session, shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print a script that completes commands: `source <(spectrum completion bash)`."""
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="spectrum", complete_var="_SPECTRUM_COMPLETE", shell=shell.value)
    sys.stdout.write(script + "\n")

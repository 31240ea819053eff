"""`spectrum up`, `down`, `status` and `doctor`: SPECTRUM on this machine."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum.cli.command import Kind, verb
from spectrum.cli.errors import ERROR
from spectrum.cli.session import Session

if TYPE_CHECKING:
    from spectrum.local.doctor import Finding
    from spectrum.local.lifecycle import Status
    from spectrum.local.setup import Ready


class Bus(StrEnum):
    POLL = "poll"
    KAFKA = "kafka"


def register(app: typer.Typer) -> None:
    verb(app, "up", Kind.LOCAL)(up)
    verb(app, "down", Kind.LOCAL)(down)
    verb(app, "status", Kind.LOCAL)(status)
    verb(app, "doctor", Kind.LOCAL)(doctor)


def up(
    session: Session,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, show the logs, go down on Ctrl-C.")] = False,
    bus: Annotated[
        Bus | None, typer.Option(help="How workers learn of work: poll, or a Kafka that is started too. As last time.")
    ] = None,
) -> None:
    """Start everything on this machine, with a first instance; safe to repeat and to interrupt."""
    try:
        from spectrum.local import commands
    except ModuleNotFoundError as error:
        from spectrum.cli.server import missing

        raise missing(error, "server") from None
    try:
        ready = commands.up(session.say, bus.value if bus else None)
    except KeyboardInterrupt:
        session.say("\nInterrupted. Go on: spectrum up; or stop what runs: spectrum down")
        raise
    session.show_data(asdict(ready), lambda: up_text(ready), ready.instance)
    if foreground:
        commands.attend(session.say)


def down(session: Session) -> None:
    """Stop instances and parts; data stays, and the next `up` brings the same instances back."""
    from spectrum.local import commands

    commands.down(session.say)


def status(session: Session) -> None:
    """Say how the parts on this machine are; exit code 1 if one does not run."""
    from spectrum.local import commands

    found = commands.status()
    session.show_data({**asdict(found), "running": found.running}, lambda: _status_text(found))
    if not found.running:
        session.say("next: spectrum up")
        raise typer.Exit(ERROR)


def doctor(session: Session) -> None:
    """Check this machine for what SPECTRUM needs; every finding comes with its remedy."""
    from spectrum.local import doctor as checks

    findings = checks.examine()
    session.show_data({"items": [asdict(finding) for finding in findings]}, lambda: _doctor_text(findings))
    if any(finding.level is checks.Level.MISSING for finding in findings):
        raise typer.Exit(ERROR)


def up_text(ready: Ready) -> str:
    """Where everything is once it is up, and what a newcomer does next."""
    from spectrum.cli.output import fields

    return fields(
        (
            ("Instance", f"{ready.instance}  {ready.instance_url}".rstrip()),
            ("Its user", f"admin, password in {ready.password_file}" if ready.password_file else None),
            ("API", ready.api_url),
            (
                "Sign in",
                f"commands in this folder are signed in; elsewhere: {own_name()} login {ready.api_url} "
                f"--token-file {shlex.quote(ready.token_file)}",
            ),
            ("Next", f"{own_name()} instance list"),
        )
    )


def own_name() -> str:
    """How this command is called from the current folder: by name where the shell finds it, else by path."""
    script = Path(sys.executable).with_name("spectrum")
    if shutil.which("spectrum") or not script.exists():
        return "spectrum"
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def _status_text(found: Status) -> str:
    from spectrum.cli.output import cell, fields, rows_section

    supervisor = f"pid {found.supervisor}" if found.supervisor else "not running"
    rows = [
        (
            part.name,
            part.state,
            cell(part.pid),
            cell(part.port),
            _age(part.uptime),
            str(part.restarts),
            cell(part.last_error),
        )
        for part in found.parts
    ]
    headings = ("PART", "STATE", "PID", "PORT", "UPTIME", "RESTARTS", "LAST ERROR")
    return fields((("Home", found.home), ("Supervisor", supervisor))) + rows_section("Parts", headings, rows)


def _doctor_text(findings: tuple[Finding, ...]) -> str:
    from spectrum.cli.output import cell, table

    rows = [(item.check, item.level.value, item.found, cell(item.remedy)) for item in findings]
    return table(("CHECK", "RESULT", "FOUND", "REMEDY"), rows)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"

"""A job as it goes: a live table of steps on a terminal, a plain line per change in a pipe. All of it on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from spectrum.cli.output import is_terminal
from spectrum.cli.session import Interrupted, Session
from spectrum.sdk.models import Job, Step, Waiting
from spectrum.sdk.resources import settled

if TYPE_CHECKING:
    from rich.console import Group

INTERVAL = 1.0  # seconds between two looks while the job goes on
_STYLES = {"done": "green", "running": "cyan", "failed": "red", "undo_failed": "red", "undone": "yellow"}


def follow(session: Session, job: Job) -> Job:
    """The job once it has succeeded. Raises `JobFailed`, `WaitTimeout`, `Interrupted`."""
    changes = session.client.jobs.follow(job.id, timeout=session.seconds, interval=INTERVAL)
    try:
        last = _live(job, changes) if is_terminal(sys.stderr) else _plain(session, job, changes)
    except KeyboardInterrupt:
        raise Interrupted(job.id) from None
    return settled(last)


def waiting_text(waiting: Waiting) -> str:
    """What a job waits for, until when at most, and who could unblock it."""
    if waiting.reason == "worker":  # nearly always for a moment only: no call to act
        until = f", until {waiting.until:%H:%M:%SZ} at most" if waiting.until else ""
        return f"waits for a worker to take it{until}" + (
            f"; if none does: {waiting.unblock}" if waiting.unblock else ""
        )
    parts = [f"waits for {waiting.reason or 'something'}"]
    if waiting.holder:
        parts.append(f"held by {waiting.holder}")
    if waiting.position is not None:
        parts.append(f"position {waiting.position}")
    if waiting.until:
        parts.append(f"until {waiting.until:%H:%M:%SZ} at most")
    if waiting.unblock:
        parts.append(f"unblock: {waiting.unblock}")
    return ", ".join(parts)


def step_text(step: Step) -> str:
    """What there is to say of a step beside its state: which attempt it is, why, and when it is tried again.

    Attempts are counted through doing and undoing: the second one may be the first to undo, which is nothing to tell.
    """
    parts = []
    if step.attempts and step.attempts[-1].cause != "first":
        parts.append(f"attempt {step.attempts[-1].number} ({step.attempts[-1].cause})")
    if step.retry_at:
        parts.append(f"again at {step.retry_at:%H:%M:%SZ}")
    errors = [attempt.error for attempt in step.attempts if attempt.error]
    if errors and step.state != "done":
        parts.append(errors[-1].message)
    return ", ".join(parts)


def headline(job: Job) -> str:
    return f"{job.operation} {job.subject.label}: {job.state} ({job.progress.done}/{job.progress.total})"


def _plain(session: Session, job: Job, changes: Iterator[Job]) -> Job:
    session.say(f"{job.id} {job.operation} {job.subject.label}")
    told: dict[str, str] = {}
    waiting = None
    for job in changes:
        if not job.done:
            _tell(session, told, "job", job.state)
        for step in job.steps:
            _tell(session, told, step.name, f"{step.state} {step_text(step)}".strip(), quiet=step.state == "pending")
        # A wait that is over at the next look was none worth a line.
        if job.waiting and job.waiting == waiting:
            _tell(session, told, "", waiting_text(job.waiting))
        waiting = job.waiting
    _tell(session, told, "job", job.state)
    return job


def _tell(session: Session, told: dict[str, str], who: str, text: str, *, quiet: bool = False) -> None:
    if told.get(who) != text and not quiet:
        session.say(f"  {who + ' ' if who else ''}{text}")
    told[who] = text


def _live(job: Job, changes: Iterator[Job]) -> Job:
    from rich.console import Console
    from rich.live import Live

    with Live(_picture(job), console=Console(stderr=True), refresh_per_second=8) as live:
        for job in changes:
            live.update(_picture(job))
    return job


def _picture(job: Job) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=False, pad_edge=False)
    for step in job.steps:
        grid.add_row(Text(step.name), Text(step.state, style=_STYLES.get(step.state, "dim")), Text(step_text(step)))
    waiting = [Text(waiting_text(job.waiting), style="dim")] if job.waiting else []
    return Group(Text(headline(job), style="bold"), grid, *waiting)

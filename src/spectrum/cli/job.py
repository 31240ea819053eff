"""`spectrum job …`: what is being done, how far it is, and what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.session import Session

if TYPE_CHECKING:
    from spectrum.cli.output import Columns
    from spectrum.sdk.models import Job

NOUN = "job"
Id = Annotated[str, typer.Argument(help="The job's id.", metavar="ID")]

COLUMNS: Columns = (
    ("ID", lambda j: j.id),
    ("OPERATION", lambda j: j.operation),
    ("SUBJECT", lambda j: j.subject.name or j.subject.id),
    ("STATE", lambda j: j.state),
    ("PROGRESS", lambda j: f"{j.progress.done}/{j.progress.total}"),
    ("CREATED", lambda j: j.created_at),
    ("WAITING", lambda j: j.waiting.reason if j.waiting else None),
)


def register(app: typer.Typer) -> None:
    group = nouns(app, NOUN, "What is being done to instances.")
    verb(group, "list", Kind.READ, NOUN)(list_jobs)
    verb(group, "show", Kind.READ, NOUN)(show)
    verb(group, "watch", Kind.JOB, NOUN)(watch)
    verb(group, "why", Kind.READ, NOUN)(why)
    verb(group, "cancel", Kind.JOB, NOUN)(cancel)


def list_jobs(
    session: Session,
    instance: Annotated[str | None, typer.Option(help="Only of this instance.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    operation: Annotated[str | None, typer.Option(help="Only of this operation.")] = None,
) -> None:
    """List jobs, newest first."""
    session.show_all(session.client.jobs.list(instance=instance, state=state, operation=operation), COLUMNS)


def show(session: Session, job_id: Id) -> None:
    """Show a job with its steps and their attempts."""
    job = session.client.jobs.get(job_id)
    session.show(job, COLUMNS, lambda: _long(job))


def watch(session: Session, job_id: Id) -> None:
    """Follow a job to its end; the exit code says how it ended."""
    session.show(session.finish(session.client.jobs.get(job_id)), COLUMNS)


def why(session: Session, job_id: Id) -> None:
    """Say what a job waits for, since when, until when at most, and who could unblock it."""
    from spectrum.cli.progress import waiting_text

    answer = session.client.jobs.why(job_id)
    waiting = f"{waiting_text(answer.waiting)}\n" if answer.waiting else ""
    text = f"{answer.summary}\n" if answer.summary else waiting or f"It waits for nothing; it is {answer.state}\n"
    session.show_data(answer.as_json(), lambda: text)


def cancel(session: Session, job_id: Id) -> None:
    """Ask a job to stop and to undo what it did."""
    from spectrum.sdk import JobFailed

    job = session.client.jobs.cancel(job_id, key=session.key)
    if session.options.wait:
        try:
            job = session.finish(job)
            session.say("Too late: the job had succeeded")
        except JobFailed as ended:
            if ended.job.state != "cancelled":
                raise
            job = ended.job
    session.show(job, COLUMNS)


def _long(job: Job) -> str:
    from spectrum.cli.output import cell, fields, rows_section, section
    from spectrum.cli.progress import step_text, waiting_text

    head = fields(
        (
            ("Id", job.id),
            ("Operation", job.operation),
            ("Subject", job.subject.label),
            ("State", job.state),
            ("Progress", f"{job.progress.done}/{job.progress.total}"),
            ("Waiting", waiting_text(job.waiting) if job.waiting else None),
            ("Worker", job.worker_id),
            ("Parent", job.parent_id),
            ("Created", job.created_at),
            ("Started", job.started_at),
            ("Finished", job.finished_at),
            ("Deadline", None if job.done else job.deadline),
            ("Error", f"{job.error.message} ({job.error.code})" if job.error else None),
            ("Who can help", job.error.actor if job.error else None),
            ("Next", job.error.next if job.error else None),
        )
    )
    steps = [(step.name, step.state, str(len(step.attempts)), cell(step_text(step))) for step in job.steps]
    evidence = "\n".join(job.error.evidence) if job.error else ""
    return (
        head
        + rows_section("Steps", ("NAME", "STATE", "ATTEMPTS", "REMARK"), steps)
        + section("Evidence", evidence)
        + section("Left behind", "\n".join(str(entry) for entry in job.residue))
    )

"""Jobs: what is being done to instances, how far it is, what it waits for, and calling it off."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from spectrum.api.deps import Caller, Change, Has, Paging, Wait, listing, shown
from spectrum.api.models import Job, JobState, Page, Why
from spectrum.api.routing import Route, operation, reply
from spectrum.control.jobs import JobFilters
from spectrum.core.access import Action

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=Route)


@router.get("", response_model=Page[Job])
@operation(Action.JOBS_READ, "not-found")
async def list_jobs(
    caller: Caller,
    page: Paging,
    services: Has,
    instance: Annotated[
        str | None, Query(max_length=100, description="Only of this instance: a name or an id.")
    ] = None,
    state: JobState | None = None,
    operation: Annotated[str | None, Query(max_length=100, description="Only of this operation.")] = None,
) -> Response:
    """The organization's jobs, newest first."""
    return listing(await services.jobs.jobs(caller, page, JobFilters(instance, state, operation)))


@router.get("/{job_id}", response_model=Job)
@operation(Action.JOBS_READ)
async def show_job(job_id: str, caller: Caller, services: Has, wait: Wait) -> Response:
    """One job; with `wait` once it has ended, or as it is then."""
    return shown(await services.jobs.job(caller, job_id, wait))


@router.get("/{job_id}/why", response_model=Why)
@operation(Action.JOBS_READ)
async def explain_job(job_id: str, caller: Caller, services: Has) -> Response:
    """Why a job is where it is, and who could do something about it."""
    return shown(await services.jobs.why(caller, job_id))


@router.post("/{job_id}:cancel", status_code=202, response_model=Job)
@operation(Action.JOBS_CANCEL, "not-allowed-now")
async def cancel_job(job_id: str, change: Change, services: Has, wait: Wait) -> Response:
    """Ask a job to stop and to undo what it did. It is `cancelling` until its worker lets go."""
    asked = await services.jobs.cancel(change, job_id)
    return reply(await services.jobs.awaited(change.principal, asked, wait))

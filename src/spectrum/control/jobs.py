"""Jobs: shown, waited for, explained and cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from spectrum.control.changes import Changes, own
from spectrum.control.commands import Listing, Mutation, Page, Reply
from spectrum.control.engine import Engine
from spectrum.control.instance_views import find_instance
from spectrum.control.job_views import Attempts, Brake, JobView, Why, job_views
from spectrum.control.wakeups import Wakeups, within
from spectrum.core.access import Principal
from spectrum.core.errors import Problem
from spectrum.core.ids import JobId
from spectrum.core.jobs.commands import Answer, Cancel, Repeated
from spectrum.core.jobs.store import Asked, Keyed
from spectrum.db.pools import Connection
from spectrum.db.sql import query
from spectrum.db.visits import Row, visiting
from spectrum.ports import Clock

_FIND = query("jobs_find")
_LIST = query("job_list")
_LIST_OF_INSTANCE = query("job_list_of_instance")
_STEPS = query("steps_of_jobs")
_ATTEMPTS = query("attempts_of_jobs")
_OBSTACLE = query("job_obstacle")

NEWEST = "~"  # comes after every id
SLOW_POLL = 1.0  # seconds: what a lost wake-up costs at most


@dataclass(frozen=True, slots=True)
class JobFilters:
    """Which jobs a list holds. None: all. `instance` is a name or an id."""

    instance: str | None = None
    state: str | None = None
    operation: str | None = None


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs in PostgreSQL. `wakeups`: the end of a job wakes its id."""

    changes: Changes
    engine: Engine
    wakeups: Wakeups
    clock: Clock

    async def jobs(self, principal: Principal, page: Page, filters: JobFilters) -> Listing[JobView]:
        """Newest first. Raises Problem `not-found` for an instance that is not there."""
        chosen = (principal.organization, page.after or NEWEST, page.limit + 1, filters.state, filters.operation)
        async with visiting(self.changes.pool, own(principal)) as connection:
            if filters.instance is None:
                rows = await connection.fetch(_LIST, *chosen)
            else:
                instance = await find_instance(connection, principal, filters.instance)
                rows = await connection.fetch(_LIST_OF_INSTANCE, *chosen, instance["id"])
            views = await _with_steps(connection, rows)
        return Listing.of(views, page, [row["id"] for row in rows])

    async def job(self, principal: Principal, job_id: str, wait: float = 0.0) -> JobView:
        """The job; with `wait` (seconds) once it has ended, or as it is when these are over. Raises Problem `not-found`."""
        until = self.clock.monotonic() + wait
        while True:
            with self.wakeups.listening(job_id) as woken:
                view = await self._look(principal, job_id)
                left = until - self.clock.monotonic()
                if view.job.state.terminal or left <= 0 or self.wakeups.ended:
                    return view
                await within(woken, min(left, SLOW_POLL))

    async def why(self, principal: Principal, job_id: str) -> Why:
        """Raises Problem `not-found`."""
        view = await self._look(principal, job_id)
        async with visiting(self.changes.pool, own(principal)) as connection:
            row = await connection.fetchrow(_OBSTACLE, principal.organization, job_id)
        brake = Brake(row["id"], row["reason"], row["pulled_at"], row["until"]) if row else None
        return Why(view, brake)

    async def cancel(self, mutation: Mutation, job_id: str) -> Reply:
        """Ask the job to stop and to undo what it did. Raises Problem `not-found`, `not-allowed-now`."""
        principal = mutation.principal
        view = await self._look(principal, job_id)
        cancel = Cancel(
            id=f"cancel/{mutation.request_id}",
            instance_id=view.job.instance_id,
            organization_id=principal.organization,
            actor=principal.actor,
            job_id=JobId(job_id),
        )
        seen = Seen(view.subject, view.attempts, view.lost)
        return accepted(await self.engine.execute(Asked(cancel, keyed(mutation, seen))), seen)

    async def awaited(self, principal: Principal, reply: Reply, wait: float) -> Reply:
        """The same answer with its job as it is once it has ended, or `wait` seconds later."""
        if not wait or reply.status != ACCEPTED or (reply.body or {}).get("done"):
            return reply
        job_id = reply.location.rpartition("/")[2]
        began = self.clock.monotonic()
        if not reply.repeated:  # it was just made: it is not looked at before there is news of it
            await self.wakeups.wait(job_id, min(wait, SLOW_POLL))
        view = await self.job(principal, job_id, wait - (self.clock.monotonic() - began))
        return replace(reply, body=view.as_json())

    async def _look(self, principal: Principal, job_id: str) -> JobView:
        return await self.changes.reads.ask(principal.organization, _find, job_id)


async def _find(connection: Connection, organization: str, job_ids: Sequence[str]) -> list[JobView | Exception]:
    """Each of these jobs, or Problem `not-found`."""
    found = await connection.fetch(_FIND, organization, list(job_ids))
    views = {view.job.id: view for view in await _with_steps(connection, found)}
    return [views.get(JobId(each)) or _no_such_job(each) for each in job_ids]


def _no_such_job(job_id: str) -> Problem:
    return Problem("not-found", f"There is no job {job_id!r}. See `spectrum job list`.")


async def _with_steps(connection: Connection, rows: list[Row]) -> list[JobView]:
    named = [row["id"] for row in rows]
    return job_views(rows, await connection.fetch(_STEPS, named), await connection.fetch(_ATTEMPTS, named))


# ---- the answer to a command that was accepted


ACCEPTED = 202


@dataclass(frozen=True, slots=True)
class Seen:
    """What an answer shows besides the job itself: the instance's name, and of a job that is under way its attempts."""

    subject: str
    attempts: Attempts = field(default_factory=dict)
    lost: timedelta | None = None


def keyed(mutation: Mutation, seen: Seen) -> Keyed:
    """The mutation's key for the engine, which keeps the answer under it."""
    return Keyed(
        organization_id=mutation.principal.organization,
        method=mutation.method,
        path=mutation.path,
        key=mutation.key,
        request_digest=mutation.request_digest,
        respond=lambda answer: _respond(answer, seen),
    )


def accepted(answer: Answer | Repeated, seen: Seen) -> Reply:
    """What is answered: the job as of the commit; to a repeat, what was answered the first time."""
    if isinstance(answer, Repeated):
        return Reply(answer.status, answer.body, answer.location, repeated=True)
    first = _respond(answer, seen)
    return Reply(first.status, first.body, first.location)


def _respond(answer: Answer, seen: Seen) -> Repeated:
    job = answer.job
    if job is None:
        raise TypeError("a command that is asked for by people is answered by its job")
    shown = JobView(job, seen.subject, seen.attempts, seen.lost)
    return Repeated(ACCEPTED, f"/v1/jobs/{job.id}", shown.as_json())

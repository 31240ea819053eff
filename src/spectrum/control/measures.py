"""What a copy measures: jobs are counted and their spans told as it commits them, the present is read when somebody asks.

Counters are those of this process; what the database says of the present is the same in every copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from spectrum import tracing
from spectrum.core.errors import Problem
from spectrum.core.jobs.model import Job
from spectrum.core.jobs.store import Written
from spectrum.core.jobs.table import Cause, JobState
from spectrum.db.pools import Pool, Role
from spectrum.db.sql import query
from spectrum.db.visits import Row, look_up
from spectrum.telemetry import Metrics

_PRESENT = query("measures_present")
_READERS = query("measures_readers")
_JOBS = query("measures_jobs")
_FLEET = query("measures_fleet")
OPEN = tuple(state for state in JobState if not state.terminal)
_NOT_KNOWN = float("nan")


@dataclass(frozen=True, slots=True)
class Measures:
    """Fills in `metrics`. `queues` say how much waits in this process."""

    metrics: Metrics
    pools: Mapping[Role, Pool]
    queues: Mapping[str, Callable[[], int]]

    def committed(self, written: Iterable[Written]) -> None:
        """Count what one transaction made of its aggregates."""
        for each in written:
            for job in each.ended:
                self._ended(job)
                _trace(job)
            for attempt in (attempt for consequences in each.consequences for attempt in consequences.opened):
                if attempt.cause != Cause.FIRST:
                    self.metrics.step_retries.labels(each.after.jobs[attempt.job_id].operation, attempt.cause).inc()

    def _ended(self, job: Job) -> None:
        self.metrics.jobs.labels(job.operation, job.state.value).inc()
        if job.finished_at is not None:
            seconds = (job.finished_at - job.created_at).total_seconds()
            self.metrics.job_duration.labels(job.operation).observe(seconds)

    async def look(self) -> None:
        """Set the gauges; to NaN where the database does not answer, for then nobody knows."""
        self._look_inside()
        system = self.pools[Role.SYSTEM]
        try:
            [[in_flight, lag, unsealed, stuck]] = await look_up(system, _PRESENT)
            [[workers, breakers]] = await look_up(system, _FLEET)
            jobs = {row["state"]: row for row in await look_up(system, _JOBS)}
            readers = await look_up(system, _READERS)
        except Problem:
            in_flight = lag = unsealed = stuck = workers = breakers = _NOT_KNOWN
            jobs, readers = None, []
        self._set_lags(readers)
        self._set_jobs(jobs)
        self.metrics.workers_live.set(workers)
        self.metrics.breakers_open.set(breakers)
        self.metrics.steps_in_flight.set(in_flight)
        self.metrics.outbox_lag.set(lag)
        self.metrics.audit_lag.set(unsealed)
        self.metrics.jobs_stuck.set(stuck)

    def _look_inside(self) -> None:
        for queue, length in self.queues.items():
            self.metrics.queue.labels(queue).set(length())
        for role, pool in self.pools.items():
            used = pool.get_size() - pool.get_idle_size()
            self.metrics.connections.labels(role.name.lower(), "used").set(used)
            self.metrics.connections.labels(role.name.lower(), "most").set(pool.get_max_size())

    def _set_lags(self, readers: Iterable[Row]) -> None:
        for gauge, column in ((self.metrics.log_lag, "events"), (self.metrics.log_lag_seconds, "seconds")):
            gauge.clear()
            for row in readers:
                gauge.labels(row["consumer"]).set(row[column])

    def _set_jobs(self, rows: Mapping[str, Row] | None) -> None:
        """A state that no job is in is told as such. None: nobody knows."""
        for state in OPEN:
            count = _NOT_KNOWN if rows is None else rows[state]["jobs"] if state in rows else 0.0
            self.metrics.jobs_open.labels(state.value).set(count)
        waits = _NOT_KNOWN if rows is None else max((row["unclaimed"] for row in rows.values()), default=0.0)
        self.metrics.jobs_unclaimed.set(waits)


def _trace(job: Job) -> None:
    """The span that hangs below the request for the job, and above all that was done for it."""
    if job.finished_at is None:
        return
    about = {"spectrum.job_id": job.id, "spectrum.instance_id": job.instance_id, "spectrum.rescues": job.rescues}
    failed = (job.failure.code if job.failure else job.state.value) if job.state is not JobState.SUCCEEDED else ""
    name = f"job {job.operation}"
    tracing.tell(name, job.traceparent, job.created_at, job.finished_at, own=job.id, failed=failed, about=about)
    if job.started_at is not None:
        tracing.tell("wait for a worker", tracing.of_job(job), job.created_at, job.started_at)

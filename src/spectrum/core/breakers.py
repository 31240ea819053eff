"""When a target is left alone: a breaker per target, and the budget of retries towards it (DESIGN §3.13, P14). Pure.

Closed: calls go through. `THRESHOLD` failures in a row open it. Open: jobs wait without using attempts, longer each time it opens.
After the wait one probe goes through: one claim and one attempt of that job, or one attempt of a job that somebody holds. Its
success closes the breaker, its failure opens it again; where it tells nothing, the next one goes when its time is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from spectrum.core.ids import JobId

THRESHOLD = 5  # failures in a row
FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(seconds=60)
PROBE_TIME = timedelta(seconds=30)  # that a probe may take before another may be tried


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of a target's willingness to answer. `retry_at`: when the next probe may go. `probe`: the job that was claimed
    as the probe under way, and has begun no attempt yet. `version` is the row's, as it was read.
    """

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    openings: int = 0
    opened_at: datetime | None = None
    retry_at: datetime | None = None
    probe: JobId | None = None
    version: int = field(default=0, compare=False)

    def lets_through(self, now: datetime) -> bool:
        """Whether something may be begun: always while closed, else only the probe that is due."""
        return self.state is BreakerState.CLOSED or (self.retry_at is not None and self.retry_at <= now)

    def lets_begin(self, job_id: JobId, now: datetime) -> bool:
        """Whether an attempt of this job may be begun: as `lets_through`, and the one for which it was claimed as the probe."""
        return self.probe == job_id or self.lets_through(now)

    def claimed(self, job_id: JobId, now: datetime) -> Breaker:
        """A job was claimed: while not closed it is the one probe, and nobody else's turn comes before its time is over."""
        return self._probing(job_id, now)

    def begun(self, now: datetime) -> Breaker:
        """An attempt was begun: while not closed it is all of the probe, whoever may try next."""
        return self._probing(None, now)

    def _probing(self, probe: JobId | None, now: datetime) -> Breaker:
        if self.state is BreakerState.CLOSED:
            return self
        return replace(self, state=BreakerState.HALF_OPEN, retry_at=now + PROBE_TIME, probe=probe)

    def after(self, answered: bool, now: datetime) -> Breaker:
        """A call was answered, or failed because the target did not answer."""
        if answered:
            return Breaker() if self != Breaker() else self
        failures = self.failures + 1
        if self.state is BreakerState.CLOSED and failures < THRESHOLD:
            return replace(self, failures=failures)
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self.openings, 10))
        opened_at = self.opened_at or now
        return Breaker(BreakerState.OPEN, failures, self.openings + 1, opened_at, now + wait)

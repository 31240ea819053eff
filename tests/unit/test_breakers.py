"""A target that does not answer is left alone, and asked again by one probe at a time."""

from datetime import UTC, datetime, timedelta

from spectrum.core.breakers import FIRST_WAIT, LONGEST_WAIT, PROBE_TIME, THRESHOLD, Breaker, BreakerState
from spectrum.core.ids import JobId

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
JOB, OTHER = JobId("job_1"), JobId("job_2")


def failed(breaker: Breaker, times: int, now: datetime = NOON) -> Breaker:
    for _ in range(times):
        breaker = breaker.after(False, now)
    return breaker


def test_a_few_failures_are_put_up_with() -> None:
    breaker = failed(Breaker(), THRESHOLD - 1)
    assert breaker.lets_through(NOON)
    assert breaker.after(True, NOON) == Breaker()


def test_failures_in_a_row_open_it_for_a_while() -> None:
    breaker = failed(Breaker(), THRESHOLD)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.lets_through(NOON + FIRST_WAIT - timedelta(milliseconds=1))
    assert breaker.lets_through(NOON + FIRST_WAIT)


def test_only_one_probe_goes_through_at_a_time() -> None:
    later = NOON + FIRST_WAIT
    breaker = failed(Breaker(), THRESHOLD).claimed(JOB, later)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.lets_through(later)
    assert breaker.lets_through(later + PROBE_TIME)


def test_the_probe_is_one_attempt_of_the_job_that_was_claimed_for_it() -> None:
    later = NOON + FIRST_WAIT
    breaker = failed(Breaker(), THRESHOLD).claimed(JOB, later)

    assert breaker.lets_begin(JOB, later)
    assert not breaker.lets_begin(OTHER, later)
    assert not breaker.begun(later).lets_begin(JOB, later)


def test_an_attempt_that_begins_when_the_probe_is_due_is_the_probe() -> None:
    breaker, later = failed(Breaker(), THRESHOLD), NOON + FIRST_WAIT

    assert breaker.lets_begin(JOB, later)
    assert not breaker.begun(later).lets_begin(JOB, later)
    assert not breaker.begun(later).lets_through(later)


def test_a_probe_of_which_nothing_is_heard_holds_up_the_next_one_only_for_a_while() -> None:
    later = NOON + FIRST_WAIT
    for taken in (failed(Breaker(), THRESHOLD).claimed(JOB, later), failed(Breaker(), THRESHOLD).begun(later)):
        assert taken.lets_begin(OTHER, later + PROBE_TIME)
        assert not taken.claimed(OTHER, later + PROBE_TIME).lets_begin(JOB, later + PROBE_TIME)


def test_whatever_begins_changes_nothing_while_it_is_closed() -> None:
    assert Breaker().claimed(JOB, NOON) == Breaker().begun(NOON) == Breaker()


def test_a_probe_that_is_answered_closes_it() -> None:
    breaker = failed(Breaker(), THRESHOLD).claimed(JOB, NOON + FIRST_WAIT)
    assert breaker.after(True, NOON + FIRST_WAIT) == Breaker()


def test_every_failed_probe_makes_the_wait_longer_up_to_a_bound() -> None:
    breaker, now, waits = failed(Breaker(), THRESHOLD), NOON, []
    for _ in range(8):
        assert breaker.retry_at is not None
        waits.append(breaker.retry_at - now)
        now = breaker.retry_at
        breaker = breaker.claimed(JOB, now).after(False, now)
    assert waits == sorted(waits)
    assert waits[0] == FIRST_WAIT
    assert waits[-1] == LONGEST_WAIT


def test_it_remembers_since_when_the_target_is_away() -> None:
    breaker = failed(Breaker(), THRESHOLD)
    again = breaker.claimed(JOB, NOON + FIRST_WAIT).after(False, NOON + FIRST_WAIT)
    assert again.opened_at == NOON

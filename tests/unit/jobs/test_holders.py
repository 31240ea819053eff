"""Claims, releases, losses and the clock: how a job gets, keeps and loses its holder."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spectrum.core import breakers
from spectrum.core.errors import Problem
from spectrum.core.jobs.commands import Result, Verdict
from spectrum.core.jobs.table import JobState, Reason, StepState, WaitsFor
from spectrum.core.retry import CAP_SECONDS, LONGEST_PAUSE, backoff
from tests.unit.jobs.bench import LATER, OTHER, Bench, creating, running


def test_a_claim_raises_the_fence_and_ties_the_job_to_the_lease() -> None:
    bench = creating()
    before = bench.instance.counter

    holding = bench.claim()

    assert holding.job.fence == bench.instance.counter > before
    assert holding.job.owner is not None
    assert holding.job.state is JobState.RUNNING


def test_the_epoch_stands_in_front_of_every_fence() -> None:
    bench = creating()
    first = bench.claim().job.fence
    bench.release()
    bench.around = replace(bench.around, epoch=2)

    second = bench.claim().job.fence

    assert (first >> 32, second >> 32) == (1, 2)


def test_a_job_that_somebody_holds_cannot_be_claimed() -> None:
    bench = creating()
    bench.claim()

    with pytest.raises(Problem):
        bench.claim(OTHER)


def test_a_job_that_was_handed_back_for_a_while_cannot_be_claimed_before() -> None:
    bench = creating()
    bench.claim()
    bench.release(30.0)
    with pytest.raises(Problem):
        bench.claim(OTHER)
    bench.wait(31.0)

    assert bench.claim(OTHER).job.owned


def test_a_brake_stops_claims_but_not_those_of_an_unwinding_job() -> None:
    bench = creating()
    bench.around = replace(bench.around, braked="everything")
    with pytest.raises(Problem):
        bench.claim()
    bench.around = replace(bench.around, braked="")
    bench.run("disk")
    bench.lose()
    bench.cancel()
    bench.around = replace(bench.around, braked="everything")

    assert bench.claim().job.state is JobState.UNWINDING


@pytest.mark.parametrize("how", ["release", "lose"])
def test_the_end_of_ownership_raises_the_fence_and_clears_the_owner(how: str) -> None:
    bench = creating()
    fence = bench.claim().job.fence

    getattr(bench, how)()

    assert bench.active.fence > fence
    assert bench.active.owner is None
    assert bench.active.state is JobState.READY


def test_a_release_is_no_rescue_and_a_loss_is_one() -> None:
    bench = creating()
    bench.claim()
    bench.release()
    assert bench.active.rescues == 0
    bench.claim()
    bench.lose()

    assert bench.active.rescues == 1


def test_a_job_says_what_it_waits_for_after_it_was_handed_back() -> None:
    bench = creating()
    bench.claim()
    bench.release(30.0)

    waiting = bench.active.waiting
    assert waiting is not None
    assert waiting.what is WaitsFor.WORKER
    assert (waiting.until - bench.around.now).total_seconds() == 30


def test_a_worker_that_asks_for_the_far_future_parks_its_job_for_the_longest_pause_and_no_longer() -> None:
    bench = creating()
    bench.claim()
    bench.release(10 * 365 * 86_400.0)

    waiting = bench.active.waiting
    assert waiting is not None
    assert waiting.until - bench.around.now == LONGEST_PAUSE
    bench.wait(LONGEST_PAUSE.total_seconds())
    assert bench.claim(OTHER).job.owned


def test_the_longest_pause_is_as_long_as_what_retries_and_breakers_may_ask_for() -> None:
    told = backoff(100, "seed", told=1e12, cap=CAP_SECONDS)

    assert told <= LONGEST_PAUSE
    assert breakers.LONGEST_WAIT <= LONGEST_PAUSE


def test_a_loss_of_what_the_owner_no_longer_has_changes_nothing() -> None:
    bench = creating()
    fence = bench.claim().job.fence
    bench.release()
    before = bench.aggregate

    assert not bench.lose(fence=fence).changed
    assert bench.aggregate == before


def test_what_was_under_way_is_unknown_at_the_next_claim_and_uses_no_retry() -> None:
    bench = creating()
    bench.claim()
    bench.report(intents=("disk",))
    bench.lose()
    assert bench.step("disk").state is StepState.RUNNING

    bench.claim()

    assert bench.step("disk").state is StepState.UNKNOWN
    assert bench.step("disk").tries == 0
    assert not bench.step("disk").outstanding


def test_a_job_is_poison_after_three_rescues_without_a_new_outcome() -> None:
    bench = creating()
    bench.run("disk")
    job = bench.active
    for _ in range(3):
        bench.lose()
        bench.claim()
    assert bench.active.state is JobState.RUNNING

    bench.lose()

    assert bench.job(job).state is JobState.UNWINDING
    assert bench.job(job).reason is Reason.POISON
    assert bench.job(job).alone


def test_poison_is_taken_by_a_worker_that_holds_nothing_else() -> None:
    bench = creating()
    bench.run("disk")
    for _ in range(4):
        bench.lose()
        if bench.active.state is JobState.RUNNING or bench.active.state is JobState.READY:
            bench.claim()

    with pytest.raises(Problem):
        bench.claim(holds_others=True)
    assert bench.claim(holds_others=False).job.state is JobState.UNWINDING


def test_a_new_outcome_makes_rescues_count_from_none_again() -> None:
    bench = creating()
    bench.claim()
    for _ in range(3):
        bench.lose()
        bench.claim()
    bench.report(intents=("disk",))

    bench.report(bench.did("disk"))

    assert bench.active.rescues == 0


def test_a_loss_while_cancelling_unwinds() -> None:
    bench = creating()
    bench.run("disk")
    bench.cancel()

    bench.lose()

    assert bench.active.state is JobState.UNWINDING


def test_a_loss_while_unwinding_goes_on_unwinding_and_is_no_rescue() -> None:
    bench = creating()
    bench.run("disk")
    bench.cancel()
    bench.report(verdict=Verdict.ACKNOWLEDGED)
    bench.lose()

    assert bench.active.state is JobState.UNWINDING
    assert bench.active.rescues == 0
    assert bench.claim().job.state is JobState.UNWINDING


def test_an_attempt_that_passes_its_deadline_is_taken_away() -> None:
    bench = creating()
    bench.claim()
    bench.report(intents=("disk",))
    fence = bench.active.fence
    bench.wait(61.0)

    assert bench.tick().changed
    assert bench.active.owner is None
    assert bench.active.fence > fence
    assert bench.active.rescues == 1


def test_a_job_that_passes_its_deadline_unwinds_what_it_touched() -> None:
    bench = creating()
    bench.run("disk")
    bench.wait(1_001.0)
    bench.tick()

    assert bench.active.state is JobState.UNWINDING
    assert bench.active.reason is Reason.DEADLINE
    assert bench.active.owner is None
    assert bench.undo().state is JobState.FAILED


def test_an_untouched_job_that_passes_its_deadline_has_failed() -> None:
    bench = creating()
    job = bench.active
    bench.wait(1_001.0)
    bench.tick()

    assert bench.job(job).state is JobState.FAILED


def test_a_waiting_job_does_not_wait_for_ever() -> None:
    bench = running()
    bench.submit("stop")
    waiting = bench.submit("start", queue_seconds=60.0)
    bench.wait(61.0)
    bench.tick()

    assert bench.job(waiting).state is JobState.FAILED
    assert bench.job(waiting).reason is Reason.DEADLINE


def test_the_first_reason_stays() -> None:
    bench = creating()
    bench.run("disk")
    bench.cancel()
    bench.report(verdict=Verdict.ACKNOWLEDGED)
    bench.wait(400.0)
    bench.tick()

    assert bench.undo().state is JobState.CANCELLED


def test_deadlines_stand_still_while_they_could_not_be_met() -> None:
    bench = creating()
    bench.claim()
    bench.report(intents=("disk",))
    bench.lose_time(5_000.0)

    assert not bench.tick().changed
    bench.wait(61.0)
    assert bench.tick().changed
    assert bench.active.state is JobState.READY


def test_time_that_was_lost_before_a_job_began_is_not_given_to_it() -> None:
    bench = Bench()
    bench.lose_time(5_000.0)
    bench.submit("create", new=bench.instance)
    job = bench.active
    bench.wait(1_001.0)
    bench.tick()

    assert bench.job(job).state is JobState.FAILED


def test_an_observation_is_dropped_once_anything_has_moved() -> None:
    bench = running()
    fence = bench.instance.counter
    assert bench.observe().changed
    bench.submit("stop")
    assert not bench.observe().changed, "a job is active"
    bench.run()

    assert not bench.observe(fence=fence).changed


def test_a_release_under_an_old_fence_is_refused_and_kept_as_evidence() -> None:
    bench = creating()
    fence = bench.claim().job.fence
    bench.lose()
    bench.claim(OTHER)

    with pytest.raises(Problem) as problem:
        bench.release(fence=fence)

    assert problem.value.slug == "stale-fence"
    assert bench.refused is not None
    assert bench.refused.entries


def test_a_release_while_cancelling_is_an_acknowledgement() -> None:
    bench = creating()
    bench.run("disk")
    bench.report(intents=("web",))
    bench.report(bench.did("web", Result.ERROR, LATER))
    bench.cancel()

    bench.release()

    assert bench.active.state is JobState.UNWINDING
    assert bench.active.owner is None

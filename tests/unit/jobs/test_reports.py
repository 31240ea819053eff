"""What becomes of a holder's reports: fences, numbers, tokens, outcomes, and the intents that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spectrum.core.breakers import FIRST_WAIT, THRESHOLD, Breaker
from spectrum.core.errors import ErrorClass, Failure, Problem
from spectrum.core.jobs.commands import Outcome, Result, Verdict
from spectrum.core.jobs.table import JobState, Phase, Reason, StepState
from tests.unit.jobs.bench import ELSEWHERE, LATER, NEVER, OTHER, Bench, creating, running


def refusal(problem: pytest.ExceptionInfo[Problem]) -> str:
    return problem.value.slug


def claimed() -> Bench:
    bench = creating()
    bench.claim()
    return bench


def test_a_report_under_an_old_fence_is_refused_and_kept_as_evidence() -> None:
    bench = claimed()
    old = bench.active.fence
    bench.lose()
    bench.claim(OTHER)
    before = bench.aggregate

    with pytest.raises(Problem) as problem:
        bench.report(intents=("disk",), fence=old)

    assert refusal(problem) == "stale-fence"
    assert bench.aggregate is before
    assert bench.refused is not None
    assert [entry.action for entry in bench.refused.entries] == ["call.refused"]


def test_a_report_of_a_lease_that_does_not_hold_the_job_is_forbidden() -> None:
    bench = claimed()

    with pytest.raises(Problem) as problem:
        bench.report(intents=("disk",), lease=OTHER)

    assert refusal(problem) == "forbidden"


def test_a_worker_of_another_pool_is_told_nothing_not_even_by_the_repeat_of_a_report() -> None:
    bench = creating()
    job = bench.claim().job
    bench.report(intents=("disk",))

    with pytest.raises(Problem) as problem:
        bench.report(number=1, lease=OTHER, pool=ELSEWHERE, job=job)

    assert problem.value.slug == "forbidden"
    assert bench.refused is not None
    assert [entry.action for entry in bench.refused.entries] == ["call.refused"]


def test_a_worker_of_another_pool_hands_nothing_back() -> None:
    bench = creating()
    bench.claim()
    before = bench.aggregate

    with pytest.raises(Problem) as problem:
        bench.release(pool=ELSEWHERE)

    assert problem.value.slug == "forbidden"
    assert bench.aggregate == before


def test_a_gap_in_the_numbers_is_refused_with_the_number_to_send_again() -> None:
    bench = claimed()
    bench.report(intents=("disk",))

    with pytest.raises(Problem) as problem:
        bench.report(number=3)

    assert refusal(problem) == "report-gap"
    assert problem.value.extra["resend_from"] == 2


def test_a_repeated_report_changes_nothing_and_gets_the_state_that_it_made() -> None:
    bench = claimed()
    first = bench.report(intents=("disk",))
    before = bench.aggregate

    again = bench.report(intents=("disk",), number=1)

    assert again.job == first.job
    assert not again.gone
    assert bench.aggregate == before


def test_a_report_that_is_repeated_after_a_release_is_answered_and_its_sender_told_to_let_go() -> None:
    bench = claimed()
    bench.report(intents=("disk",))
    fence = bench.active.fence
    bench.release()

    again = bench.report(number=1, fence=fence)

    assert again.gone


def test_a_report_that_is_repeated_after_the_end_is_answered() -> None:
    bench = claimed()
    job = bench.run()

    assert job.state is JobState.SUCCEEDED
    again = bench.report(number=job.last_report.number, job=job)
    assert again.gone
    assert again.job.state is JobState.SUCCEEDED


def test_an_intent_raises_the_counter_and_its_token_is_the_new_reading() -> None:
    bench = claimed()
    fence = bench.active.fence

    bench.report(intents=("disk",))

    assert bench.step("disk").token == bench.instance.counter > fence
    assert bench.step("disk").outstanding
    assert bench.step("disk").state is StepState.RUNNING


def test_an_outcome_of_another_token_is_evidence_only() -> None:
    bench = claimed()
    bench.report(intents=("disk",))

    bench.report(replace(bench.did("disk"), token=bench.step("disk").token - 1))

    assert bench.step("disk").state is StepState.RUNNING
    assert "outcome.evidence" in [entry.action for entry in bench.consequences.entries]


def test_an_outcome_of_another_phase_is_evidence_only() -> None:
    bench = claimed()
    bench.report(intents=("disk",))

    bench.report(replace(bench.did("disk"), phase=Phase.UNDO))

    assert bench.step("disk").state is StepState.RUNNING


def test_outcome_and_next_intent_travel_in_one_report() -> None:
    bench = claimed()
    bench.report(intents=("disk",))

    answer = bench.report(bench.did("disk"), intents=("web",))

    assert not answer.refused
    assert (bench.step("disk").state, bench.step("web").state) == (StepState.DONE, StepState.RUNNING)


def test_an_intent_is_refused_until_what_it_needs_is_done() -> None:
    bench = claimed()

    assert bench.report(intents=("web",)).refused == {"web": "what it needs is not done"}
    assert not bench.step("web").touched


def test_a_second_intent_is_refused_while_an_attempt_is_outstanding() -> None:
    bench = claimed()
    bench.report(intents=("disk",))

    assert bench.report(intents=("disk",)).refused == {"disk": "an attempt of it is outstanding"}


def test_an_intent_is_refused_in_cancelling_and_its_number_is_used_up() -> None:
    bench = claimed()
    bench.report(intents=("disk",))
    bench.cancel()

    answer = bench.report(bench.did("disk"), intents=("web",))

    assert answer.refused == {"web": "the job is cancelling"}
    assert bench.step("disk").state is StepState.DONE
    assert bench.active.last_report.number == 2


def test_what_is_destructive_is_refused_while_a_brake_is_on() -> None:
    bench = running()
    bench.submit("stop")
    bench.claim()
    bench.around = replace(bench.around, braked="everything")

    assert bench.report(intents=("down",)).refused == {"down": "brake: everything"}


def test_an_effect_is_refused_while_the_breaker_of_the_target_is_open() -> None:
    bench = claimed()
    bench.around = replace(bench.around, breaker=silent(bench))

    assert bench.report(intents=("disk",)).refused == {"disk": "breaker: the target does not answer"}


def test_a_job_on_a_target_that_does_not_answer_is_given_to_nobody_but_the_probe() -> None:
    bench = creating()
    bench.around = replace(bench.around, breaker=silent(bench))

    with pytest.raises(Problem, match="breaker is open"):
        bench.claim()
    bench.wait(FIRST_WAIT.total_seconds())
    bench.claim()

    assert bench.active.owned


def test_one_attempt_goes_through_an_open_breaker_when_the_probe_is_due() -> None:
    bench = claimed()
    bench.around = replace(bench.around, breaker=silent(bench))
    bench.wait(FIRST_WAIT.total_seconds())

    assert bench.report(intents=("disk",)).refused == {}
    assert not breaker_after(bench).lets_through(bench.around.now)
    another = claimed()
    another.around = replace(bench.around, breaker=breaker_after(bench))
    assert another.report(intents=("disk",)).refused == {"disk": "breaker: the target does not answer"}


def test_the_job_that_was_claimed_as_the_probe_may_begin_one_attempt_and_more_once_that_was_answered() -> None:
    bench = creating()
    bench.around = replace(bench.around, breaker=silent(bench))
    bench.wait(FIRST_WAIT.total_seconds())
    bench.claim()
    bench.around = replace(bench.around, breaker=breaker_after(bench))

    assert bench.report(intents=("disk",)).refused == {}
    bench.around = replace(bench.around, breaker=breaker_after(bench))

    assert bench.report(bench.did("disk"), intents=("web",)).refused == {}
    assert breaker_after(bench) == Breaker()


def test_the_way_back_is_left_alone_too_while_the_target_does_not_answer() -> None:
    bench = claimed()
    bench.report(intents=("disk",))
    bench.report(bench.did("disk", Result.ERROR, NEVER))
    bench.around = replace(bench.around, breaker=silent(bench))

    assert bench.report(intents=("disk",)).refused == {"disk": "breaker: the target does not answer"}
    bench.wait(FIRST_WAIT.total_seconds())
    assert bench.report(intents=("disk",)).refused == {}


def breaker_after(bench: Bench) -> Breaker:
    """The target's breaker as the last command left it."""
    assert bench.consequences.breaker is not None
    return bench.consequences.breaker


def silent(bench: Bench) -> Breaker:
    """The breaker of a target that has just failed too often."""
    breaker = Breaker()
    for _ in range(THRESHOLD):
        breaker = breaker.after(False, bench.around.now)
    return breaker


def test_a_retryable_error_is_tried_again_later_until_its_budget_is_used_up() -> None:
    bench = claimed()
    for _ in range(2):
        bench.report(intents=("disk",))
        bench.report(bench.did("disk", Result.ERROR, LATER))
        retry_at = bench.step("disk").retry_at
        assert bench.step("disk").state is StepState.RETRYING
        assert retry_at is not None
        assert retry_at > bench.around.now

    bench.report(intents=("disk",))
    job = bench.active
    bench.report(bench.did("disk", Result.ERROR, LATER))

    assert bench.job(job).state is JobState.UNWINDING
    assert bench.job(job).reason is Reason.STEP_FAILED


def test_an_outcome_without_an_attempt_speaks_of_nothing() -> None:
    bench = running()
    bench.submit("wipe")
    bench.claim()
    job = bench.active

    bench.report(Outcome("down", Phase.DO, 0, Result.DONE))

    assert bench.job(job).state is JobState.RUNNING
    assert bench.step("down").state is StepState.PENDING


def test_a_step_that_the_target_refuses_before_its_first_intent_ends_the_job_untouched() -> None:
    bench = claimed()
    job = bench.active

    bench.report(Outcome("disk", Phase.DO, 0, Result.ERROR, NEVER))

    assert bench.job(job).state is JobState.FAILED
    assert bench.job(job).reason is Reason.STEP_FAILED
    assert not bench.job(job).touched


def test_a_step_that_fails_for_good_unwinds_every_touched_step_also_its_own() -> None:
    bench = claimed()
    bench.run("disk")
    bench.report(intents=("web",))
    bench.report(bench.did("web", Result.ERROR, NEVER))

    states = {step.name: step.state for step in bench.active.steps}
    assert states == {"disk": StepState.UNDOING, "web": StepState.UNDOING, "check": StepState.SKIPPED}


def test_a_call_that_gave_no_answer_is_unknown_and_uses_no_retry() -> None:
    bench = claimed()
    bench.report(intents=("disk",))

    bench.report(bench.did("disk", Result.TIMEOUT, LATER))

    assert bench.step("disk").state is StepState.UNKNOWN
    assert bench.step("disk").tries == 0


def unknown() -> Bench:
    bench = claimed()
    bench.report(intents=("disk",))
    bench.lose()
    bench.claim()
    return bench


def test_an_unknown_step_is_not_begun_again_before_it_was_seen_absent() -> None:
    bench = unknown()

    assert bench.report(intents=("disk",)).refused == {"disk": "its last attempt is unknown and was not seen absent"}
    assert not bench.report(bench.did("disk", Result.ABSENT), intents=("disk",)).refused


def test_what_is_seen_absent_is_done_again_under_the_same_key_and_a_new_token() -> None:
    bench = unknown()
    before = bench.step("disk")

    bench.report(bench.did("disk", Result.ABSENT), intents=("disk",))

    after = bench.step("disk")
    assert after.effect_key == before.effect_key
    assert after.token > before.token
    assert bench.consequences.opened[0].cause == "rescue"


def test_what_is_found_in_place_is_adopted() -> None:
    bench = unknown()

    bench.report(bench.did("disk", Result.ADOPTED))

    assert bench.step("disk").state is StepState.DONE
    assert [attempt.outcome for attempt in bench.consequences.opened] == ["adopted"]


def test_what_cannot_be_decided_is_taken_away_and_made_anew_under_a_key_that_grew() -> None:
    bench = unknown()
    first = bench.step("disk").effect_key

    bench.report(bench.did("disk", Result.UNDECIDABLE), intents=())
    assert bench.step("disk").state is StepState.REPLACING
    bench.report(intents=("disk",))
    bench.report(bench.did("disk"))

    assert bench.step("disk").state is StepState.PENDING
    assert (first, bench.step("disk").effect_key) == ("data.volume.1.1", "data.volume.1.2")


def test_a_key_that_was_replaced_stays_wanted_absent_until_purge() -> None:
    bench = unknown()
    bench.report(bench.did("disk", Result.UNDECIDABLE))
    bench.report(intents=("disk",))
    bench.report(bench.did("disk"))
    bench.run("disk", "web", "check")

    old = bench.aggregate.effects["data/volume", "data.volume.1.1"]
    assert (old.present, old.replaced) == (False, True)
    assert bench.wanted() == {"data/volume": "data.volume.1.2", "web/container": "web.container.1.1"}


def test_a_step_that_wants_its_slot_empty_is_done_again_without_a_key() -> None:
    bench = running()
    bench.submit("stop")
    bench.claim()
    bench.report(intents=("down",))
    bench.lose()
    bench.claim()
    bench.report(bench.did("down", Result.UNDECIDABLE))
    bench.report(intents=("down",))
    bench.report(bench.did("down"))
    bench.run("down")

    assert bench.wanted() == {"data/volume": "data.volume.1.1"}


def test_what_was_there_before_the_job_is_never_replaced_on_a_guess() -> None:
    bench = running()
    bench.submit("keep")
    bench.claim()
    bench.report(intents=("keep",))
    bench.lose()
    bench.claim()

    bench.report(bench.did("keep", Result.UNDECIDABLE))

    assert bench.step("keep").state is StepState.UNKNOWN
    assert bench.step("keep").retry_at is not None


def test_an_irreversible_step_that_cannot_be_decided_fails() -> None:
    bench = running()
    bench.submit("wipe")
    bench.run("down")
    bench.report(intents=("wipe",))
    bench.lose()
    bench.claim()
    job = bench.active

    bench.report(bench.did("wipe", Result.UNDECIDABLE))

    assert bench.job(job).state is JobState.UNWINDING
    failure = bench.job(job).failure
    assert failure is not None
    assert "can't be decided" in failure.message


def test_every_new_making_of_a_slot_grows_its_effect_key() -> None:
    bench = running()
    keys = [bench.wanted()["web/container"]]
    for _ in range(2):
        bench.submit("stop")
        bench.run()
        bench.submit("start")
        bench.run()
        keys.append(bench.wanted()["web/container"])

    assert keys == ["web.container.1.1", "web.container.1.2", "web.container.1.3"]


def test_an_unwinding_job_that_hears_of_a_do_turns_its_step_around() -> None:
    bench = claimed()
    bench.run("disk")
    bench.report(intents=("web",))
    late = bench.did("web")
    bench.lose()
    bench.cancel()
    bench.claim()

    bench.report(late)

    assert bench.step("web").state is StepState.UNDOING


def test_a_cancel_is_acknowledged_only_once_no_call_is_outstanding() -> None:
    bench = claimed()
    bench.report(intents=("disk",))
    bench.cancel()

    assert "acknowledged" in bench.report(verdict=Verdict.ACKNOWLEDGED).refused
    bench.report(bench.did("disk"), verdict=Verdict.ACKNOWLEDGED)

    assert bench.active.state is JobState.UNWINDING


def test_a_cancel_that_comes_too_late_lets_the_job_succeed() -> None:
    bench = claimed()
    bench.run("disk", "web")
    bench.report(intents=("check",))
    job = bench.active
    bench.cancel()

    bench.report(bench.did("check"))

    assert bench.job(job).state is JobState.SUCCEEDED
    assert bench.job(job).reason is None


def test_the_unwound_verdict_is_refused_while_steps_are_still_to_be_undone() -> None:
    bench = claimed()
    bench.run("disk")
    bench.cancel()
    bench.report(verdict=Verdict.ACKNOWLEDGED)

    assert "unwound" in bench.report(verdict=Verdict.UNWOUND).refused
    assert bench.active.state is JobState.UNWINDING


def causes(bench: Bench, *hows: str) -> list[str]:
    """The causes of attempts at the present step `disk`, each beginning after the one before has ended like this."""
    found = []
    for how in hows:
        bench.report(intents=("disk",))
        found.append(bench.consequences.opened[0].cause)
        match how:
            case "lost":
                bench.lose()
                bench.claim()
            case "done":
                bench.report(bench.did("disk"))
            case _:
                bench.report(bench.did("disk", Result(how), LATER))
        bench.wait(61.0)
    return found


def test_an_undo_is_the_first_attempt_of_its_own_and_what_follows_says_why() -> None:
    bench = creating()
    bench.claim()
    assert causes(bench, "done") == ["first"]
    bench.cancel()
    bench.report(verdict=Verdict.ACKNOWLEDGED)

    assert causes(bench, "error", "lost", "timeout", "done") == ["first", "retry", "rescue", "retry"]


def test_an_undo_that_is_reopened_is_a_retry() -> None:
    bench = creating()
    bench.run("disk")
    bench.cancel()
    bench.report(verdict=Verdict.ACKNOWLEDGED)
    causes(bench, "done")
    bench.report(verdict=Verdict.REOPENED, reopen=("disk",))
    bench.wait(61.0)

    assert causes(bench, "done") == ["retry"]


def test_taking_an_undecidable_attempt_away_is_a_first_attempt_too() -> None:
    bench = creating()
    bench.claim()
    bench.report(intents=("disk",))
    bench.lose()
    bench.claim()
    bench.report(bench.did("disk", Result.UNDECIDABLE))

    assert causes(bench, "error", "lost", "done") == ["first", "retry", "rescue"]
    assert causes(bench, "done") == ["retry"], "what it takes the place of was the first"


def test_an_undo_waits_until_what_was_built_on_its_step_is_undone() -> None:
    bench = claimed()
    bench.run("disk", "web")
    bench.cancel()
    bench.report(verdict=Verdict.ACKNOWLEDGED)

    assert bench.report(intents=("disk",)).refused == {"disk": "what was built on it is not undone yet"}


def test_a_slot_that_is_not_as_before_is_undone_again_later_and_later() -> None:
    bench = claimed()
    bench.run("disk")
    bench.cancel()
    bench.report(verdict=Verdict.ACKNOWLEDGED)
    bench.report(intents=("disk",))
    bench.report(bench.did("disk"))

    bench.report(verdict=Verdict.REOPENED, reopen=("disk",))

    step = bench.step("disk")
    assert (step.state, step.undo_tries) == (StepState.UNDOING, 1)
    assert step.retry_at is not None
    assert step.retry_at > bench.around.now


@pytest.mark.parametrize("kind", [kind for kind in ErrorClass if kind.retryable])
def test_an_undo_that_may_work_later_is_tried_without_end(kind: ErrorClass) -> None:
    bench = claimed()
    bench.run("disk")
    bench.cancel()
    bench.report(verdict=Verdict.ACKNOWLEDGED)
    for _ in range(20):
        bench.report(intents=("disk",))
        bench.report(bench.did("disk", Result.ERROR, Failure(kind, "away", "It is away.")))

    assert bench.step("disk").state is StepState.UNDOING


def test_an_undo_that_failed_for_good_leaves_residue_and_the_rest_is_undone() -> None:
    bench = claimed()
    bench.run("disk", "web")
    bench.cancel()
    bench.report(verdict=Verdict.ACKNOWLEDGED)
    bench.report(intents=("web",))
    bench.report(bench.did("web", Result.ERROR, NEVER))
    assert bench.step("web").state is StepState.UNDO_FAILED

    job = bench.undo()

    assert job.residue == ("web/container",)
    assert job.step("disk") is not None
    assert [step.state for step in job.steps] == [StepState.UNDONE, StepState.UNDO_FAILED, StepState.SKIPPED]

"""Submit, the queue behind the active job, cancel, and who may act on an instance that is held."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spectrum.core.errors import Problem
from spectrum.core.jobs.commands import Result, Submit, Submitted, Verdict
from spectrum.core.jobs.model import Job, Spec
from spectrum.core.jobs.table import Desired, Hold, JobState, Lifecycle, Reason, WaitsFor
from tests.unit.jobs.bench import (
    CATALOG,
    INSTANCE,
    LATER,
    NEVER,
    ORGANIZATION,
    RELEASE,
    SPEC,
    Bench,
    creating,
    running,
)
from tests.unit.jobs.test_quarantine import quarantined


def test_a_job_is_planned_when_it_is_promoted_not_when_it_is_submitted() -> None:
    bench = creating()
    waiting = bench.submit("stop")
    assert waiting.state is JobState.WAITING
    assert waiting.steps == ()

    bench.run()

    assert [step.name for step in bench.job(waiting).steps] == ["down"]
    assert bench.job(waiting).baseline == {"web/container": "web.container.1.1"}


def test_an_unknown_operation_is_not_available() -> None:
    with pytest.raises(Problem) as problem:
        running().submit("teleport")

    assert problem.value.slug == "operation-not-available"


def test_an_operation_is_refused_from_a_lifecycle_that_it_is_not_allowed_from() -> None:
    bench = running()

    with pytest.raises(Problem) as problem:
        bench.submit("start")

    assert problem.value.slug == "not-allowed-now"
    assert problem.value.extra["lifecycle"] == "running"


def test_behind_an_active_job_it_waits_to_see_what_that_makes_of_the_instance() -> None:
    bench = running()
    bench.submit("stop")

    waiting = bench.submit("start")

    assert waiting.state is JobState.WAITING
    assert waiting.waiting is not None
    assert waiting.waiting.what is WaitsFor.QUEUE
    assert waiting.waiting.holder == bench.active.id


def test_a_generation_that_has_moved_on_is_a_failed_precondition() -> None:
    bench = running()

    with pytest.raises(Problem) as problem:
        bench.submit("stop", expected_generation=bench.instance.generation - 1)

    assert problem.value.slug == "precondition-failed"


def test_the_queue_of_an_instance_has_an_end() -> None:
    bench = creating()
    for _ in range(16):
        bench.submit("stop")

    with pytest.raises(Problem) as problem:
        bench.submit("stop")

    assert problem.value.slug == "instance-busy"


def test_the_same_job_again_is_the_same_job() -> None:
    bench = creating()
    first = bench.active
    before = bench.aggregate

    answer = bench.apply(
        Submit(
            id="again",
            instance_id=INSTANCE,
            organization_id=ORGANIZATION,
            actor="vendor:ada",
            job_id=first.id,
            operation="create",
            operation_version=1,
        )
    )

    assert isinstance(answer, Submitted)
    assert answer.attached
    assert answer.job == first
    assert bench.aggregate == before


# ---- promotion


def test_the_end_of_a_job_and_the_promotion_of_the_next_are_one_decision() -> None:
    bench = creating()
    waiting = bench.submit("stop")

    bench.run()

    assert bench.job(waiting).state is JobState.READY
    assert bench.instance.active_job_id == waiting.id
    assert [hint.job_id for hint in bench.consequences.hints] == [waiting.id]


def test_a_promotion_that_ends_terminal_goes_on_to_the_next_waiter() -> None:
    bench = running()
    bench.submit("stop")
    useless = bench.submit("stop")
    after = bench.submit("start")

    bench.run()

    assert bench.job(useless).state is JobState.FAILED
    assert bench.job(useless).reason is Reason.NOT_ALLOWED
    assert bench.job(after).state is JobState.READY


def test_an_operation_that_cannot_even_be_planned_does_not_keep_the_job_before_it_from_ending() -> None:
    bench = running()
    stop = bench.submit("stop")
    broken = bench.submit("keep")
    bench.aggregate = replace(bench.aggregate, effects={})
    bench.run()

    assert bench.job(stop).state is JobState.SUCCEEDED
    assert bench.job(broken).state is JobState.FAILED
    assert bench.job(broken).reason is Reason.INVALID


def test_a_waiter_that_nobody_promoted_is_promoted_by_the_clock() -> None:
    bench = creating()
    waiting = bench.submit("stop")
    bench.run()
    jobs = {**bench.aggregate.jobs, waiting.id: replace(bench.job(waiting), state=JobState.WAITING, steps=())}
    stranded = replace(bench.instance, active_job_id=None)
    bench.aggregate = replace(bench.aggregate, instance=stranded, jobs=jobs)

    assert bench.tick().changed

    assert bench.job(waiting).state is JobState.READY


# ---- delete


def test_a_delete_asks_the_active_job_to_cancel_and_goes_to_the_front() -> None:
    bench = creating()
    bench.run("disk")
    bench.submit("stop")

    delete = bench.submit("delete")

    create = bench.active
    assert create.operation == "create"
    assert create.state is JobState.CANCELLING
    bench.report(verdict=Verdict.ACKNOWLEDGED)
    bench.undo()
    assert bench.job(create).state is JobState.CANCELLED
    assert bench.active.id == delete.id


def test_a_second_delete_attaches_to_the_first() -> None:
    bench = running()
    first = bench.submit("delete")
    jobs = len(bench.aggregate.jobs)

    assert bench.submit("delete").id == first.id
    assert len(bench.aggregate.jobs) == jobs


@pytest.mark.parametrize("held", [True, False])
def test_a_delete_does_not_attach_to_one_that_is_on_its_way_back(held: bool) -> None:
    bench = running()
    first = bench.submit("delete")
    bench.claim()
    bench.report(intents=("down",))
    if not held:
        bench.lose()
    bench.cancel(first)

    second = bench.submit("delete")

    assert second.id != first.id
    if held:
        bench.report(bench.did("down", Result.ERROR, LATER), verdict=Verdict.ACKNOWLEDGED)
    bench.undo()
    assert bench.job(first).state is JobState.CANCELLED
    bench.run()
    assert bench.instance.lifecycle is Lifecycle.DELETED


def test_what_is_refused_after_a_delete_names_the_ways_back_and_on() -> None:
    bench = running()
    bench.submit("delete")
    bench.run()

    with pytest.raises(Problem) as problem:
        bench.submit("delete")

    assert "spectrum instance undelete" in problem.value.detail
    assert "spectrum instance purge" in problem.value.detail


def test_who_waited_behind_a_delete_that_succeeds_ends_instance_deleted() -> None:
    bench = running()
    bench.submit("stop")
    waiting = bench.submit("start")
    bench.submit("delete")
    bench.run()

    assert bench.instance.lifecycle is Lifecycle.DELETED
    assert bench.job(waiting).state is JobState.FAILED
    assert bench.job(waiting).reason is Reason.INSTANCE_DELETED


def test_a_delete_does_not_cancel_a_job_that_has_no_way_back() -> None:
    bench = running()
    bench.submit("wipe")
    bench.run("down")
    bench.report(intents=("wipe",))

    delete = bench.submit("delete")

    assert bench.active.state is JobState.RUNNING
    assert bench.job(delete).state is JobState.WAITING


def test_a_delete_that_succeeds_says_until_when_its_data_is_kept() -> None:
    bench = running()
    bench.submit("delete", parameters={"retention_seconds": 90.0})
    bench.run()

    assert bench.instance.deleted_at == bench.around.now
    assert bench.instance.purge_at is not None
    assert (bench.instance.purge_at - bench.around.now).total_seconds() == 90


# ---- purges that the clock asks for


def _deleted(seconds: float) -> Bench:
    bench = running()
    bench.submit("delete", parameters={"retention_seconds": seconds})
    bench.run()
    return bench


def test_a_purge_that_is_not_due_any_more_is_refused_to_the_clock() -> None:
    """It looked; the instance was undeleted and deleted again; only then it asks."""
    bench = _deleted(90.0)
    bench.wait(89.0)

    with pytest.raises(Problem) as problem:
        bench.submit("purge", if_purge_is_due=True)

    assert problem.value.slug == "not-allowed-now"
    bench.wait(1.0)
    assert bench.submit("purge", if_purge_is_due=True).state is JobState.READY


def test_the_clock_does_not_ask_for_a_purge_beside_another_job() -> None:
    bench = _deleted(0.0)
    bench.submit("purge", if_purge_is_due=True)

    with pytest.raises(Problem):
        bench.submit("purge", if_purge_is_due=True)


def test_a_purge_that_failed_is_not_due_again_at_once() -> None:
    bench = _deleted(0.0)
    job = bench.submit("purge", if_purge_is_due=True)
    bench.claim()
    bench.report(intents=("wipe",))
    bench.report(bench.did("wipe", Result.ERROR, NEVER))
    assert bench.job(job).state is JobState.FAILED

    assert bench.instance.purge_at is not None
    assert bench.instance.purge_at > bench.around.now
    bench.wait((bench.instance.purge_at - bench.around.now).total_seconds())
    bench.submit("purge", if_purge_is_due=True)


# ---- cancel


def test_a_waiting_job_and_an_untouched_one_are_cancelled_at_once() -> None:
    bench = creating()
    waiting = bench.submit("stop")
    create = bench.active

    bench.cancel(waiting)
    bench.cancel(create)

    assert bench.job(waiting).state is JobState.CANCELLED
    assert bench.job(create).state is JobState.CANCELLED
    assert bench.instance.lifecycle is Lifecycle.FAILED


def test_a_touched_job_that_nobody_holds_unwinds_when_it_is_cancelled() -> None:
    bench = creating()
    bench.run("disk")
    bench.release()

    bench.cancel()

    assert bench.active.state is JobState.UNWINDING
    assert bench.undo().state is JobState.CANCELLED


def test_a_cancel_is_refused_after_an_irreversible_intent() -> None:
    bench = running()
    bench.submit("wipe")
    bench.run("down")
    bench.report(intents=("wipe",))

    with pytest.raises(Problem) as problem:
        bench.cancel()

    assert problem.value.slug == "not-allowed-now"
    assert "wipe" in problem.value.detail


def test_a_repeated_cancel_changes_nothing() -> None:
    bench = creating()
    bench.run("disk")
    assert bench.cancel().changed
    before = bench.aggregate

    assert not bench.cancel().changed
    assert bench.aggregate == before


def test_a_job_that_has_ended_cannot_be_cancelled() -> None:
    bench = creating()
    job = bench.run()

    with pytest.raises(Problem):
        bench.cancel(job)


# ---- generations


def _put(bench: Bench) -> Job:
    return bench.submit("stop", spec=Spec("hello", "2", RELEASE, "small", desired_state=Desired.STOPPED))


def test_a_new_spec_is_the_next_generation_and_is_accepted_when_its_job_succeeds() -> None:
    bench = running()
    assert (bench.instance.generation, bench.instance.accepted_generation) == (1, 1)

    job = _put(bench)
    assert (bench.instance.generation, bench.instance.requested) == (2, job.spec)
    assert bench.instance.accepted == SPEC
    bench.run()

    assert bench.instance.accepted == job.spec
    assert (bench.instance.accepted_generation, bench.instance.rejected_generation) == (2, 0)


def test_the_generation_of_a_failed_job_is_rejected_and_the_accepted_one_stays() -> None:
    bench = running()
    _put(bench)
    bench.run_out_of_luck("down")

    assert bench.instance.accepted == SPEC
    assert (bench.instance.accepted_generation, bench.instance.rejected_generation) == (1, 2)


# ---- holds


@pytest.mark.parametrize("operation", [name for (name, _), each in CATALOG.items() if not each.on_hold])
def test_a_quarantined_instance_takes_no_operation_but_those_that_clear_it(operation: str) -> None:
    bench = quarantined()

    with pytest.raises(Problem) as problem:
        bench.submit(operation)

    assert problem.value.slug == "not-allowed-now"
    assert problem.value.extra["hold"] == "quarantined"


@pytest.mark.parametrize("operation", ["resolve", "delete"])
def test_resolve_and_delete_clear_a_quarantine(operation: str) -> None:
    bench = quarantined()
    bench.submit(operation)
    bench.run()

    assert bench.instance.hold is Hold.NONE


@pytest.mark.parametrize("busy", [False, True], ids=["at rest", "busy"])
def test_a_resolve_is_refused_where_there_is_no_hold(busy: bool) -> None:
    bench = running()
    if busy:
        bench.submit("stop")

    with pytest.raises(Problem) as problem:
        bench.submit("resolve")

    assert problem.value.slug == "not-allowed-now"
    assert problem.value.extra["hold"] == "none"


def test_a_resolve_that_waited_behind_another_that_lifted_the_hold_is_not_begun() -> None:
    bench = quarantined()
    bench.submit("resolve")
    second = bench.submit("resolve")
    bench.run()

    assert bench.job(second).state is JobState.FAILED
    assert bench.job(second).reason is Reason.NOT_ALLOWED


def test_who_waits_when_the_instance_is_put_on_hold_ends_instance_held() -> None:
    bench = running()
    bench.submit("stop")
    waiting = bench.submit("start")
    bench.leave_residue("down")

    assert bench.instance.hold is Hold.QUARANTINED
    assert bench.job(waiting).state is JobState.FAILED
    assert bench.job(waiting).reason is Reason.INSTANCE_HELD


def test_a_waiter_that_one_tick_refuses_or_promotes_is_not_looked_at_a_second_time_as_it_was() -> None:
    """The unwinding of the first job and the wait of the second pass their deadlines in the same tick."""
    bench = running()
    stopped = bench.submit("stop")
    waiting = bench.submit("start")
    bench.claim()
    bench.report(intents=("down",))
    bench.cancel(stopped)
    bench.lose()
    bench.wait(5_000.0)
    bench.tick()

    assert bench.instance.hold is Hold.QUARANTINED
    assert bench.job(waiting).reason is Reason.INSTANCE_HELD
    assert [fact.data["job_id"] for fact in bench.facts if fact.type == "job.failed"] == [stopped.id, waiting.id]

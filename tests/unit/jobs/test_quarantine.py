"""Residue: what an undo could not bring back, and what becomes of the instance."""

from __future__ import annotations

from spectrum.core.jobs.table import Hold, JobState, Lifecycle, Reason
from tests.unit.jobs.bench import Bench, creating, running


def quarantined() -> Bench:
    """A running instance whose stop failed for good, and whose undo did too."""
    bench = running()
    bench.submit("stop")
    bench.leave_residue("down")
    return bench


def test_an_undo_that_failed_for_good_quarantines_the_instance_with_its_residue() -> None:
    bench = quarantined()

    assert bench.instance.hold is Hold.QUARANTINED
    assert bench.instance.lifecycle is Lifecycle.RUNNING
    fact = next(fact for fact in bench.facts if fact.type == "instance.quarantined")
    assert fact.data["residue"] == ["web/container"]


def test_the_job_of_a_residue_fails_and_says_why_it_turned_back() -> None:
    bench = creating()
    bench.run("disk")
    job = bench.active
    bench.leave_residue("web")

    assert bench.job(job).state is JobState.FAILED
    assert bench.job(job).reason is Reason.STEP_FAILED
    failure = bench.job(job).failure
    assert failure is not None
    assert "Step web" in failure.message


def test_the_effects_table_still_wants_what_was_there_before() -> None:
    assert quarantined().wanted() == {"data/volume": "data.volume.1.1", "web/container": "web.container.1.1"}


def test_an_unwinding_that_takes_too_long_ends_with_all_that_is_not_undone() -> None:
    bench = creating()
    bench.run("disk", "web")
    job = bench.active
    bench.lose()
    bench.cancel()
    bench.wait(501.0)
    bench.tick()

    assert bench.job(job).state is JobState.FAILED
    assert bench.job(job).residue == ("data/volume", "web/container")
    assert bench.instance.hold is Hold.QUARANTINED


def test_an_unwinding_that_nobody_saw_to_hold_ends_in_quarantine_too() -> None:
    """Every undo is reported done, but the post-condition was never seen: nothing is known for sure."""
    bench = creating()
    bench.run("disk")
    job = bench.active
    bench.release()
    bench.cancel()
    bench.claim()
    bench.report(intents=("disk",))
    bench.report(bench.did("disk"))
    bench.wait(501.0)
    bench.tick()

    assert bench.job(job).state is JobState.FAILED
    assert bench.job(job).residue == ("data/volume",)
    assert bench.instance.hold is Hold.QUARANTINED


def test_what_only_goes_forward_fails_with_its_residue_without_a_quarantine_and_may_be_asked_again() -> None:
    bench = running()
    bench.submit("delete")
    bench.run()
    bench.submit("purge")
    job = bench.active
    bench.claim()
    bench.report(intents=("wipe",))
    bench.wait(1_001.0)
    bench.tick()

    assert bench.job(job).state is JobState.FAILED
    assert bench.job(job).residue == ("data/volume",)
    assert bench.instance.hold is Hold.NONE
    bench.submit("purge")
    assert bench.run().state is JobState.SUCCEEDED
    assert bench.instance.lifecycle is Lifecycle.PURGED
    assert bench.aggregate.effects == {}

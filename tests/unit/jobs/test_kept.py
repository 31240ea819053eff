"""What a copy keeps of aggregates: believed in their version, in this run of the database, and only so many."""

from __future__ import annotations

from dataclasses import replace

from spectrum.core.ids import InstanceId
from spectrum.core.jobs.kept import Kept
from spectrum.core.jobs.model import Aggregate
from spectrum.core.jobs.table import JobState
from tests.unit.jobs.bench import Bench


def _made(version: int = 3, instance_id: str = "ins_1") -> Aggregate:
    made = Bench().aggregate
    return replace(made, instance=replace(made.instance, id=InstanceId(instance_id), version=version))


def test_what_was_committed_is_known_in_its_version_and_in_no_other() -> None:
    kept = Kept()
    made = _made(version=3)
    kept.keep("", [made])
    assert kept.known("", made.instance.id, 3) == made
    assert kept.known("", made.instance.id, 4) is None
    assert kept.known("", made.instance.id, 3) is None  # out of date once, it is not kept any longer


def test_another_run_of_the_database_knows_nothing() -> None:
    kept = Kept()
    kept.enter("first")
    kept.keep("first", [made := _made()])
    kept.enter("first")
    assert kept.known("first", made.instance.id, 3) is not None
    kept.enter("second")
    assert kept.known("second", made.instance.id, 3) is None


def test_a_transaction_of_an_earlier_run_is_told_nothing_of_the_present_one() -> None:
    kept = Kept(era="second")
    kept.keep("second", [made := _made()])
    assert kept.known("first", made.instance.id, 3) is None
    assert kept.known("second", made.instance.id, 3) == made


def test_what_was_committed_in_an_earlier_run_is_not_kept() -> None:
    kept = Kept(era="second")
    kept.keep("first", [made := _made()])
    assert kept.known("second", made.instance.id, 3) is None


def test_those_that_were_not_used_for_the_longest_time_go_first() -> None:
    kept = Kept(limit=10_000)  # bytes: two of them
    one, two, three = (_made(instance_id=f"ins_{n}") for n in range(3))
    kept.keep("", [one, two])
    kept.known("", one.instance.id, 3)
    kept.keep("", [three])
    assert [kept.known("", each.instance.id, 3) is not None for each in (one, two, three)] == [True, False, True]


def test_one_that_tells_a_lot_has_the_place_of_many() -> None:
    kept = Kept(limit=22_000)
    one, two = (_made(instance_id=f"ins_{n}") for n in range(2))
    told = replace(two, instance=replace(two.instance, outputs={"said": ["x" * 1_000] * 15}))
    kept.keep("", [one, told])
    assert [kept.known("", each.instance.id, 3) is not None for each in (one, told)] == [False, True]


def test_what_is_heavier_than_everything_may_be_is_not_kept() -> None:
    kept = Kept(limit=1)
    kept.keep("", [made := _made()])
    assert kept.known("", made.instance.id, 3) is None


def test_jobs_that_have_ended_are_not_kept() -> None:
    bench = Bench()
    bench.submit("create")
    (job,) = bench.aggregate.jobs.values()
    ended = replace(bench.aggregate, jobs={job.id: replace(job, state=JobState.CANCELLED)})
    kept = Kept()
    kept.keep("", [ended])
    found = kept.known("", ended.instance.id, ended.instance.version)
    assert found is not None
    assert found.jobs == {}

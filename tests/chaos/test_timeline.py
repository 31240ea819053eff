"""What counts as claimed again, and as late: on recorded timelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chaos.nemesis import POSTGRES, Done, Fault, Kind
from chaos.timeline import Claim, Fact, Look, Records, claims, outages
from spectrum.core.jobs.table import JobState

JOB, WORKERS = "job-1", {"worker-1": "w1", "worker-2": "w2"}
HELD = Fact(1, "job.claimed", "w1")
EMPTY = Records({}, {}, {}, WORKERS)


def fault(kind: Kind, part: str, began: float, mended: float) -> Done:
    return Done(Fault(1, kind, part, 0.0, 1.0, False), began, mended)


def look(at: float, lease: str | None, fence: int = 2) -> Look:
    worker = None if lease is None else lease.replace("lease-", "w")
    return Look(at, JobState.RUNNING if lease else JobState.READY, int(at), fence, lease, worker)


def judged(
    done: Sequence[Done],
    *told: Fact,
    records: Records = EMPTY,
    answers: Mapping[str, Sequence[float]] | None = None,
) -> list[Claim]:
    return list(claims(outages(done, answers or {}), replace(records, facts={JOB: [HELD, *told]})))


def test_the_time_to_the_next_claim_counts_from_the_return_of_the_worker() -> None:
    killed = fault(Kind.KILL, "worker-1", 5, 10)
    (claim,) = judged([killed], Fact(19.5, "job.rescued", "w1"), Fact(22, "job.claimed", "w2"))
    assert (claim.job, claim.waited, claim.calm) == (JOB, 12, 12)


def test_a_killed_worker_is_back_when_its_next_incarnation_has_begun() -> None:
    killed = fault(Kind.KILL, "worker-1", 5, 6)
    (claim,) = judged([killed], Fact(22, "job.claimed", "w2"), answers={"worker-1": [0.0, 20.0]})
    assert claim.waited == 2


def test_a_worker_that_never_came_back_excuses_nothing() -> None:
    killed = fault(Kind.KILL, "worker-1", 5, 6)
    (claim,) = judged([killed], Fact(60, "job.claimed", "w2"), answers={"worker-1": [0.0]})
    assert claim.calm == 54


def test_only_time_in_which_all_other_parts_were_well_counts_and_only_at_a_stretch() -> None:
    killed, lost, slow = (
        fault(Kind.KILL, "worker-1", 5, 10),
        fault(Kind.LOSS, "worker-2", 8, 14),
        fault(Kind.LATENCY, "worker-2", 17, 18),
    )
    (claim,) = judged([slow, lost, killed], Fact(22, "job.claimed", "w2"))
    assert (claim.waited, claim.calm) == (12, 4)


def test_a_control_plane_is_back_when_it_answers_and_not_when_its_process_was_started() -> None:
    killed, other = fault(Kind.FREEZE, "worker-1", 5, 10), fault(Kind.KILL, "server-1", 4, 6)
    answers = {"server-1": [1.0, 2.0, 19.0, 19.2], "server-2": [1.0, 7.0]}
    (claim,) = judged([killed, other], Fact(22, "job.claimed", "w2"), answers=answers)
    assert claim.calm == 3


def test_postgresql_is_back_when_it_answers_and_both_control_planes_are_ready() -> None:
    frozen, restarted = fault(Kind.FREEZE, "worker-1", 5, 10), fault(Kind.RESTART, POSTGRES, 4, 6)
    answers = {POSTGRES: [6.5], "server-1": [5.0, 12.0], "server-2": [16.0]}
    assert outages([restarted], answers)[0].seconds_to_answer == 10
    (claim,) = judged([frozen, restarted], Fact(22, "job.claimed", "w2"), answers=answers)
    assert claim.calm == 6


def test_a_holder_that_comes_back_and_goes_on_has_the_job_again() -> None:
    frozen = fault(Kind.FREEZE, "worker-1", 5, 10)
    (claim,) = judged([frozen], Fact(12, "attempt", "w1"), Fact(70, "job.succeeded", None))
    assert claim.waited == 2


def test_a_holder_that_comes_back_and_renews_its_lease_has_the_job_again() -> None:
    cut_off = fault(Kind.DEAF, "worker-1", 5, 10)
    records = replace(EMPTY, looks={JOB: [look(4, "lease-1")]}, renewals={"lease-1": [3.0, 11.0]})
    (claim,) = judged([cut_off], Fact(70, "job.succeeded", None), records=records)
    assert claim.waited == 1


def test_what_a_holder_says_whose_job_was_taken_away_is_no_going_on() -> None:
    frozen = fault(Kind.FREEZE, "worker-1", 5, 10)
    records = replace(EMPTY, looks={JOB: [look(4, "lease-1")]}, renewals={"lease-1": [13.0]})
    rescued, claimed = Fact(9, "job.rescued", "w1"), Fact(30, "job.claimed", "w2")
    (claim,) = judged([frozen], rescued, Fact(12, "attempt", "w1"), claimed, records=records)
    assert claim.waited == 20


def test_what_a_worker_could_still_say_while_it_was_cut_off_is_no_return() -> None:
    deaf = fault(Kind.DEAF, "worker-1", 5, 10)
    told = (Fact(6, "attempt", "w1"), Fact(13, "job.rescued", "w1"), Fact(40, "job.claimed", "w2"))
    (claim,) = judged([deaf], *told)
    assert claim.waited == 30


def test_a_job_that_was_claimed_by_another_before_its_worker_came_back_waited_not_at_all() -> None:
    frozen = fault(Kind.FREEZE, "worker-1", 5, 20)
    (claim,) = judged([frozen], Fact(14, "job.rescued", "w1"), Fact(15, "job.claimed", "w2"))
    assert (claim.waited, claim.calm) == (0, 0)


def test_a_job_that_was_handed_back_for_a_while_is_not_counted() -> None:
    frozen = fault(Kind.FREEZE, "worker-1", 5, 10)
    records = replace(EMPTY, looks={JOB: [look(4, "lease-1"), look(12, None, 3)]})
    assert judged([frozen], Fact(60, "job.claimed", "w2"), records=records) == []


def test_a_job_that_its_worker_did_not_hold_any_more_is_nothing_to_claim_again() -> None:
    assert judged([fault(Kind.KILL, "worker-1", 5, 10)], Fact(4, "job.succeeded", None)) == []


def test_harm_that_costs_no_worker_its_lease_is_nothing_to_claim_after() -> None:
    harms = [fault(Kind.KILL, "server-1", 5, 10), fault(Kind.LOSS, "worker-1", 5, 10)]
    assert judged(harms, Fact(60, "job.claimed", "w2")) == []

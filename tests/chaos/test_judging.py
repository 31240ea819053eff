"""The judge of real runs finds what is wrong: a run without complaints says something."""

from __future__ import annotations

import asyncio

import pytest

from chaos import judge
from chaos.load import Accepted, Ledger
from chaos.nemesis import Done, Fault, Kind
from chaos.watcher import Fact, Look, Watcher
from spectrum.core.jobs.table import JobState
from tests.postgres import Database

STARTS = {"w1": [0.0, 10.0]}
TOLD = Accepted("k", "create", "acme", "job-1")


def look(at: float, state: JobState, version: int, fence: int, lease: str | None, worker: str | None) -> Look:
    return Look(at, state, version, fence, lease, worker)


def fault(kind: Kind, part: str, began: float, mended: float) -> Done:
    return Done(Fault(1, kind, part, 0.0, 1.0, False), began, mended)


@pytest.mark.parametrize(
    ("ledger", "rows", "what"),
    [
        (Ledger([TOLD], ended={"job-1": "succeeded"}), {}, "is lost"),
        (Ledger([TOLD]), {"job-1": {"state": "running", "operation": "create"}}, "never ended"),
        (
            Ledger([TOLD], ended={"job-1": "succeeded"}),
            {"job-1": {"state": "failed", "operation": "create"}},
            "and is failed",
        ),
        (
            Ledger([TOLD, TOLD], ended={"job-1": "failed"}),
            {"job-1": {"state": "failed", "operation": "create"}},
            "2 commands",
        ),
        (Ledger(), {"job-1": {"state": "failed", "operation": "create"}}, "nobody was told"),
    ],
)
def test_answers_that_do_not_fit_the_database_are_told(
    ledger: Ledger, rows: dict[str, dict[str, str]], what: str
) -> None:
    (said,) = judge.answers(rows, ledger)
    assert what in said


def test_answers_that_fit_the_database_are_fine() -> None:
    ledger = Ledger([TOLD], ended={"job-1": "succeeded"})
    assert list(judge.answers({"job-1": {"state": "succeeded", "operation": "create"}}, ledger)) == []


def test_a_job_that_changes_hands_under_the_same_fence_is_told() -> None:
    seen = [
        look(1, JobState.RUNNING, 3, 2, "lease-1", "w1"),
        look(2, JobState.RUNNING, 4, 2, "lease-2", "w2"),
    ]
    (said,) = Watcher("", seen={"job-1": seen}).broken()
    assert "claimed anew under fence 2" in said


def test_a_job_that_rises_from_its_end_is_told() -> None:
    seen = [look(1, JobState.FAILED, 3, 2, None, None), look(2, JobState.RUNNING, 4, 3, "lease-2", "w2")]
    (said,) = Watcher("", seen={"job-1": seen}).broken()
    assert "went from failed to running" in said


def test_the_time_to_the_next_claim_counts_from_the_return_and_without_other_faults() -> None:
    seen = [
        look(1, JobState.RUNNING, 3, 2, "lease-1", "w1"),
        look(20, JobState.READY, 4, 3, None, None),
        look(22, JobState.RUNNING, 5, 4, "lease-2", "w2"),
    ]
    told = [Fact(1, "job.claimed", "w1"), Fact(19.9, "job.rescued", "w1"), Fact(21.9, "job.claimed", "w2")]
    killed, other = fault(Kind.KILL, "worker-1", 5, 10), fault(Kind.LOSS, "worker-2", 8, 14)
    (claim,) = Watcher("", seen={"job-1": seen}).claims([killed, other], {"worker-1": "w1"}, {"job-1": told}, STARTS)
    assert claim.waited == pytest.approx(11.9)
    assert claim.quiet == pytest.approx(7.9)


def test_a_killed_worker_is_back_when_its_next_incarnation_has_begun() -> None:
    told = [Fact(1, "job.claimed", "w1"), Fact(19.9, "job.rescued", "w1"), Fact(22, "job.claimed", "w2")]
    killed, slow = fault(Kind.KILL, "worker-1", 5, 6), {"w1": [0.0, 20.0]}
    (claim,) = Watcher("").claims([killed], {"worker-1": "w1"}, {"job-1": told}, slow)
    assert (claim.waited, claim.quiet) == (2, 2)


def test_a_job_that_was_handed_back_for_a_while_is_not_counted_as_claimed_late() -> None:
    seen = [
        look(1, JobState.RUNNING, 3, 2, "lease-1", "w1"),
        look(12, JobState.READY, 4, 3, None, None),
        look(60, JobState.RUNNING, 5, 4, "lease-2", "w2"),
    ]
    told = [Fact(1, "job.claimed", "w1"), Fact(59.9, "job.claimed", "w2")]
    frozen = fault(Kind.FREEZE, "worker-1", 5, 10)
    assert list(Watcher("", seen={"job-1": seen}).claims([frozen], {"worker-1": "w1"}, {"job-1": told}, STARTS)) == []


def test_a_job_that_its_worker_did_not_hold_any_more_is_nothing_to_claim_again() -> None:
    told = [Fact(1, "job.claimed", "w1"), Fact(4, "job.succeeded", None)]
    killed = fault(Kind.KILL, "worker-1", 5, 10)
    assert list(Watcher("").claims([killed], {"worker-1": "w1"}, {"job-1": told}, STARTS)) == []


def test_the_promises_of_a_chaos_run_hold_of_a_new_database(database: Database) -> None:
    async def ask() -> list[str]:
        await judge.keep(database.admin_url)
        return await judge.over_the_database(database.admin_url)

    assert asyncio.run(ask()) == []

"""The judge of real runs finds what is wrong: a run without complaints says something."""

from __future__ import annotations

import asyncio

import pytest

from chaos import judge
from chaos.executions import Executions, differences, idle
from chaos.load import Accepted, Ledger
from chaos.timeline import Look
from chaos.watcher import Watcher
from spectrum.core.jobs.table import JobState
from tests.postgres import Database

TOLD = Accepted("k", "create", "acme", "job-1")


def look(at: float, state: JobState, version: int, fence: int, lease: str | None, worker: str | None) -> Look:
    return Look(at, state, version, fence, lease, worker)


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


LIFE = [Accepted(verb, verb, "acme", f"job-{verb}") for verb in ("create", "stop", "start", "delete", "purge")]
ENDED = {each.job_id: "succeeded" for each in LIFE}
LINES = ["migrated", "started", "ended", "started", "ended"]


def test_a_product_that_saw_each_step_once_has_nothing_to_tell() -> None:
    seen = Executions({"acme": LINES}, {"worker-1": 3, "worker-2": 2}, {"server-1": 9, "server-2": 9})
    assert list(differences(seen, LIFE, ENDED)) == []


@pytest.mark.parametrize(
    "lines",
    [
        ["migrated", *LINES],
        ["migrated", "started", "started", "ended", "started", "ended"],
        LINES[1:],
        ["started", "migrated", "ended", "started", "ended"],
        [],
    ],
)
def test_a_step_that_the_product_saw_twice_or_never_or_out_of_turn_is_told(lines: list[str]) -> None:
    (said,) = differences(Executions({"acme": lines}), LIFE, ENDED)
    assert said.startswith("P2: acme saw")


def test_an_instance_that_nobody_asked_for_is_told() -> None:
    (said,) = differences(Executions({"acme": LINES, "other": ["migrated"]}), LIFE, ENDED)
    assert said.startswith("P2: other saw migrated")


def test_a_part_that_did_nothing_is_told() -> None:
    (said,) = idle(Executions({}, {"worker-1": 1, "worker-2": 0}, {"server-1": 2}))
    assert said == "P19: worker-2 took no part"


def test_the_promises_of_a_chaos_run_hold_of_a_new_database(database: Database) -> None:
    async def ask() -> list[str]:
        await judge.keep(database.admin_url)
        return [
            *await judge.over_the_database(database.admin_url),
            *await judge.without_faults(database.admin_url),
        ]

    assert asyncio.run(ask()) == []

"""Kafka of no use, in the simulator: what is lost, doubled, late or away costs time, and no fact."""

from __future__ import annotations

import pytest

from sim import report
from sim.run import Outcome, run
from sim.scenarios import find
from sim.system import ControlPlane, System
from sim.trials import _nothing, one_thing
from sim.twins.kafka import DEAF, DOUBLED, GONE, LOST, WAITED
from spectrum.control.dispatch import Caller
from spectrum.transports.protocol import Polled, Room


def passed(scenario: str, seed: int) -> Outcome:
    outcome = run(find(scenario), seed)
    assert outcome.violation is None, report.verdict(outcome)
    return outcome


def test_while_hints_come_long_polls_wait_for_requests_alone_and_jobs_are_claimed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited_for_work: list[bool] = []
    systems: list[System] = []
    poll, begin = ControlPlane._poll, System.begin

    async def noted(self: ControlPlane, caller: Caller, seconds: float, room: Room, work: bool) -> Polled:
        waited_for_work.append(work)
        return await poll(self, caller, seconds, room, work)

    def begun(self: System) -> None:
        systems.append(self)
        begin(self)

    monkeypatch.setattr(ControlPlane, "_poll", noted)
    monkeypatch.setattr(System, "begin", begun)
    outcome = run(one_thing(_nothing, customers=3, rest=10.0, kafka=True), 1)

    assert outcome.violation is None, report.verdict(outcome)
    assert waited_for_work.count(False) > 10 * waited_for_work.count(True)
    creates = [job for job in systems[0].database.jobs.values() if job.operation == "create"]
    waits = [job.started_at - job.created_at for job in creates if job.started_at and job.created_at]
    assert waits
    assert max(waits).total_seconds() < 1


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("scenario", "marks"),
    [
        ("kafka-away", (LOST, DEAF, WAITED)),
        ("kafka-hangs", (LOST, DEAF, WAITED)),
        ("kafka-loses-its-disk", (LOST, DEAF, GONE)),
        ("kafka-rebalances", ()),
    ],
)
def test_an_hour_without_kafka_disturbs_no_job_and_the_backlog_is_there_within_a_minute(
    scenario: str, marks: tuple[str, ...], seed: int
) -> None:
    outcome = passed(scenario, seed)

    assert outcome.seconds > 3600
    assert [mark for mark in marks if not outcome.marks[mark]] == []


@pytest.mark.parametrize("begin", range(1, 25, 8))
def test_where_nearly_every_hint_is_lost_doubled_or_late_everything_comes_to_its_end(begin: int) -> None:
    outcomes = [passed("kafka-lossy", seed) for seed in range(begin, begin + 8)]

    assert sum(outcome.marks[LOST] for outcome in outcomes) > len(outcomes)
    assert any(outcome.marks[DOUBLED] for outcome in outcomes)


@pytest.mark.parametrize("begin", range(1, 49, 8))
def test_while_everything_fails_and_kafka_too_every_fact_is_told_in_its_subject_s_order(begin: int) -> None:
    for seed in range(begin, begin + 8):
        passed("kafka", seed)

"""Whatever an outcome tells, it is taken: what is too much, or no JSON, or of another shape, is left out of what is kept (P19)."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from spectrum.core.errors import ErrorClass, Failure
from spectrum.core.jobs.commands import Outcome, Result
from spectrum.core.jobs.table import Phase, StepState
from spectrum.core.jobs.told import LEFT_OUT, LIMIT, fit, small
from tests.unit.jobs.bench import Bench, creating

SERVICE = {"name": "web", "state": "running", "health": "healthy", "restarts": 0, "ports": {"80": 4711}}


def told(**output: Any) -> Bench:
    """A bench whose step `disk` is done and told this."""
    bench = creating()
    bench.claim()
    bench.report(intents=("disk",))
    bench.report(bench.did("disk", **output))
    assert bench.step("disk").state is StepState.DONE
    return bench


def test_an_output_that_is_small_is_kept_as_it_is() -> None:
    output = {"exit_code": 0, "tail": ["a line", "\U0001f600" * 500]}
    assert told(**output).step("disk").output == output


def test_of_an_output_that_is_too_large_the_step_keeps_the_small_members_and_names_the_others() -> None:
    kept = told(exit_code=0, said="x" * LIMIT, also=[0] * LIMIT).step("disk").output
    assert kept == {"exit_code": 0, LEFT_OUT: ["also", "said"]}


def test_what_a_large_output_says_of_the_instance_is_taken_though_the_step_does_not_keep_it() -> None:
    services = [{**SERVICE, "name": f"web{number}"} for number in range(500)]
    bench = told(services=services, health="healthy")
    assert len(bench.instance.services) == 500
    assert bench.step("disk").output == {"health": "healthy", LEFT_OUT: ["services"]}


def test_names_of_members_can_not_be_too_much_either() -> None:
    assert len(json.dumps(small({f"{number}" * 9_000: 0 for number in range(100)}))) < LIMIT


def test_what_is_no_number_is_nothing() -> None:
    assert told(seconds=math.nan, deep=[{"far": math.inf}]).step("disk").output == {
        "seconds": None,
        "deep": [{"far": None}],
    }
    waiting = Failure(ErrorClass.THROTTLED, "c" * 999, "later", retry_after=math.nan, next="n" * 9_999)
    failure = fit(Outcome("disk", Phase.DO, 1, Result.ERROR, waiting)).failure
    assert failure is not None
    json.dumps(failure.as_json(), allow_nan=False)
    assert len(json.dumps(failure.as_json())) < 5_000


@pytest.mark.parametrize(
    "output",
    [
        {"health": "splendid"},
        {"health": 7},
        {"services": 7},
        {"services": [7, {}, {**SERVICE, "ports": None}]},
        {"conditions": "bad"},
        {"conditions": [{"type": "Quota"}, 7]},
        {"facts": [7]},
        {"outputs": {"values": {"url": 7}}},
        {"outputs": {"endpoints": [7]}},
    ],
)
def test_what_is_of_another_shape_changes_nothing_of_the_instance(output: dict[str, Any]) -> None:
    changed, plain = told(**output).instance, told().instance
    for name in ("facts", "outputs", "services", "conditions", "health"):
        assert getattr(changed, name) == getattr(plain, name)


def test_what_is_well_told_is_taken_and_what_is_not_beside_it_is_not() -> None:
    bench = told(services=[SERVICE, 7], conditions=[{"type": "Quota", "status": "false"}, 7], facts={"port": 1})
    assert bench.instance.services == (SERVICE,)
    assert [condition["type"] for condition in bench.instance.conditions] == ["Quota"]
    assert bench.instance.facts == {"port": 1}


def test_a_look_again_keeps_no_more_of_a_failure_than_any_other() -> None:
    bench = creating()
    bench.claim()
    bench.report(intents=("disk",))
    bench.lose()
    bench.claim()
    loud = Failure(ErrorClass.TRANSIENT, "loud", "m" * 99_999, evidence=("e" * 99_999,) * 999)
    bench.report(replace(bench.did("disk", Result.ERROR, loud)))
    assert len(json.dumps(bench.step("disk").failure.as_json())) < 60_000  # type: ignore[union-attr]

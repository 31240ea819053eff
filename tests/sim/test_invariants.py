"""The frame of the invariants and marks: what is checked, and what is known to be unchecked."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sim import marks
from sim.invariants import PROMISES, REGISTRY, invariant, unwatched
from sim.promises import one_key_one_job
from sim.twins.provider import Bug, MemoryTarget
from sim.world import World
from spectrum.core.errors import Problem
from spectrum.core.jobs.commands import Repeated
from spectrum.core.product.resources import Volume
from spectrum.providers.protocol import Call, Strength
from tests.sim.simulated import INSTANCE, grounded, simulate


def call(fence: int, token: int, key: str = "data.1") -> Call:
    return Call(INSTANCE, "data/volume", key, fence, token)


REFUSED = Problem("instance-busy", "16 jobs already wait.")


def accepted(job_id: str) -> Repeated:
    return Repeated(202, f"/v1/jobs/{job_id}", {"id": job_id})


def test_every_promise_is_checked_or_known_to_be_unchecked() -> None:
    checked = {each.promise for each in REGISTRY}

    assert set(unwatched()) == set(PROMISES) - checked
    assert {"P2", "P4"} <= checked


def test_an_invariant_names_a_promise_of_the_design() -> None:
    with pytest.raises(ValueError, match="P1 to P20"):
        invariant("P21", MemoryTarget)


def test_every_invariant_says_what_it_checks() -> None:
    assert all(each.says for each in REGISTRY)


def test_a_second_thing_in_a_slot_breaks_p2_at_once() -> None:
    async def body(world: World) -> None:
        target = grounded(world, bugs=frozenset({Bug.TWO_PER_SLOT}))
        world.watch(target)
        await target.connect().ensure(call(1, 1, "data.1"), Volume("data"))
        await target.connect().ensure(call(1, 2, "data.2"), Volume("data"))
        raise AssertionError("the run went on")

    violation = simulate(body).violation

    assert violation is not None
    assert (violation.promise, "data.1, data.2" in violation.what) == ("P2", True)


@pytest.mark.parametrize(("strength", "broken"), [(Strength.ATOMIC, True), (Strength.BEST_EFFORT, False)])
def test_a_stale_call_that_has_an_effect_breaks_p4_on_an_atomic_target_only(strength: Strength, broken: bool) -> None:
    async def body(world: World) -> None:
        target = grounded(world, strength, bugs=frozenset({Bug.NO_FENCE, Bug.NO_TOKEN}))
        world.watch(target)
        await target.connect().observe(call(2, 0))
        await target.connect().ensure(call(1, 1), Volume("data"))

    violation = simulate(body).violation

    assert (violation is not None and violation.promise == "P4") is broken


def test_what_a_scenario_requires_ends_the_run_even_if_the_error_is_swallowed() -> None:
    async def body(world: World) -> None:
        try:
            world.require("P3", False, "something is missing")
        except Exception:
            await asyncio.sleep(1)
        raise AssertionError("the run went on")

    violation = simulate(body).violation

    assert str(violation) == "P3: something is missing"


def test_marks_count_and_say_which_were_never_reached() -> None:
    marks.declare("a mark of this test", "to be reached")
    marks.declare("another mark of this test", "never to be reached")

    async def body(world: World) -> None:
        assert marks.sometimes("a mark of this test")
        assert not marks.sometimes("another mark of this test", condition=False)

    counts = simulate(body).marks

    assert counts["a mark of this test"] == 1
    assert "another mark of this test" in marks.never_reached(counts)
    assert "a mark of this test" not in marks.never_reached(counts)
    assert "1  a mark of this test: to be reached" in marks.report(counts)


def test_a_mark_is_declared_before_it_is_reached() -> None:
    with pytest.raises(ValueError, match="not declared"):
        marks.sometimes("nobody knows this mark")
    assert marks.declare("a mark that is known", "its reason") == "a mark that is known"
    with pytest.raises(ValueError, match="declared twice"):
        marks.declare("a mark that is known", "some other reason")
    assert marks.never_reached(Counter(), ["x"]) == ("x",)


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ([REFUSED, REFUSED, accepted("job_1"), accepted("job_1")], False),
        ([accepted("job_1"), accepted("job_2")], True),
        ([accepted("job_1"), REFUSED], True),
        ([accepted("job_3")], True),
    ],
)
def test_a_refusal_uses_up_no_key_and_what_was_accepted_stays_so(answers: list[object], wrong: bool) -> None:
    database = SimpleNamespace(jobs={"job_1", "job_2"})
    system = SimpleNamespace(answers={"a key": answers}, database=database)

    assert bool([*one_key_one_job(cast(Any, system))()]) is wrong

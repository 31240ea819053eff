"""Plans: which steps may start, which may be undone, and what a plan refuses to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrum.core import ids
from spectrum.core.ids import StepId
from spectrum.core.jobs.model import Step
from spectrum.core.jobs.table import StepState, Wants
from spectrum.core.plan import Node, Plan, PlanError, ready, step_id, unwindable


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Step, ...]:
    """Steps in topological order, each needing some of those before it."""
    count = draw(st.integers(1, 9))
    steps: list[Step] = []
    for position in range(count):
        needs = draw(st.sets(st.sampled_from([s.name for s in steps]), max_size=3)) if steps else set()
        steps.append(Step(StepId(f"stp_{position}"), f"s{position}", position, "do", tuple(sorted(needs))))
    return tuple(steps)


def _with(steps: tuple[Step, ...], name: str, state: StepState) -> tuple[Step, ...]:
    return tuple(replace(step, state=state) if step.name == name else step for step in steps)


@given(graphs(), st.data())
def test_in_whatever_order_ready_steps_are_done_all_get_done_and_none_before_its_needs(
    steps: tuple[Step, ...], data: st.DataObject
) -> None:
    done: list[str] = []
    while startable := ready(steps):
        step = data.draw(st.sampled_from(startable))
        assert set(step.needs) <= set(done)
        end = data.draw(st.sampled_from([StepState.DONE, StepState.SKIPPED]))
        steps = _with(steps, step.name, end)
        done.append(step.name)

    assert sorted(done) == sorted(step.name for step in steps)


@given(graphs(), st.data())
def test_in_whatever_order_steps_are_undone_all_get_undone_and_none_before_what_was_built_on_it(
    steps: tuple[Step, ...], data: st.DataObject
) -> None:
    touched = data.draw(st.sets(st.sampled_from([step.name for step in steps])))
    for step in steps:
        steps = _with(steps, step.name, StepState.UNDOING if step.name in touched else StepState.SKIPPED)
    while undoable := unwindable(steps):
        step = data.draw(st.sampled_from(undoable))
        open_ = {other.name for other in steps if other.state is StepState.UNDOING}
        assert not [other for other in steps if step.name in other.needs and other.name in open_]
        end = data.draw(st.sampled_from([StepState.UNDONE, StepState.UNDO_FAILED]))
        steps = _with(steps, step.name, end)

    assert not [step for step in steps if step.state is StepState.UNDOING]


@given(graphs())
def test_an_outcome_that_travels_in_the_same_report_counts_as_done(steps: tuple[Step, ...]) -> None:
    for step in ready(steps):
        assumed = {each.name for each in ready(steps, {step.name})}
        known = {each.name for each in ready(_with(steps, step.name, StepState.DONE))}
        assert assumed == known


@pytest.mark.parametrize("state", [StepState.RUNNING, StepState.FAILED, StepState.UNDOING, StepState.UNDONE])
def test_a_step_that_is_under_way_or_over_is_not_ready(state: StepState) -> None:
    assert ready((Step(StepId("stp_1"), "one", 1, "do", state=state),)) == []


def test_steps_are_undone_newest_first() -> None:
    steps = tuple(Step(StepId(f"stp_{n}"), f"s{n}", n, "do", state=StepState.UNDOING) for n in range(3))

    assert [step.name for step in unwindable(steps)] == ["s2", "s1", "s0"]


# ---- what a plan refuses


def test_a_step_may_only_need_what_comes_before_it() -> None:
    with pytest.raises(PlanError, match="step web needs disk, which does not come before it"):
        Plan((Node("web", "do", needs=("disk",)), Node("disk", "do")), 1.0, 1.0)


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(PlanError, match="two steps are named web"):
        Plan((Node("web", "do"), Node("web", "do")), 1.0, 1.0)


@pytest.mark.parametrize(("slot", "wants"), [("web/container", Wants.NOTHING), (None, Wants.PRESENT)])
def test_a_step_has_a_slot_exactly_if_it_wants_something_of_it(slot: str | None, wants: Wants) -> None:
    with pytest.raises(PlanError, match="exactly if"):
        Node("web", "do", slot, wants)


def test_the_same_plan_has_the_same_digest_and_another_one_another() -> None:
    plan = Plan((Node("web", "do", arguments={"b": 1, "a": 2}),), 1.0, 1.0)

    assert plan.digest() == Plan((Node("web", "do", arguments={"a": 2, "b": 1}),), 1.0, 1.0).digest()
    assert plan.digest() != replace(plan, job_seconds=2.0).digest()


def test_the_id_of_a_step_follows_from_job_and_name() -> None:
    job = "job_019b76da-a800-7000-8000-000000000001"

    assert step_id(job, "web") == step_id(job, "web") != step_id(job, "db")
    assert ids.moment_of(step_id(job, "web")) == ids.moment_of(job)

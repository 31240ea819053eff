"""The transition tables are DESIGN §3's two tables, transcribed here once more as data, and nothing else."""

from __future__ import annotations

import pytest

from spectrum.core.jobs.table import (
    ENDS_OWNERSHIP,
    JOBS,
    NEEDS_OWNERSHIP,
    OWNABLE,
    STEPS,
    TERMINAL,
    UNWOUND,
    JobState,
    JobTrigger,
    Ownership,
    StepState,
    StepTrigger,
)

# state: trigger: where it leads. "touched ? a : b" and "by reason ? a : b" are the design's own conditions.
JOB_TABLE = """
waiting    | promote      | ready
waiting    | refuse       | failed
waiting    | supersede    | cancelled
waiting    | cancel       | cancelled
waiting    | deadline     | failed
ready      | claim        | running
ready      | cancel       | touched ? unwinding : cancelled
ready      | deadline     | touched ? unwinding : failed
running    | all done     | succeeded
running    | step failed  | touched ? unwinding : failed
running    | release      | ready
running    | cancel       | cancelling
running    | owner lost   | ready
running    | poison       | touched ? unwinding : failed
running    | deadline     | touched ? unwinding : failed
cancelling | all done     | succeeded
cancelling | acknowledge  | touched ? unwinding : cancelled
cancelling | release      | touched ? unwinding : cancelled
cancelling | cancel       | cancelling
cancelling | owner lost   | touched ? unwinding : cancelled
cancelling | deadline     | touched ? unwinding : cancelled
unwinding  | claim        | unwinding
unwinding  | unwound      | first reason ? cancelled : failed
unwinding  | release      | unwinding
unwinding  | cancel       | unwinding
unwinding  | owner lost   | unwinding
unwinding  | deadline     | failed
"""

STEP_TABLE = """
pending   | intent          | running
pending   | retryable       | budget ? retrying : failed
pending   | failed for good | failed
pending   | unwind          | touched ? undoing : skipped
pending   | skip            | skipped
running   | ok              | done
running   | retryable       | budget ? retrying : failed
running   | failed for good | failed
running   | timeout         | unknown
running   | claim           | unknown
running   | unwind          | touched ? undoing : skipped
retrying  | intent          | running
retrying  | retryable       | budget ? retrying : failed
retrying  | failed for good | failed
retrying  | unwind          | touched ? undoing : skipped
unknown   | intent          | running
unknown   | ok              | done
unknown   | absent          | unknown
unknown   | undecidable     | reversible ? replacing : failed
unknown   | retryable       | unknown
unknown   | failed for good | failed
unknown   | timeout         | unknown
unknown   | unwind          | touched ? undoing : skipped
replacing | intent          | replacing
replacing | ok              | pending
replacing | retryable       | replacing
replacing | failed for good | failed
replacing | timeout         | replacing
replacing | unwind          | touched ? undoing : skipped
done      | unwind          | touched ? undoing : skipped
failed    | unwind          | touched ? undoing : skipped
undoing   | intent          | undoing
undoing   | ok              | undone
undoing   | retryable       | undoing
undoing   | failed for good | undo_failed
undoing   | timeout         | undoing
undone    | reopen          | undoing
"""

CONDITIONS = {
    "touched": ("touched", "untouched"),
    "first reason": ("first reason is a cancel", "first reason is another"),
    "budget": ("budget left", "budget used up"),
    "reversible": ("reversible", "irreversible"),
}


def _transcribed(table: str) -> dict[tuple[str, str], dict[str, str]]:
    rows = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    return {(state, trigger): _cases(leads_to) for state, trigger, leads_to in rows}


def _cases(leads_to: str) -> dict[str, str]:
    condition, question, rest = leads_to.partition(" ? ")
    if not question:
        return {"always": leads_to}
    yes, no = CONDITIONS[condition]
    first, _, second = rest.partition(" : ")
    return {yes: first, no: second}


def test_the_table_of_jobs_is_the_design_s() -> None:
    table = {
        (state.value, trigger.value): {case.value: after.value for case, after in cases.items()}
        for (state, trigger), cases in JOBS.items()
    }

    assert table == _transcribed(JOB_TABLE)


def test_the_table_of_steps_is_the_design_s() -> None:
    table = {
        (state.value, trigger.value): {case.value: after.value for case, after in cases.items()}
        for (state, trigger), cases in STEPS.items()
    }

    assert table == _transcribed(STEP_TABLE)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_nothing_leaves_a_terminal_state(state: JobState) -> None:
    assert not [trigger for from_, trigger in JOBS if from_ is state]


@pytest.mark.parametrize("state", [StepState.SKIPPED, StepState.UNDO_FAILED])
def test_nothing_leaves_the_final_states_of_a_step(state: StepState) -> None:
    assert not [trigger for from_, trigger in STEPS if from_ is state]


def test_release_loss_poison_and_deadline_end_ownership_and_nothing_else_does() -> None:
    assert {trigger.value for trigger in ENDS_OWNERSHIP} == {"release", "owner lost", "poison", "deadline"}


def test_only_running_cancelling_and_unwinding_jobs_have_an_owner() -> None:
    assert {state.value for state in OWNABLE} == {"running", "cancelling", "unwinding"}
    for (state, trigger), needed in ((pair, NEEDS_OWNERSHIP.get(pair[1])) for pair in JOBS):
        assert needed is not Ownership.OWNED or state in OWNABLE, f"{state} {trigger}"


def test_a_claim_asks_for_a_job_that_nobody_has() -> None:
    assert NEEDS_OWNERSHIP[JobTrigger.CLAIM] is Ownership.UNOWNED


def test_unwinding_turns_every_open_or_finished_do_around() -> None:
    turned = {state for state, trigger in STEPS if trigger is StepTrigger.UNWIND}

    assert turned == set(StepState) - UNWOUND - {StepState.UNDOING}

"""What the saga harness promises of itself: it finds operations, it strikes, and it notices what is wrong with one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spectrum import operations
from spectrum.core.errors import ErrorClass, Fault
from spectrum.core.jobs.table import Lifecycle, Wants
from spectrum.core.observation import Presence
from spectrum.core.plan import Catalog, Given, Node, Operation, Plan
from spectrum.operations import CATALOG, steps
from spectrum.operations.context import Action, Context, Output
from spectrum.providers.protocol import Strength
from tests.sagas.situations import GROUPS, situations, starts
from tests.sagas.stage import play

TINY = '''
"""Note: keep a note beside a running instance."""

from spectrum.core.jobs.table import Lifecycle, Wants
from spectrum.core.plan import Given, Node, Operation, Plan
from spectrum.operations import steps


def plan(given: Given) -> Plan:
    wanted = {"note/volume": None}
    keep = Node("keep-note", "ensure", "note/volume", Wants.PRESENT)
    drop = Node("drop-note", "remove", "note/volume", Wants.ABSENT, ("keep-note",))
    return steps.as_plan([keep, drop, steps.verify_as_wanted(wanted, ("keep-note", "drop-note"))])


OPERATION = Operation("note", 1, frozenset({Lifecycle.RUNNING}), plan, steps.ACTIONS)
'''


def test_an_operation_in_a_new_file_is_found_and_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "note.py").write_text(TINY)
    monkeypatch.setattr(operations, "__path__", [*operations.__path__, str(tmp_path)])

    catalog = operations._found()
    found = [start for start in starts(catalog) if start.operation == "note"]

    assert len(found) == 2  # one lifecycle, two kinds of target
    for start in found:
        for group in GROUPS:
            sagas = situations(start, group, share=30)
            assert sagas
            for saga in sagas:
                play(saga)


# ---- operations that must not pass


async def _nothing(context: Context) -> Output:
    return {}


async def _undo_where_it_seems_needed(context: Context) -> Output:
    seen = await context.look(context.step.slot or "")
    if seen.presence is Presence.PRESENT:
        await context.remove()
    return {}


async def _make_but_never_twice(context: Context) -> Output:
    if (await context.look(context.step.slot or "")).presence is Presence.PRESENT:
        raise Fault(ErrorClass.INVALID, "already-there", "It is already there.")
    await context.ensure()
    return {}


def _plan(given: Given) -> Plan:
    keep = Node("keep-note", "keep", "note/volume", Wants.PRESENT, attempt_seconds=5.0)
    check = Node("check", "check", needs=("keep-note",))
    return Plan((keep, check), 600.0, 600.0)


def _with(action: Action) -> Catalog:
    actions = {"keep": action, "check": Action(do=_nothing)}
    note = Operation("note", 1, frozenset({Lifecycle.RUNNING}), _plan, actions)
    return {**CATALOG, ("note", 1): note}


GOOD = steps.ACTIONS["ensure"]


def _violated(catalog: Catalog, group: str) -> list[str]:
    found = []
    for start in (s for s in starts(catalog) if s.operation == "note" and s.strength is Strength.ATOMIC):
        for saga in situations(start, group, share=1):
            try:
                play(saga)
            except AssertionError as error:
                found.append(str(error))
    return found


@pytest.mark.parametrize(
    ("group", "action"),
    [
        ("undos", replace(GOOD, undo=_nothing)),
        ("steps", replace(GOOD, do=_make_but_never_twice)),
        ("calls", replace(GOOD, undo=_undo_where_it_seems_needed)),
    ],
    ids=["an undo that does nothing", "a step that cannot be run twice", "an undo that trusts its eyes"],
)
def test_an_operation_that_breaks_the_rules_does_not_pass(group: str, action: Action) -> None:
    assert not _violated(_with(GOOD), group)
    assert _violated(_with(action), group)

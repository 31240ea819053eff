"""Bugs that are planted into the production code, in memory alone: a piece of a function's source is replaced by a wrong one."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from spectrum.control.engine import Engine
from spectrum.control.fold import Folding, _Folding
from spectrum.core.jobs import ending, holding, reporting, table
from spectrum.core.jobs.kept import Kept
from spectrum.core.jobs.turn import Turn
from spectrum.worker.context import StepContext


@dataclass(frozen=True)
class Edit:
    """In the source of `owner.name`, what stands on the left of each change (and is there once) becomes what stands right."""

    owner: Any
    name: str
    changes: dict[str, str]

    @contextmanager
    def made(self) -> Iterator[None]:
        original = inspect.getattr_static(self.owner, self.name)
        source = textwrap.dedent(inspect.getsource(original))
        for old, new in self.changes.items():
            if source.count(old) != 1:
                raise ValueError(f"{self.name} no longer contains {old!r} once: plant the bug anew")
            source = source.replace(old, new)
        wrong = _compiled(original, source)
        holders = [self.owner] if inspect.isclass(self.owner) else _importers(original)
        for holder in holders:
            setattr(holder, self.name, wrong)
        try:
            yield
        finally:
            for holder in holders:
                setattr(holder, self.name, original)


def _compiled(original: FunctionType, source: str) -> FunctionType:
    names: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source, inspect.getfile(original), "exec")
    exec(code, original.__globals__, names)
    wrong = names[original.__name__]
    assert isinstance(wrong, FunctionType)
    return wrong


def _importers(function: FunctionType) -> list[Any]:
    """Every module that knows the function by its name."""
    modules = [module for name, module in sys.modules.items() if name.startswith("spectrum.")]
    return [module for module in modules if getattr(module, function.__name__, None) is function]


@dataclass(frozen=True)
class Entry:
    """In a table of the core, a pair leads elsewhere."""

    table: dict[Any, Any]
    pair: Any
    leads_to: Any

    @contextmanager
    def made(self) -> Iterator[None]:
        original = self.table[self.pair]
        self.table[self.pair] = self.leads_to
        try:
            yield
        finally:
            self.table[self.pair] = original


@dataclass(frozen=True)
class Mutant:
    """A planted bug, the promises that it breaks, the faults it takes to see it, and a seed that is known to find it."""

    name: str
    edits: tuple[Edit | Entry, ...]
    promises: frozenset[str]
    seed: int
    rates: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def planted(self) -> Iterator[None]:
        with ExitStack() as planted:
            for edit in self.edits:
                planted.enter_context(edit.made())
            yield

    def __str__(self) -> str:
        return self.name


REFUSALS = {"provider.ensure invalid": 0.15}
LOSSES = {"nemesis crash": 0.2, "nemesis pause": 0.2}
ROLLBACKS = {"store rollback": 0.1}

_S, _T, _C = table.JobState, table.JobTrigger, table.Case

MUTANTS = (
    Mutant(
        "reports are taken under any fence",
        (
            Edit(
                holding,
                "check_fence",
                {
                    "job.owner is None or job.fence != command.fence": "False",
                    "job.owner.lease_id": "command.lease_id",
                },
            ),
            Edit(reporting, "_check_number", {"command.number != expected": "False"}),
        ),
        frozenset({"P4"}),
        1,
        LOSSES,
    ),
    Mutant(
        "a loss does not raise the fence",
        (
            Edit(
                ending,
                "move",
                {
                    '{"fence": turn.raise_counter(), "owner": None}': '{"owner": None} if trigger is JobTrigger.LOST'
                    ' else {"fence": turn.raise_counter(), "owner": None}'
                },
            ),
        ),
        frozenset({"P4"}),
        1,
        LOSSES,
    ),
    Mutant(
        "only steps that are done are undone",
        (Edit(ending, "unwind_step", {"if step.touched else": "if step.state is StepState.DONE else"}),),
        frozenset({"P3"}),
        86,
        REFUSALS,
    ),
    Mutant(
        "a caller is answered before the commit",
        (
            Edit(
                Folding, "__call__", {"self.hints = tuple(": "self.answers = folded.results\n    self.hints = tuple("}
            ),
            Edit(
                Engine,
                "_commit",
                {
                    "await self._settle(uncertain) is Settlement.ABORTED": "not hasattr(fold, 'answers')"
                    " and await self._settle(uncertain) is Settlement.ABORTED",
                    "results = uncertain.results": "results = fold.answers",
                },
            ),
        ),
        frozenset({"P1", "P6", "P9", "exception"}),
        1,
        ROLLBACKS,
    ),
    Mutant(
        "an unwinding job goes forward again when it is claimed",
        (Entry(table.JOBS, (_S.UNWINDING, _T.CLAIM), {_C.ALWAYS: _S.RUNNING}),),
        frozenset({"P5"}),
        1,
        LOSSES,
    ),
    Mutant(
        "a rescue is counted as a retry",
        (
            Edit(
                holding,
                "_forget_attempts",
                {"state=state, outstanding": "state=state, tries=step.tries + 1, outstanding"},
            ),
        ),
        frozenset({"P1"}),
        1,
        LOSSES,
    ),
    Mutant(
        "what is kept of an aggregate is believed whatever its version",
        (Edit(Kept, "known", {"kept is None or kept.instance.version != version": "kept is None"}),),
        frozenset({"P1", "P2", "P3", "P4", "P5", "P9"}),
        1,
    ),
    Mutant(
        "a change of a job leaves the version of its aggregate",
        (
            Edit(
                Turn,
                "result",
                {"elif self.jobs != self.before.jobs or self.effects != self.before.effects": "elif False"},
            ),
        ),
        frozenset({"P1", "P2", "P3", "P4", "P5", "P9"}),
        1,
    ),
    Mutant(
        "an Idempotency-Key is ignored",
        (Edit(_Folding, "_known", {"return self.loaded": "return None and self.loaded"}),),
        frozenset({"P9"}),
        1,
    ),
    Mutant(
        "a job succeeds without its verify",
        (Edit(reporting._Reading, "_conclude", {"for step in job.steps)": "for step in job.steps if step.slot)"}),),
        frozenset({"P1"}),
        1,
    ),
    Mutant(
        "an intent has the token of the one before",
        (Edit(reporting._Reading, "_open", {"token = turn.raise_counter()": "token = max(step.token, job.fence)"}),),
        frozenset({"P5"}),
        1,
    ),
    Mutant(
        "an instance has several active jobs",
        (Edit(ending, "promote_next", {"turn.instance.active_job_id is None and (waiting": "(waiting"}),),
        frozenset({"P1"}),
        1,
    ),
)

TRUSTING_UNDO = Edit(
    StepContext,
    "restore",
    {
        "if before is None:": "seen = await self.look(self._slot)\n"
        "    if seen.presence.value == ('absent' if before is None else 'present'):\n"
        "        return seen\n"
        "    if before is None:"
    },
)
"""An undo that makes no call where it sees nothing to be done: only a call that lands at the worst moment shows it."""

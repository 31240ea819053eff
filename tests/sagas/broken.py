"""Operations whose steps go wrong as a saga's script says: an error at one step, or every step run twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from spectrum.core.errors import ErrorClass, Fault, StaleFence
from spectrum.core.jobs.table import Phase
from spectrum.core.observation import record_of
from spectrum.core.plan import Catalog
from spectrum.operations.context import Act, Action, Context, Output

EVERY = "*"


class How(StrEnum):
    ONCE = "fails once, before its effect"
    ONCE_LATE = "fails once, after its effect"
    FOR_GOOD = "fails for good, before its effect"
    FOR_GOOD_LATE = "fails for good, after its effect"
    TWICE = "is run twice"


FATAL = (How.FOR_GOOD, How.FOR_GOOD_LATE)
_LATE = (How.ONCE_LATE, How.FOR_GOOD_LATE)


@dataclass(frozen=True, slots=True)
class Break:
    """What goes wrong with one step (or EVERY one)."""

    step: str
    phase: Phase
    how: How

    def __str__(self) -> str:
        return f"{self.phase} of {self.step} {self.how.value}"


@dataclass
class Breaks:
    """The breaks of one saga. They stop once it has ended (`mended`)."""

    breaks: tuple[Break, ...]
    mended: bool = False
    _spent: set[Break] = field(default_factory=set)

    def catalog(self, catalog: Catalog) -> Catalog:
        return {key: replace(each, actions=self._actions(each.actions)) for key, each in catalog.items()}

    def _actions(self, actions: Mapping[str, Action]) -> Mapping[str, Action]:
        return {name: self._action(action) for name, action in actions.items()}

    def _action(self, action: Action) -> Action:
        do, undo = action.do, action.undo or _restore

        async def broken_do(context: Context) -> Output:
            return await self._broken(context, Phase.DO, do)

        async def broken_undo(context: Context) -> Output:
            return await self._broken(context, Phase.UNDO, undo)

        return replace(action, do=broken_do, undo=broken_undo)

    async def _broken(self, context: Context, phase: Phase, act: Act) -> Output:
        wrong = None if self.mended else self._wrong(context.step.name, phase)
        if wrong is None:
            return await act(context)
        if wrong.how is How.TWICE:
            await act(context)
            return await act(context)
        if wrong.how in _LATE:
            await _try(act, context)
        self._spent.add(wrong)
        kind = ErrorClass.INVALID if wrong.how in FATAL else ErrorClass.TRANSIENT
        raise Fault(kind, "planted", f"The {wrong}.", evidence=("a line of evidence",))

    def _wrong(self, step: str, phase: Phase) -> Break | None:
        for wrong in self.breaks:
            once = wrong.how in (How.ONCE, How.ONCE_LATE) and wrong in self._spent
            if wrong.phase is phase and wrong.step in (step, EVERY) and not once:
                return wrong
        return None


async def _try(act: Act, context: Context) -> None:
    """Run it; whatever comes of it, the step fails."""
    try:
        await act(context)
    except StaleFence:
        raise
    except Fault:
        return


async def _restore(context: Context) -> Output:
    return record_of(await context.restore())

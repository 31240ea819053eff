"""Every situation of an operation: what may go wrong, at each turn of each place that it comes by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from spectrum.core.jobs.model import Step
from spectrum.core.jobs.table import Lifecycle, Phase
from spectrum.core.plan import Catalog
from spectrum.operations import CATALOG
from spectrum.providers.protocol import Strength
from tests.sagas.broken import EVERY, Break, How
from tests.sagas.script import ENDINGS, Kind, Strike
from tests.sagas.stage import Played, Saga, play

_REQUESTS = ("report", "claim", "release")
_STORE = ("store.transact", "store.lease")


@dataclass(frozen=True, slots=True)
class Start:
    """Where a family of sagas begins. `catalog` has the operation."""

    operation: str
    version: int
    lifecycle: Lifecycle
    strength: Strength
    catalog: Catalog = field(default_factory=lambda: CATALOG, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.operation}-{self.version}-from-{self.lifecycle}-{self.strength}"

    def saga(self, *breaks: Break, strike: Strike | None = None) -> Saga:
        return Saga(self.operation, self.version, self.lifecycle, self.strength, breaks, strike, self.catalog)


def forward(start: Start) -> Played:
    """The operation with nothing going wrong."""
    return _rehearsed(start, start.saga())


def backward(start: Start) -> Played:
    """The operation when its last step fails for good, so that everything is undone."""
    return _rehearsed(start, start.saga(fails_at_last(start)))


_rehearsals: dict[tuple[Saga, int], tuple[Played, Catalog]] = {}


def _rehearsed(start: Start, saga: Saga) -> Played:
    """Played once for each catalog (which is kept, so that its identity stays its own)."""
    known = (saga, id(start.catalog))
    if known not in _rehearsals:
        _rehearsals[known] = (play(saga), start.catalog)
    return _rehearsals[known][0]


def fails_at_last(start: Start) -> Break:
    return Break(_steps(start)[-1].name, Phase.DO, How.FOR_GOOD)


def _steps(start: Start) -> Sequence[Step]:
    return [step for step in forward(start).job.steps if step.attempt]


# ---- the groups


def _steps_twice(start: Start) -> Iterator[Saga]:
    """Every step run twice, every undo run twice; an error at every step: once, and for good."""
    yield start.saga(Break(EVERY, Phase.DO, How.TWICE))
    yield start.saga(fails_at_last(start), Break(EVERY, Phase.UNDO, How.TWICE))
    for step in _steps(start):
        yield start.saga(Break(step.name, Phase.DO, How.TWICE))
        for how in (How.ONCE, How.ONCE_LATE, How.FOR_GOOD, How.FOR_GOOD_LATE):
            yield start.saga(Break(step.name, Phase.DO, how))


def _undos(start: Start) -> Iterator[Saga]:
    """Every undo: run twice, failing once, failing for good; and all of them at once."""
    last = fails_at_last(start)
    touched = [step.name for step in _steps(start) if step.touched]
    for step in [*touched, *([EVERY] if touched else [])]:
        for how in How:
            yield start.saga(last, Break(step, Phase.UNDO, how))


def _crashes(start: Start) -> Iterator[Saga]:
    """A crash of the worker before and after every report, claim and provider call, on the way forward and back; once more where
    its successor cannot tell what came of it.
    """
    yield from _struck(start, (Kind.CRASH, Kind.BLIND), _of_worker)


def _zombies(start: Start) -> Iterator[Saga]:
    """A worker that stands still until another holds its job, and then goes on."""
    yield from _struck(start, (Kind.ZOMBIE,), _of_worker)


def _calls(start: Start) -> Iterator[Saga]:
    """Every provider call that ends badly: refused, unanswered, late, twice; late also where its step is not tried again."""
    yield from _struck(start, tuple(ENDINGS), lambda place: place.startswith("provider."))
    for step in (step for step in _steps(start) if step.touched):
        given_up = Break(step.name, Phase.DO, How.FOR_GOOD_LATE)
        for place, turns in sorted(_rehearsed(start, start.saga(given_up)).turns.items()):
            for turn in range(turns) if place in ("provider.ensure", "provider.remove") else ():
                yield start.saga(given_up, strike=Strike(Kind.LATE, place, turn))


def _control(start: Start) -> Iterator[Saga]:
    """The control plane, around every call of its store: crashed, done and the answer lost, failed before."""
    yield from _struck(start, (Kind.CRASH, Kind.ZOMBIE), lambda place: place.endswith(_STORE) and " " in place)
    yield from _struck(start, (Kind.REFUSED, Kind.ANSWER_LOST, Kind.LATE), lambda place: place in _STORE)


def _requests(start: Start) -> Iterator[Saga]:
    """A cancel, and a release, at every point."""
    yield from _struck(start, (Kind.CANCEL, Kind.RELEASE), _of_worker)


def _of_worker(place: str) -> bool:
    what = place.partition(" ")[2]
    return what.startswith("provider.") or what in _REQUESTS


def _struck(start: Start, kinds: Sequence[Kind], fits: Callable[[str], bool]) -> Iterator[Saga]:
    """One saga for every turn of every place that fits, on the way forward and on the way back."""
    for breaks, rehearsed in (((), forward(start)), ((fails_at_last(start),), backward(start))):
        for place, turns in sorted(rehearsed.turns.items()):
            for turn in range(turns) if fits(place) else ():
                for kind in kinds:
                    yield start.saga(*breaks, strike=Strike(kind, place, turn))


GROUPS: dict[str, tuple[Callable[[Start], Iterator[Saga]], bool]] = {
    "steps": (_steps_twice, True),
    "undos": (_undos, True),
    "crashes": (_crashes, False),
    "zombies": (_zombies, False),
    "calls": (_calls, False),
    "control": (_control, False),
    "requests": (_requests, False),
}
"""Each group, and whether the ordinary run plays all of it."""


def starts(catalog: Catalog) -> list[Start]:
    """Every operation of the catalog, from every lifecycle that it is allowed from, on both kinds of target."""
    return [
        Start(name, version, lifecycle, strength, catalog)
        for (name, version), operation in sorted(catalog.items())
        for lifecycle in sorted(operation.allowed)
        for strength in Strength
    ]


def situations(start: Start, group: str, share: int) -> list[Saga]:
    """The sagas of a group; of a large group every `share`-th, each start beginning elsewhere."""
    find, always = GROUPS[group]
    every = 1 if always else share
    offset = sum(map(ord, str(start))) % every
    return list(islice(find(start), offset, None, every))

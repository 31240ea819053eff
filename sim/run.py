"""One run: a scenario under one seed or one tape, from an empty world to a verdict."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import structlog

from sim.choices import Choices, Tape
from sim.invariants import Judge
from sim.loop import Line, Mode, SimLoop, SimulationError
from sim.twins.faults import Faults
from sim.world import Scenario, Violation, World
from spectrum.ports import buggified

MAX_STEPS = 500_000
MAX_TIME = 7 * 86_400.0
_MODES = (Mode.RANDOM, Mode.RANDOM, Mode.PRIORITIES, Mode.FIFO)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. `digest` is its trace hash, `seconds` the virtual time it took, `work` how much was done in it."""

    seed: int
    mode: Mode
    options: Mapping[str, float]
    violation: Violation | None
    steps: int
    seconds: float
    digest: str
    injected: Counter[str]
    marks: Counter[str]
    work: Counter[str]
    story: tuple[Line, ...] = field(repr=False)
    tape: Tape = field(repr=False)


def run(
    scenario: Scenario,
    seed: int,
    tape: Tape | None = None,
    rates: Mapping[str, float] | None = None,
    others: float | None = None,
) -> Outcome:
    """Run the scenario.

    `tape` replays recorded choices instead of drawing them; `rates` fixes the rates of some faults, `others` that of all the rest.
    """
    mode = _MODES[seed % len(_MODES)]
    choices = Choices(seed, tape)
    faults = Faults(choices, rates, others)
    loop = SimLoop(choices, mode, MAX_STEPS, MAX_TIME)
    # A collection in the middle would run finalizers at a step that depends on what was allocated before.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with buggified(faults.buggify), _told(loop):
            try:
                violation = _judged(World(loop, choices, faults), scenario)
            finally:
                loop.close()
        return Outcome(
            seed=seed,
            mode=mode,
            options=faults.options(),
            violation=violation,
            steps=loop.steps,
            seconds=loop.now,
            digest=loop.digest(),
            injected=faults.injected,
            marks=loop.marks,
            work=loop.work,
            story=tuple(loop.story),
            tape=choices.tape(),
        )
    finally:
        if collecting:
            gc.enable()


@contextmanager
def _told(loop: SimLoop) -> Iterator[None]:
    """What production code logs becomes a part of the story."""

    def tell(_logger: object, _level: str, event: MutableMapping[str, Any]) -> NoReturn:
        what = event.pop("event")
        loop.tell(" ".join([str(what), *(f"{name}={value}" for name, value in sorted(event.items()))]))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[tell], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


def _judged(world: World, scenario: Scenario) -> Violation | None:
    judge = Judge(world)
    world.loop.on_change = judge.after_change
    try:
        world.loop.run_until_complete(_to_the_end(world, scenario, judge))
    except Violation as violation:
        world.loop.settle_complaints()  # for the story: a task that died may be why
        return violation
    except SimulationError as error:
        return Violation(type(error).__name__, str(error))
    return None


async def _to_the_end(world: World, scenario: Scenario, judge: Judge) -> None:
    await scenario(world)
    world.loop.settle_complaints()
    judge.at_the_end()

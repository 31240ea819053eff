"""`decide`: what follows from one command on one aggregate at one moment. Pure; the engine is its one caller."""

from __future__ import annotations

from dataclasses import dataclass, replace

from spectrum.core.jobs import asking, holding, reporting
from spectrum.core.jobs.commands import (
    Answer,
    Cancel,
    Claim,
    Command,
    Consequences,
    Done,
    Holding,
    Lose,
    Observe,
    Rejection,
    Release,
    Report,
    Submit,
    Submitted,
    Tick,
)
from spectrum.core.jobs.model import Aggregate, Surroundings
from spectrum.core.jobs.turn import Refused, Turn
from spectrum.core.plan import Catalog


@dataclass(frozen=True, slots=True)
class Decision:
    """The aggregate after the command, what its sender is told, and what else follows."""

    aggregate: Aggregate
    answer: Answer
    consequences: Consequences


def decide(aggregate: Aggregate, command: Command, around: Surroundings, catalog: Catalog) -> Decision | Rejection:
    """What `command` makes of `aggregate` at the moment `around.now`.

    A rejection changes no row; its entries are evidence to keep.
    """
    turn = Turn(aggregate, command, around, catalog)
    try:
        answer = _answer(turn, command)
    except Refused as refused:
        return Rejection(refused.problem, refused.entries)
    after, consequences = turn.result()
    return Decision(after, _as_of(after, answer), consequences)


def _as_of(after: Aggregate, answer: Answer) -> Answer:
    """The answer with the rows as they will be stored, version included."""
    job = after.jobs.get(answer.job.id) if answer.job is not None else None
    match answer:
        case Done():
            return replace(answer, job=job)
        case Holding() | Submitted():
            return replace(answer, job=job or answer.job, instance=after.instance)


def _answer(turn: Turn, command: Command) -> Answer:
    match command:
        case Report():
            return reporting.report(turn, command)
        case Claim():
            return holding.claim(turn, command)
        case Release():
            return holding.release(turn, command)
        case Lose():
            return holding.lose(turn, command)
        case Submit():
            return asking.submit(turn, command)
        case Cancel():
            return asking.cancel(turn, command)
        case Tick():
            return holding.tick(turn)
        case Observe():
            return holding.observe(turn, command)
        case _:
            raise AssertionError(f"no such command: {type(command).__name__}")

"""Reads for answers: those of one organization that come together share a transaction, and with it a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from spectrum.core.errors import Problem
from spectrum.db.pools import Connection, Pool
from spectrum.db.visits import visiting
from spectrum.gathering import Gathering
from spectrum.ports import Spawner

LANES = 3  # transactions at the same time: a slow one does not hold up everybody

Q = TypeVar("Q")
A = TypeVar("A")

Look = Callable[[Connection, str, Sequence[Q]], Awaitable[Sequence[A | Exception]]]
"""Answers questions of one organization, each in its place; an exception for what has no answer."""


@dataclass(frozen=True, slots=True)
class _Asked:
    organization: str
    look: Look[Any, Any]
    question: Any


class Reads:
    """Point reads as the role of `pool`."""

    def __init__(self, pool: Pool, spawner: Spawner) -> None:
        self._pool = pool
        self._gathering: Gathering[_Asked, Any] = Gathering(self._look, spawner, "reads", LANES)

    async def ask(self, organization: str, look: Look[Q, A], question: Q) -> A:
        """The answer to one question. Raises what `look` has instead of one, and Problem `unavailable`."""
        answer: A = await self._gathering.answer(_Asked(organization, look, question))
        return answer

    async def _look(self, asked: Sequence[_Asked]) -> list[Any]:
        answers: dict[int, Any] = {}
        for organization in dict.fromkeys(each.organization for each in asked):
            places = [place for place, each in enumerate(asked) if each.organization == organization]
            try:
                answers |= await self._of(organization, {place: asked[place] for place in places})
            except Problem as problem:
                answers |= dict.fromkeys(places, problem)
        return [answers[place] for place in range(len(asked))]

    async def _of(self, organization: str, asked: dict[int, _Asked]) -> dict[int, Any]:
        answers: dict[int, Any] = {}
        async with visiting(self._pool, [organization]) as connection:
            for look in dict.fromkeys(each.look for each in asked.values()):
                places = [place for place, each in asked.items() if each.look is look]
                found = await look(connection, organization, [asked[place].question for place in places])
                answers |= dict(zip(places, found, strict=True))
        return answers

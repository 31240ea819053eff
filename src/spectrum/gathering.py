"""Batches without waiting (DESIGN §2): what is asked while an answer is under way shares the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from spectrum.core.errors import Problem
from spectrum.ports import Spawner

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass
class Gathering(Generic[Q, A]):
    """Asks `ask` of everything that came together, up to a weight of `most`; `lanes` such questions at the same time.

    `ask` answers each in its place, an exception for what has none. A `Problem` that it raises is everybody's answer; where
    anything else breaks it, each is asked alone, for that is nothing to the others (P19).
    """

    ask: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]]
    spawner: Spawner
    name: str
    lanes: int = 1
    most: int = 256
    weigh: Callable[[Q], int] = lambda question: 1
    _waiting: deque[tuple[Q, asyncio.Future[A], int]] = field(default_factory=deque)  # with the question's weight
    _asking: int = 0

    async def answer(self, question: Q) -> A:
        """The answer to this one. Raises what `ask` gave or raised instead, or what `weigh` raised of it."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future, self.weigh(question)))
        if self._asking < self.lanes:
            self._asking += 1
            self.spawner.spawn(self._ask_all(), self.name)
        return await future

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                await self._ask_some(self._next())
        finally:
            self._asking -= 1

    def _next(self) -> list[tuple[Q, asyncio.Future[A]]]:
        """The oldest that fit together; one that is too heavy goes alone."""
        question, future, weight = self._waiting.popleft()
        taken = [(question, future)]
        while self._waiting and (weight := weight + self._waiting[0][2]) <= self.most:
            taken.append(self._waiting.popleft()[:2])
        return taken

    async def _ask_some(self, taken: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        answers = await self._answers([question for question, _ in taken])
        for (_, future), answer in zip(taken, answers, strict=True):
            if future.done():  # whoever asked has gone
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _answers(self, questions: Sequence[Q]) -> Sequence[A | Exception]:
        try:
            return await self.ask(questions)
        except Problem as problem:
            return [problem] * len(questions)
        except Exception as error:
            if len(questions) == 1:
                return [error]
        return [answer for question in questions for answer in await self._answers([question])]

"""What is asked while an answer is under way shares the next question; each has its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from spectrum.core.errors import Problem
from spectrum.gathering import Gathering
from spectrum.ports import Tasks

pytestmark = pytest.mark.anyio


@dataclass
class Asked:
    """Doubles numbers, once it is let; an odd one has no answer, and from `broken` on there is none at all."""

    let: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    heard: list[list[int]] = field(default_factory=list)
    broken: bool = False

    async def ask(self, questions: Sequence[int]) -> list[int | Exception]:
        self.heard.append(list(questions))
        await self.let.acquire()
        if self.broken:
            raise ConnectionError("nobody there")
        return [ValueError(f"{each} is odd") if each % 2 else each * 2 for each in questions]


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    tasks = Tasks()
    yield tasks
    await tasks.close()


async def _begun(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_comes_while_an_answer_is_under_way_is_asked_together(tasks: Tasks) -> None:
    asked = Asked()
    gathering = Gathering(asked.ask, tasks, "test")
    waiting = [tasks.spawn(gathering.answer(number), "one") for number in (2, 4, 6)]
    await _begun(4)
    assert asked.heard == [[2, 4, 6]] or asked.heard == [[2]]
    later = [tasks.spawn(gathering.answer(number), "one") for number in (8, 10)]
    for _ in range(3):
        asked.let.release()
    assert await asyncio.gather(*waiting, *later) == [4, 8, 12, 16, 20]
    assert [each for together in asked.heard for each in together] == [2, 4, 6, 8, 10]
    assert len(asked.heard) < 5


async def test_what_has_no_answer_says_why_and_its_neighbours_have_theirs(tasks: Tasks) -> None:
    asked = Asked()
    asked.let.release()
    gathering = Gathering(asked.ask, tasks, "test")
    answers = await asyncio.gather(gathering.answer(2), gathering.answer(3), return_exceptions=True)
    assert answers[0] == 4
    assert isinstance(answers[1], ValueError)


async def test_a_question_that_can_not_be_asked_is_everybodys_answer_and_the_next_is_asked_again(tasks: Tasks) -> None:
    asked = Asked(broken=True)
    gathering = Gathering(asked.ask, tasks, "test")
    asked.let.release()
    with pytest.raises(ConnectionError):
        await gathering.answer(2)
    asked.broken = False
    asked.let.release()
    assert await gathering.answer(2) == 4


async def test_one_that_breaks_the_question_is_found_by_asking_each_alone(tasks: Tasks) -> None:
    async def ask(questions: Sequence[int]) -> list[int | Exception]:
        return [100 // each for each in questions]

    gathering = Gathering(ask, tasks, "test")
    answers = await asyncio.gather(*map(gathering.answer, (5, 0, 20)), return_exceptions=True)
    assert (answers[0], answers[2]) == (20, 5)
    assert isinstance(answers[1], ZeroDivisionError)


async def test_a_problem_is_everybodys_and_nobody_is_asked_again(tasks: Tasks) -> None:
    heard: list[Sequence[int]] = []

    async def ask(questions: Sequence[int]) -> list[int | Exception]:
        heard.append(questions)
        raise Problem("unavailable", "Nobody there.")

    gathering = Gathering(ask, tasks, "test")
    answers = await asyncio.gather(gathering.answer(1), gathering.answer(2), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["unavailable: Nobody there."] * 2
    assert heard == [[1, 2]]


async def test_no_more_than_fit_go_together_and_what_is_too_heavy_goes_alone(tasks: Tasks) -> None:
    asked = Asked()
    gathering = Gathering(asked.ask, tasks, "test", most=10, weigh=lambda number: number)
    waiting = [tasks.spawn(gathering.answer(number), "one") for number in (20, 4, 6, 2)]
    for _ in range(4):
        asked.let.release()
    assert await asyncio.gather(*waiting) == [40, 8, 12, 4]
    assert asked.heard == [[20], [4, 6], [2]]


async def test_who_has_gone_keeps_nobody_from_an_answer(tasks: Tasks) -> None:
    asked = Asked()
    gathering = Gathering(asked.ask, tasks, "test")
    gone, there = (tasks.spawn(gathering.answer(number), "one") for number in (2, 4))
    await _begun(4)
    gone.cancel()
    for _ in range(2):
        asked.let.release()
    assert await there == 8


async def test_what_can_not_be_weighed_is_nothing_to_the_others(tasks: Tasks) -> None:
    def weigh(question: int) -> int:
        if question == 4:
            raise ValueError("4 has no weight")
        return 1

    asked = Asked(let=asyncio.Semaphore(9))
    gathering = Gathering(asked.ask, tasks, "test", weigh=weigh)
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(gathering.answer(number) for number in (2, 4, 6)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["4", "4 has no weight", "12"]

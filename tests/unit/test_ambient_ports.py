"""The ambient ports as they really are."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC

import pytest

from spectrum.ports import SystemClock, SystemEntropy, Tasks, buggified, buggify


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_clock_tells_utc_and_never_goes_back() -> None:
    clock = SystemClock()

    assert clock.now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()


def test_entropy_does_not_repeat_itself() -> None:
    entropy = SystemEntropy()

    assert len({entropy.token(16) for _ in range(100)}) == 100
    assert all(0 <= entropy.uniform() < 1 for _ in range(100))


@pytest.mark.anyio
async def test_closing_cancels_what_runs_and_waits_for_it() -> None:
    tasks, ended = Tasks(), list[str]()

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("lingering")

    tasks.spawn(linger(), "linger")
    await asyncio.sleep(0)
    await tasks.close()

    assert ended == ["lingering"]


def test_an_exception_that_nobody_looks_at_reaches_the_loop_s_handler_with_its_task() -> None:
    unexpected: list[tuple[str, str]] = []

    async def fail() -> None:
        raise ValueError("no reason")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: unexpected.append((context["future"].get_name(), str(context["exception"])))
        )
        await asyncio.wait({Tasks().spawn(fail(), "sweeper")})
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())

    assert unexpected == [("sweeper", "no reason")]


@pytest.mark.anyio
async def test_nothing_is_started_for_an_owner_that_is_closed() -> None:
    tasks = Tasks()
    await tasks.close()

    with pytest.raises(RuntimeError, match="'late'"):
        tasks.spawn(asyncio.sleep(0), "late")


@pytest.mark.anyio
async def test_a_task_that_closes_its_own_owner_does_not_wait_for_itself() -> None:
    tasks = Tasks()
    other = tasks.spawn(asyncio.Event().wait(), "other")

    await asyncio.wait_for(tasks.spawn(tasks.close(), "closer"), 10)

    assert other.cancelled()


def test_rare_paths_are_taken_only_where_a_simulator_says_so() -> None:
    assert not buggify("anything")
    with buggified(lambda name: name == "this"):
        assert buggify("this")
        assert not buggify("that")
    assert not buggify("this")

"""The seeded loop: asyncio as it is, on virtual time, in an order that a seed decides."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from sim import scenarios
from sim.choices import Choices
from sim.loop import Deadlock, Livelock, Mode, SimLoop, SimulationError
from sim.run import run
from sim.world import World
from tests.sim.simulated import simulate


def order_of(seed: int, mode: Mode = Mode.RANDOM) -> list[int]:
    """In which order ten tasks run that are ready at once."""
    loop, order = SimLoop(Choices(seed), mode), list[int]()

    async def note(number: int) -> None:
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*(note(number) for number in range(10)))

    loop.run_until_complete(main())
    loop.close()
    return order


def test_the_primitives_of_asyncio_work_unmodified() -> None:
    async def body(world: World) -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        lock, ready = asyncio.Lock(), asyncio.Condition()
        taken: list[int] = []

        async def give() -> None:
            for number in range(3):
                async with lock:
                    await queue.put(number)

        async def take() -> None:
            for _ in range(3):
                taken.append(await asyncio.wait_for(queue.get(), 1))
            async with ready:
                ready.notify_all()

        async with asyncio.TaskGroup() as group, ready:
            group.create_task(give())
            group.create_task(take())
            await ready.wait()

        assert taken == [0, 1, 2]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.Event().wait()

    assert simulate(body).violation is None


def test_time_jumps_to_the_next_timer() -> None:
    async def body(world: World) -> None:
        before = asyncio.get_running_loop().time()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(1800))

        assert asyncio.get_running_loop().time() - before == pytest.approx(3600, abs=0.001)

    outcome = simulate(body)

    assert outcome.violation is None
    assert outcome.steps < 20


def test_ready_tasks_run_in_an_order_that_the_seed_decides() -> None:
    orders = {tuple(order_of(seed)) for seed in range(20)}

    assert order_of(7) == order_of(7)
    assert len(orders) > 15


def test_fifo_runs_ready_tasks_as_asyncio_does() -> None:
    assert order_of(3, Mode.FIFO) == list(range(10))


def test_priorities_decide_once_for_each_task() -> None:
    loop, turns = SimLoop(Choices(5), Mode.PRIORITIES), list[str]()

    async def take_turns(name: str) -> None:
        for _ in range(5):
            turns.append(name)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(take_turns("a"), take_turns("b"))

    loop.run_until_complete(main())
    loop.close()

    assert turns in (["a"] * 5 + ["b"] * 5, ["b"] * 5 + ["a"] * 5)


def test_a_set_of_tasks_is_iterated_in_the_same_order_in_every_run() -> None:
    def names() -> list[str]:
        loop = SimLoop(Choices(1))

        async def main() -> list[str]:
            tasks = {asyncio.create_task(asyncio.sleep(0)) for _ in range(50)}
            await asyncio.wait(tasks)
            return [task.get_name() for task in tasks]

        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    assert names() == names()


def test_a_world_in_which_nothing_can_happen_any_more_is_a_deadlock_that_names_who_waits() -> None:
    loop = SimLoop(Choices(1))

    async def wait_for_godot() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"task-\d+ at Event\.wait"):
        loop.run_until_complete(wait_for_godot())
    loop.close()


def test_a_world_that_only_spins_is_a_livelock() -> None:
    loop = SimLoop(Choices(1), max_steps=50_000)

    async def spin() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(Livelock, match="50000 steps"):
        loop.run_until_complete(spin())
    loop.close()


def test_a_timer_that_never_ends_is_a_livelock_too() -> None:
    loop = SimLoop(Choices(1), max_time=3600)

    async def tick() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(60)

    with pytest.raises(Livelock, match="3600 virtual seconds"):
        loop.run_until_complete(tick())
    loop.close()


def test_threads_are_refused() -> None:
    async def body(world: World) -> None:
        with pytest.raises(SimulationError, match="wants a thread"):
            await asyncio.to_thread(print)

    assert simulate(body).violation is None


def test_an_exception_that_nobody_looks_at_fails_the_run() -> None:
    async def body(world: World) -> None:
        async def fail() -> None:
            raise KeyError("lost")

        world.loop.outside(fail(), "forgotten")
        await asyncio.sleep(1)

    violation = simulate(body).violation

    assert violation is not None
    assert violation.promise == "exception"
    assert "forgotten ended with KeyError('lost')" in violation.what


@pytest.mark.parametrize("scenario", ["tests.sim.toy:fenced", "system-atomic", "provider-best-effort"])
def test_the_same_seed_takes_the_same_steps_in_another_process(scenario: str) -> None:
    seeds = (4, 5, 6, 7)  # one of each mode
    script = (
        "from sim import scenarios\nfrom sim.run import run\n"
        f"for seed in {seeds}: print(run(scenarios.find({scenario!r}), seed).digest)"
    )

    def digests(salt: str) -> list[str]:
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    here = [run(scenarios.find(scenario), seed).digest for seed in seeds]

    assert digests("1") == digests("4242") == here
    assert len(set(here)) == len(seeds)

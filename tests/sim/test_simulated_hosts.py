"""Hosts: crashes that leave nothing behind, pauses that nobody notices, clocks that are wrong."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from sim.hosts import EPOCH, Dead, Host, HostEntropy, require_alive
from sim.twins.provider import MemoryTarget
from sim.world import World
from spectrum.core.product.resources import Volume
from spectrum.ports import Tasks
from spectrum.providers.protocol import Call
from tests.sim.simulated import INSTANCE, grounded, simulate, things


def call(token: int) -> Call:
    return Call(INSTANCE, "data/volume", "data.1", 1, token)


def test_a_crash_runs_no_finally_block_that_reaches_the_world() -> None:
    refused: list[str] = []
    targets: list[MemoryTarget] = []

    async def body(world: World) -> None:
        target = grounded(world)
        targets.append(target)

        async def tidy(host: Host) -> None:
            provider = target.connect()
            await provider.ensure(call(1), Volume("data"))
            try:
                await host.clock.sleep(60)
            finally:
                try:
                    require_alive()
                except Dead:
                    refused.append(host.name)
                await provider.remove(call(2))

        host = world.host("worker", tidy)
        await asyncio.sleep(30)
        host.crash()
        await asyncio.sleep(60)
        assert refused == []

    assert simulate(body).violation is None
    assert refused == ["worker"]
    assert len(things(targets[0])) == 1


def test_a_dead_host_is_not_woken_by_what_it_waited_for() -> None:
    async def body(world: World) -> None:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        woken: list[int] = []

        async def wait(host: Host) -> None:
            woken.append(await answer)

        host = world.host("worker", wait)
        await asyncio.sleep(1)
        host.crash()
        answer.set_result(1)
        await asyncio.sleep(1)

        assert woken == []

    assert simulate(body).violation is None


def test_a_crash_between_the_answer_and_its_reading_loses_the_answer() -> None:
    async def body(world: World) -> None:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        woken: list[int] = []

        async def wait(host: Host) -> None:
            woken.append(await answer)

        host = world.host("worker", wait)
        await asyncio.sleep(1)
        answer.set_result(1)  # its wake-up is in the queue by now
        host.crash()
        await asyncio.sleep(1)

        assert woken == []

    assert simulate(body).violation is None


def test_a_host_can_crash_in_the_middle_of_its_own_call() -> None:
    async def body(world: World) -> None:
        after: list[str] = []

        async def fall(host: Host) -> None:
            try:
                await host.crash_here()
            finally:
                after.append("lived on")

        host = world.host("worker", fall)
        await asyncio.sleep(1)

        assert not host.up
        assert after == []

    assert simulate(body).violation is None


def test_a_new_life_starts_from_the_beginning() -> None:
    async def body(world: World) -> None:
        lives: list[str] = []

        async def live(host: Host) -> None:
            lives.append(host.name)
            await host.clock.sleep(60)

        host = world.host("worker", live)
        await asyncio.sleep(1)
        host.crash()
        host.start()
        await asyncio.sleep(1)

        assert lives == ["worker", "worker"]

    assert simulate(body).violation is None


def test_a_paused_host_notices_nothing_and_its_timers_fire_late() -> None:
    async def body(world: World) -> None:
        ticks: list[float] = []

        async def tick(host: Host) -> None:
            while True:
                await host.clock.sleep(1)
                ticks.append(host.clock.monotonic())

        host = world.host("worker", tick)
        await asyncio.sleep(2.5)
        host.pause()
        await asyncio.sleep(10)
        assert len(ticks) == 2
        host.resume()
        await asyncio.sleep(0.1)

        assert len(ticks) == 3
        assert ticks[2] == pytest.approx(12.5, abs=0.01)

    assert simulate(body).violation is None


def test_clocks_of_a_host_run_at_its_own_rate_and_offset() -> None:
    async def body(world: World) -> None:
        async def nothing(host: Host) -> None:
            await host.clock.sleep(1000)

        host = world.host("worker", nothing)
        host.crash()
        host.rate, host.offset = 2.0, 3600.0
        slept: list[float] = []

        async def sleep(host: Host) -> None:
            await host.clock.sleep(10)
            slept.append(world.loop.now)

        await asyncio.sleep(100)
        host.start()
        await host.spawn(sleep(host), "sleep")

        assert slept == [pytest.approx(105, abs=0.01)]
        assert host.clock.monotonic() == pytest.approx(210, abs=0.01)
        assert abs(host.clock.now() - EPOCH - timedelta(seconds=3600 + 210)) < timedelta(seconds=0.01)

    assert simulate(body).violation is None


def test_an_error_that_ends_a_host_s_main_coroutine_fails_the_run_at_once() -> None:
    async def body(world: World) -> None:
        async def fail(host: Host) -> None:
            raise ValueError("no configuration")

        world.host("worker", fail)
        await asyncio.sleep(1000)

    outcome = simulate(body)

    assert outcome.violation is not None
    assert "worker#1 ended with ValueError('no configuration')" in outcome.violation.what
    assert outcome.seconds < 1


def test_an_error_of_a_spawned_task_that_nobody_looks_at_fails_the_run() -> None:
    async def body(world: World) -> None:
        async def fail() -> None:
            raise ValueError("no reason")

        Tasks().spawn(fail(), "background")
        await asyncio.sleep(1)

    violation = simulate(body).violation

    assert violation is not None
    assert "background ended with ValueError('no reason')" in violation.what


def test_an_error_of_a_spawned_task_that_its_owner_looks_at_is_the_owner_s_affair() -> None:
    async def body(world: World) -> None:
        async def fail() -> None:
            raise ValueError("no reason")

        with pytest.raises(ValueError, match="no reason"):
            await Tasks().spawn(fail(), "background")

    assert simulate(body).violation is None


def test_the_entropy_of_a_host_depends_on_seed_and_name_alone() -> None:
    assert HostEntropy(1, "a").token(80) == HostEntropy(1, "a").token(80)
    assert HostEntropy(1, "a").token(16) != HostEntropy(1, "b").token(16)
    assert HostEntropy(1, "a").token(16) != HostEntropy(2, "a").token(16)
    assert 0 <= HostEntropy(1, "a").uniform() < 1

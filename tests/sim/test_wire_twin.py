"""The wire's twin: requests and answers get lost, doubled and reordered; handlers die with their host."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sim.hosts import Host
from sim.twins.wire import Unreachable, Wire
from sim.world import World
from tests.sim.simulated import simulate


class Server:
    """Remembers what arrived."""

    def __init__(self, world: World) -> None:
        self.arrived: list[Any] = []
        self.wire = Wire(world.faults)
        self.host = world.host("control", self._serve)

    async def _serve(self, host: Host) -> None:
        self.wire.listen("control", host, self._handle)
        await asyncio.Event().wait()

    async def _handle(self, request: Any) -> str:
        self.arrived.append(request)
        await self.host.clock.sleep(0.1)
        return f"did {request}"


async def fails(server: Server, request: Any) -> Unreachable | TimeoutError:
    with pytest.raises((Unreachable, TimeoutError)) as caught:
        async with asyncio.timeout(10):
            await server.wire.send("control", request)
    error = caught.value
    assert isinstance(error, Unreachable | TimeoutError)
    return error


def test_a_request_is_answered() -> None:
    async def body(world: World) -> None:
        server = Server(world)
        await asyncio.sleep(1)

        assert await server.wire.send("control", 1) == "did 1"

    assert simulate(body).violation is None


def test_a_lost_request_was_never_done() -> None:
    async def body(world: World) -> None:
        server = Server(world)
        await asyncio.sleep(1)
        error = await fails(server, 1)

        assert server.arrived == []
        assert isinstance(error, TimeoutError) or not error.perhaps_done

    for seed in range(5):
        assert simulate(body, seed, {"http drop request": 1.0}).violation is None


def test_a_lost_answer_leaves_its_sender_in_doubt() -> None:
    async def body(world: World) -> None:
        server = Server(world)
        await asyncio.sleep(1)
        error = await fails(server, 1)

        assert server.arrived == [1]
        assert isinstance(error, TimeoutError) or error.perhaps_done

    for seed in range(5):
        assert simulate(body, seed, {"http drop answer": 1.0}).violation is None


def test_a_doubled_request_is_handled_twice_and_answered_once() -> None:
    async def body(world: World) -> None:
        server = Server(world)
        await asyncio.sleep(1)

        assert await server.wire.send("control", 1) == "did 1"
        await asyncio.sleep(5)
        assert server.arrived == [1, 1]

    assert simulate(body, rates={"http duplicate": 1.0}).violation is None


def test_requests_overtake_each_other() -> None:
    overtaken = 0

    async def body(world: World) -> None:
        nonlocal overtaken
        server = Server(world)
        await asyncio.sleep(1)
        await asyncio.gather(*(server.wire.send("control", number) for number in range(5)))
        overtaken += server.arrived != sorted(server.arrived)

    for seed in range(10):
        assert simulate(body, seed).violation is None
    assert overtaken > 0


def test_a_crash_takes_the_handler_with_it() -> None:
    async def body(world: World) -> None:
        server = Server(world)
        await asyncio.sleep(1)
        sending = asyncio.create_task(fails(server, 1))
        await asyncio.sleep(0.05)
        assert server.arrived == [1]
        server.host.crash()
        error = await sending

        assert isinstance(error, Unreachable)
        assert error.perhaps_done

    assert simulate(body).violation is None


@pytest.mark.parametrize(("way", "arrives"), [("to", False), ("from", True)])
def test_a_partition_may_cut_one_way_only(way: str, arrives: bool) -> None:
    async def body(world: World) -> None:
        server = Server(world)
        await asyncio.sleep(1)
        server.wire.cut.add((way, "control"))
        await fails(server, 1)

        assert bool(server.arrived) is arrives

    assert simulate(body).violation is None


def test_what_a_handler_raises_reaches_the_sender() -> None:
    async def body(world: World) -> None:
        wire = Wire(world.faults)

        async def serve(host: Host) -> None:
            wire.listen("control", host, refuse)
            await asyncio.Event().wait()

        async def refuse(request: Any) -> None:
            raise PermissionError(f"not {request}")

        world.host("control", serve)
        await asyncio.sleep(1)
        with pytest.raises(PermissionError, match="not you"):
            await wire.send("control", "you")

    assert simulate(body).violation is None

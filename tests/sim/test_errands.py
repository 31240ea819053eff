"""A worker's errands on the memory target: what a look tells, and what it must not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from sim.world import World
from spectrum.core.ids import InstanceId, LeaseId, RequestId
from spectrum.core.product.resources import Service
from spectrum.ports import SystemClock, Tasks
from spectrum.providers.protocol import Call
from spectrum.transports.protocol import (
    Chunk,
    Incarnation,
    Link,
    LinkDown,
    LogsAsked,
    Look,
    Onward,
    Requests,
    Sighting,
)
from spectrum.worker.errands import LOOKS, Errands
from tests.sim.simulated import INSTANCE, grounded, simulate

URL = "memory://"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
INCARNATION = Incarnation(LeaseId("lea"), 1, 15.0, 5.0)


@dataclass
class Heard:
    """A control plane's ear: what it was told. It is deaf to the first `deaf` calls, and reads `reads` pieces of a stream."""

    deaf: int = 0
    reads: int = 1_000
    sightings: list[Sighting] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    async def observed(self, incarnation: Incarnation, sightings: Sequence[Sighting]) -> None:
        self.sightings += sightings

    async def stream(self, incarnation: Incarnation, chunk: Chunk) -> Onward:
        if self.deaf:
            self.deaf -= 1
            raise LinkDown("deaf")
        self.chunks.append(chunk)
        return Onward(taken=True, wanted=len(self.chunks) < self.reads and not chunk.ends)

    @property
    def texts(self) -> list[str]:
        return [line["text"] for chunk in self.chunks for line in chunk.lines]


def look(fence: int, instance: InstanceId = INSTANCE, url: str = URL) -> Look:
    return Look(instance, url, fence, 1, NOW)


class VirtualClock(SystemClock):
    """The simulator's own time."""

    def __init__(self, world: World) -> None:
        self.world = world

    def monotonic(self) -> float:
        return self.world.loop.now


async def run(world: World, target: Any, heard: Heard, requests: Requests) -> Errands:
    """Carry the errands out to their end."""
    errands = Errands(cast(Link, heard), {URL: target.connect()}, VirtualClock(world), Tasks())
    errands.take(INCARNATION, requests)
    taken = errands.room
    assert (taken.looks < LOOKS) == bool(requests.looks)
    await world.patiently(lambda: errands.room.looks == LOOKS and not errands.streaming, "the errands' end", 60.0)
    return errands


def test_a_look_tells_the_services_and_needs_nothing_but_its_fence() -> None:
    async def body(world: World) -> None:
        target, heard = grounded(world), Heard()
        target.make(Call(INSTANCE, "web/container", "web.1", 5, 6), Service("web", ("serve",)))
        await run(world, target, heard, Requests((look(6),)))
        (sighting,) = heard.sightings
        assert (sighting.answered, [s["name"] for s in sighting.services]) == (True, ["web"])

    simulate(body)


def test_a_look_with_a_stale_fence_or_at_another_target_tells_nothing() -> None:
    async def body(world: World) -> None:
        target, heard = grounded(world), Heard()
        target.deliver(Call(INSTANCE, "", "", 9))
        await run(world, target, heard, Requests((look(8), look(9, url="memory://elsewhere"))))
        assert heard.sightings == []

    simulate(body)


def test_a_target_that_does_not_answer_is_told_and_stops_no_other_look() -> None:
    async def body(world: World) -> None:
        target, heard = grounded(world), Heard()
        down = grounded(world)
        down.line.up = False
        errands = Errands(
            cast(Link, heard), {URL: target.connect(), "memory://down": down.connect()}, VirtualClock(world), Tasks()
        )
        errands.take(INCARNATION, Requests((look(1, url="memory://down"), look(1))))
        await world.patiently(lambda: errands.room.looks == LOOKS, "the errands' end", 60.0)
        assert sorted((s.look.target_url, s.answered) for s in heard.sightings) == [
            (URL, True),
            ("memory://down", False),
        ]

    simulate(body)


def asked(**changes: Any) -> Requests:
    wish = {"tail": 10_000, "follow": False, **changes}
    return Requests(logs=(LogsAsked(RequestId("req"), INSTANCE, URL, **wish),))


def test_lines_go_out_in_numbered_pieces_to_their_end_also_past_a_control_plane_that_is_away_for_a_while() -> None:
    async def body(world: World) -> None:
        target, heard = grounded(world), Heard(deaf=3)
        said = [f"line {number}" for number in range(1_200)]
        for text in said:
            target.write(INSTANCE, "web", text)
        await run(world, target, heard, asked())
        assert heard.texts == said
        assert [chunk.number for chunk in heard.chunks] == list(range(1, len(heard.chunks) + 1))
        assert [chunk.ends for chunk in heard.chunks][-2:] == [False, True]

    simulate(body)


def test_a_quiet_stream_says_that_it_lives_and_ends_once_nobody_reads() -> None:
    async def body(world: World) -> None:
        target, heard = grounded(world), Heard(reads=3)
        await run(world, target, heard, asked(follow=True))
        assert [(chunk.number, chunk.lines, chunk.ends) for chunk in heard.chunks] == [
            (1, (), False),
            (2, (), False),
            (3, (), False),
        ]

    simulate(body)


def test_a_text_that_postgresql_can_not_keep_is_made_harmless_and_a_long_one_is_cut() -> None:
    async def body(world: World) -> None:
        target, heard = grounded(world), Heard()
        target.write(INSTANCE, "web", "a\x00b")
        target.write(INSTANCE, "web", "x" * 100_000)
        await run(world, target, heard, asked())
        assert heard.texts == ["a\ufffdb", "x" * 16_384]

    simulate(body)


def test_a_request_for_a_target_out_of_reach_is_answered_with_the_reason() -> None:
    async def body(world: World) -> None:
        target, heard = grounded(world), Heard()
        await run(world, target, heard, Requests(logs=(LogsAsked(RequestId("req"), INSTANCE, "memory://elsewhere"),)))
        (chunk,) = heard.chunks
        assert (chunk.ends, "can't reach" in chunk.problem) == (True, True)

    simulate(body)

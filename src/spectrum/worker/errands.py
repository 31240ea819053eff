"""What a worker is asked besides its jobs: to look at instances, and to read what somebody waits for (DESIGN §3.16).

Errands need no right of their own: a look delivers the fence that it was handed out with, and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from spectrum.core.errors import Fault, Problem, StaleFence
from spectrum.core.moments import stamp
from spectrum.core.observation import LogLine, Observed, condition_as_json
from spectrum.ports import Clock, Spawner
from spectrum.providers.protocol import Provider
from spectrum.transports.protocol import (
    Chunk,
    Incarnation,
    Link,
    LinkDown,
    LogsAsked,
    Look,
    Requests,
    Room,
    Sighting,
)
from spectrum.worker.rendering import service_state

CONTAINER = "/container"
LOOKS = 64  # that may wait here
SIDE_BY_SIDE = 16
LOOK_SECONDS = 5.0
STREAMS = 16
QUIET_SECONDS = 2.0  # after which an empty piece says that the stream lives, and asks whether somebody reads
GATHER_SECONDS = 0.2  # lines that come together travel together
PIECE_LINES = 500
PIECE_BYTES = 128 * 1024
LINE_CHARACTERS = 16 * 1024
AGAIN_SECONDS = 1.0
PATIENCE = 5  # times that a piece is sent to a control plane that does not answer

_log = structlog.get_logger(__name__)


@dataclass
class Errands:
    """Runs errands beside the jobs, so many at a time."""

    link: Link
    providers: Mapping[str, Provider]  # by the target's URL
    clock: Clock
    spawner: Spawner
    _looking: int = 0
    _streams: int = 0
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SIDE_BY_SIDE))

    @property
    def room(self) -> Room:
        return Room(max(0, LOOKS - self._looking), max(0, STREAMS - self._streams))

    @property
    def streaming(self) -> int:
        """How many streams go on."""
        return self._streams

    def take(self, incarnation: Incarnation, requests: Requests) -> None:
        """Begin with what was asked."""
        if requests.looks:
            self._looking += len(requests.looks)
            self.spawner.spawn(self._look_at_all(incarnation, requests.looks), "looks")
        for asked in requests.logs:
            self._streams += 1
            self.spawner.spawn(self._read(incarnation, asked), f"logs {asked.id}")

    # ---- looking

    async def _look_at_all(self, incarnation: Incarnation, looks: Sequence[Look]) -> None:
        try:
            found = await asyncio.gather(*(self._look(look) for look in looks))
            sightings = [sighting for sighting in found if sighting is not None]
            if sightings:
                await self.link.observed(incarnation, sightings)
        except (LinkDown, Problem) as error:
            # They are due again soon: an old sighting is worth less than a new one.
            _log.info("sightings were not heard", count=len(looks), error=str(error))
        finally:
            self._looking -= len(looks)

    async def _look(self, look: Look) -> Sighting | None:
        """What is there; None where somebody with a newer fence has been there, or this worker can't reach the target."""
        provider = self.providers.get(look.target_url)
        if provider is None:
            return None
        async with self._gate:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    seen = await provider.survey(look.instance_id, look.fence)
            except StaleFence:
                return None
            except (Fault, TimeoutError, OSError) as error:
                _log.info("target does not answer", instance_id=look.instance_id, error=str(error))
                return Sighting(look, answered=False)
        return sighting_of(look, seen)

    # ---- streams

    async def _read(self, incarnation: Incarnation, asked: LogsAsked) -> None:
        sender = _Sender(self.link, self.clock, self.spawner, incarnation, asked)
        try:
            provider = self.providers.get(asked.target_url)
            if provider is None:
                await sender.end("The worker that was asked can't reach the target of this instance.")
                return
            lines = provider.logs(asked.instance_id, asked.service, asked.since, asked.tail, asked.follow)
            await sender.send_all(lines)
        except Fault as fault:
            await sender.end(fault.failure.message or "The target does not answer.")
        except (LinkDown, Problem) as error:
            _log.info("stream broke off", request_id=asked.id, error=str(error))
        except OSError as error:
            await sender.end(f"The logs can't be read: {error}.")
        finally:
            self._streams -= 1


@dataclass
class _Sender:
    """One stream on its way: numbered pieces, each sent until it was taken."""

    link: Link
    clock: Clock
    spawner: Spawner
    incarnation: Incarnation
    asked: LogsAsked
    number: int = 0
    wanted: bool = True
    _next: asyncio.Task[LogLine | None] | None = None

    async def send_all(self, lines: AsyncIterator[LogLine]) -> None:
        """Send until the lines end or nobody reads any more. What can't be sent is not read either."""
        try:
            while self.wanted:
                piece, ended = await self._gather(lines)
                await self._send(piece, ends=ended)
                if ended:
                    return
        finally:
            if self._next is not None:
                self._next.cancel()
                await asyncio.wait({self._next})
            await _close(lines)

    async def end(self, problem: str) -> None:
        """Say why there is nothing more."""
        try:
            await self._send((), ends=True, problem=problem)
        except (LinkDown, Problem) as error:
            _log.info("the end of a stream was not heard", request_id=self.asked.id, error=str(error))

    async def _gather(self, lines: AsyncIterator[LogLine]) -> tuple[list[LogLine], bool]:
        """The lines of the next piece, none where nothing came for a while; and whether they have ended."""
        piece: list[LogLine] = []
        size, until = 0, self.clock.monotonic() + QUIET_SECONDS
        while len(piece) < PIECE_LINES and size < PIECE_BYTES:
            if self._next is None:
                self._next = self.spawner.spawn(_next(lines), f"line of {self.asked.id}")
            await asyncio.wait({self._next}, timeout=max(0.0, until - self.clock.monotonic()))
            if not self._next.done():
                break
            finished, self._next = self._next, None
            line = finished.result()
            if line is None:
                return piece, True
            until = until if piece else self.clock.monotonic() + GATHER_SECONDS
            piece.append(line)
            size += len(line.text)
        return piece, False

    async def _send(self, lines: Sequence[LogLine], ends: bool = False, problem: str = "") -> None:
        """Returns once it was taken, or is not wanted. Raises `LinkDown` where nobody answers for long, `Problem` for a no."""
        chunk = Chunk(self.asked.id, self.number + 1, tuple(_as_json(line) for line in lines), ends, problem)
        tries = 0
        while True:
            try:
                onward = await self.link.stream(self.incarnation, chunk)
            except LinkDown:
                tries += 1
                if tries == PATIENCE:
                    raise
                await self.clock.sleep(AGAIN_SECONDS)
                continue
            self.wanted = onward.wanted
            if onward.taken or not onward.wanted:
                self.number += 1
                return


async def _next(lines: AsyncIterator[LogLine]) -> LogLine | None:
    return await anext(lines, None)


async def _close(lines: AsyncIterator[LogLine]) -> None:
    if isinstance(lines, AsyncGenerator):
        await lines.aclose()


def _as_json(line: LogLine) -> Mapping[str, Any]:
    # PostgreSQL keeps no NUL in JSON.
    text = line.text[:LINE_CHARACTERS].replace("\x00", "\ufffd")
    return {"at": stamp(line.at), "service": line.service, "stream": line.stream, "text": text}


def sighting_of(look: Look, seen: Sequence[Observed]) -> Sighting:
    """What a survey says of the instance's services and of what its target can't do."""
    containers = [(each.slot.removesuffix(CONTAINER), each) for each in seen if each.slot.endswith(CONTAINER)]
    services = tuple(service_state(name, each) for name, each in sorted(containers, key=lambda pair: pair[0]))
    conditions = tuple(condition_as_json(condition) for each in seen for condition in each.conditions)
    return Sighting(look, True, services, conditions)

"""The clients of `bench/streams.py` as a process of their own: they follow events, and know afterwards what each of them saw.

It reads orders from standard input, one JSON object a line, and answers each with one. *Steady* clients read as fast as they can,
*restless* ones cut their connection again and again, *stalled* ones read nothing until they are told to.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

END = b"\r\n\r\n"
AGAIN_SECONDS = 0.5
LOOK_SECONDS = 0.05
TOGETHER = 50  # connections that are made at the same time


class Kind(StrEnum):
    STEADY = "steady"
    RESTLESS = "restless"
    STALLED = "stalled"


class Follower(asyncio.Protocol):
    """One client, over one connection after the other."""

    def __init__(self, crowd: Crowd, kind: Kind, organization: str, token: str, random_: random.Random) -> None:
        self.kind = kind
        self.reads = kind != Kind.STALLED
        self.organization = organization
        self.seen = array("q")
        self.foreign = 0
        self.lost = 0
        self.began = asyncio.Event()
        self._crowd = crowd
        self._token = token
        self._random = random_
        self._transport: asyncio.Transport | None = None
        self._place = ""
        self._raw = self._text = b""
        self._accepted = False
        self._left = 0

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, self._crowd.host, self._crowd.port)

    def resume(self) -> None:
        self.reads = True
        assert self._transport is not None
        self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._reset()
        place = f"last-event-id: {self._place}\r\n" if self._place else ""
        head = f"GET /v1/stream HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {self._token}\r\n{place}\r\n"
        self._transport.write(head.encode())

    def connection_lost(self, error: Exception | None) -> None:
        self.lost += 1
        if not self._crowd.over:
            self._crowd.again(self)

    def data_received(self, data: bytes) -> None:
        self._raw += data
        if not self._accepted:
            head, found, self._raw = self._raw.partition(END)
            if not found:
                self._raw = head
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._crowd.refused[head.partition(b"\r\n")[0].decode()] += 1
                self._abort()
                return
            self._accepted = True
        while (end := self._raw.find(b"\r\n")) >= 0:
            size = int(self._raw[:end], 16)
            if len(self._raw) < end + size + 4:
                return
            self._read(self._raw[end + 2 : end + 2 + size])
            self._raw = self._raw[end + size + 4 :]

    def _read(self, text: bytes) -> None:
        *messages, self._text = (self._text + text).split(b"\n\n")
        for message in messages:
            head, _, data = message.partition(b"\ndata: ")
            self._place = head.rpartition(b"id: ")[2].decode()
            if data:
                self.seen.append(int(self._place))
                self.foreign += self.organization.encode() not in data
                self._left -= 1
        if messages and not self.began.is_set():
            self.began.set()
            if not self.reads and self._transport is not None:
                self._transport.pause_reading()
        if self.kind == Kind.RESTLESS and self._left <= 0:
            self._abort()

    def _reset(self) -> None:
        self._raw = self._text = b""
        self._accepted = False
        self._left = self._random.randint(20, 400)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


@dataclass
class Crowd:
    """All clients of one server."""

    host: str
    port: int
    followers: list[Follower] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    over: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def follow(self, kind: str, count: int, tokens: Mapping[str, str], seed: int) -> dict[str, Any]:
        """Have so many more clients, spread over the organizations."""
        organizations = list(tokens)
        made = [
            Follower(self, Kind(kind), organization, tokens[organization], random.Random(f"{seed}/{kind}/{number}"))
            for number in range(count)
            for organization in [organizations[number % len(organizations)]]
        ]
        self.followers += made
        for first in range(0, count, TOGETHER):
            some = made[first : first + TOGETHER]
            await asyncio.gather(*(each.connect() for each in some))
            await asyncio.gather(*(each.began.wait() for each in some))
        return {"following": len(self.followers)}

    async def catch_up(self, told: Mapping[str, int], stalled: bool) -> dict[str, Any]:
        """Return once everybody has seen as many events as were told, but for those who read nothing; with `stalled` these too."""
        if stalled:
            for each in self.followers:
                if not each.reads:
                    each.resume()
        while any(  # noqa: ASYNC110 - thousands of clients would set it at every event
            each.reads and len(each.seen) < told[each.organization] for each in self.followers
        ):
            await asyncio.sleep(LOOK_SECONDS)
        return {}

    async def judge(self, told: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """What each saw, beside what there was to see."""
        found: Counter[str] = Counter({"events": 0, "missed": 0, "doubled": 0, "disordered": 0, "foreign": 0})
        lost: Counter[str] = Counter()
        for each in self.followers:
            wanted, seen = told[each.organization], set(each.seen)
            found["events"] += len(each.seen)
            found["missed"] += len(set(wanted) - seen)
            found["doubled"] += len(each.seen) - len(seen)
            found["disordered"] += list(each.seen) != sorted(each.seen)
            found["foreign"] += each.foreign + len(seen - set(wanted))
            lost[each.kind] += each.lost
        return {**found, "lost": dict(lost), "refused": dict(self.refused)}

    def again(self, follower: Follower) -> None:
        async def connect() -> None:
            await asyncio.sleep(AGAIN_SECONDS)
            await follower.connect()

        task = asyncio.get_running_loop().create_task(connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def main(url: str) -> None:
    parts = urlsplit(url)
    crowd = Crowd(parts.hostname or "", parts.port or 80)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        answer = await getattr(crowd, order.pop("do"))(**order)
        print(json.dumps(answer), flush=True)
    crowd.over = True


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1]))

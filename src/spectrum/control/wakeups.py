"""Who waits for work or for news, and what wakes them: a hint proves nothing, and losing one costs only time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Wakeups:
    """Waiters by topic, such as a pool or a job. A slow poll stands behind every wait.

    `ended`: this copy is about to stop. Nobody waits here any more, and who waits for long asks another copy.
    """

    ended: bool = False
    _waiting: dict[str, set[asyncio.Future[None]]] = field(default_factory=lambda: defaultdict(set))
    _turns: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def listening(self, *topics: str) -> Iterator[asyncio.Future[None]]:
        """Meanwhile no wake-up of the topics is missed: the first completes the future."""
        future = asyncio.get_running_loop().create_future()
        if self.ended:
            future.set_result(None)
        for topic in topics:
            self._waiting[topic].add(future)
        try:
            yield future
        finally:
            for topic in topics:
                self._waiting[topic].discard(future)
                if not self._waiting[topic]:
                    del self._waiting[topic]

    async def wait(self, topic: str, seconds: float) -> bool:
        """True once the topic is woken, False after `seconds`."""
        with self.listening(topic) as woken:
            return await within(woken, seconds)

    def turn(self, topic: str) -> int:
        """How often the topic was woken since this was first asked of it: who remembers it can tell that there was news since."""
        return self._turns.setdefault(topic, 0)

    def wake(self, topic: str) -> None:
        if topic in self._turns:
            self._turns[topic] += 1
        for future in self._waiting.get(topic, ()):
            if not future.done():
                future.set_result(None)

    def wake_all(self) -> None:
        """Some wake-up may have been missed: everybody looks."""
        for topic in {*self._waiting, *self._turns}:
            self.wake(topic)

    @property
    def waiting(self) -> int:
        """How many wait now, whatever for."""
        return sum(map(len, self._waiting.values()))

    def end(self) -> None:
        """Let everybody go, now and from now on."""
        self.ended = True
        self.wake_all()


async def within(woken: asyncio.Future[None], seconds: float) -> bool:
    """True once the future is done, False after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await woken
    except TimeoutError:
        return False
    return True

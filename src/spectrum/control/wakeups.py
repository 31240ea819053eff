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

    @contextmanager
    def listening(self, topic: str) -> Iterator[asyncio.Future[None]]:
        """Meanwhile no wake-up of the topic is missed: it completes the future."""
        future = asyncio.get_running_loop().create_future()
        if self.ended:
            future.set_result(None)
        self._waiting[topic].add(future)
        try:
            yield future
        finally:
            self._waiting[topic].discard(future)
            if not self._waiting[topic]:
                del self._waiting[topic]

    async def wait(self, topic: str, seconds: float) -> bool:
        """True once the topic is woken, False after `seconds`."""
        with self.listening(topic) as woken:
            return await within(woken, seconds)

    def wake(self, topic: str) -> None:
        for future in self._waiting.get(topic, ()):
            if not future.done():
                future.set_result(None)

    def wake_all(self) -> None:
        """Some wake-up may have been missed: everybody looks."""
        for topic in list(self._waiting):
            self.wake(topic)

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

"""Who waits for work or for news, and what wakes them: a hint proves nothing, and losing one costs only time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Wakeups:
    """Waiters by topic, such as a pool or a job. A slow poll stands behind every wait."""

    _waiting: dict[str, set[asyncio.Future[None]]] = field(default_factory=lambda: defaultdict(set))

    async def wait(self, topic: str, seconds: float) -> bool:
        """True once the topic is woken, False after `seconds`."""
        with self.listening(topic) as ear:
            return await ear.wait(seconds)

    @contextmanager
    def listening(self, topic: str) -> Iterator[Ear]:
        """Hear the topic from now on: what is woken between two waits is not missed."""
        future = asyncio.get_running_loop().create_future()
        ear = Ear(self, topic, future)
        self._waiting[topic].add(future)
        try:
            yield ear
        finally:
            self._forget(topic, ear.future)

    def _forget(self, topic: str, future: asyncio.Future[None]) -> None:
        self._waiting[topic].discard(future)
        if not self._waiting[topic]:
            del self._waiting[topic]

    def _renew(self, topic: str, heard: asyncio.Future[None]) -> asyncio.Future[None]:
        fresh = asyncio.get_running_loop().create_future()
        self._waiting[topic].add(fresh)
        self._forget(topic, heard)
        return fresh

    def wake(self, topic: str) -> None:
        for future in self._waiting.get(topic, ()):
            if not future.done():
                future.set_result(None)


@dataclass
class Ear:
    """Somebody who listens to one topic."""

    wakeups: Wakeups
    topic: str
    future: asyncio.Future[None]

    async def wait(self, seconds: float) -> bool:
        """True once the topic was woken since the last wait (or since the listening began), False after `seconds`."""
        await asyncio.wait({self.future}, timeout=max(0.0, seconds))
        if not self.future.done():
            return False
        self.future = self.wakeups._renew(self.topic, self.future)
        return True

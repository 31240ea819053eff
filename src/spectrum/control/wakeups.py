"""Who waits for work or for news, and what wakes them: a hint proves nothing, and losing one costs only time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Wakeups:
    """Waiters by topic, such as a pool or a job. A slow poll stands behind every wait."""

    _waiting: dict[str, set[asyncio.Future[None]]] = field(default_factory=lambda: defaultdict(set))

    async def wait(self, topic: str, seconds: float) -> bool:
        """True once the topic is woken, False after `seconds`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[topic].add(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return False
        finally:
            self._waiting[topic].discard(future)
            if not self._waiting[topic]:
                del self._waiting[topic]
        return True

    def wake(self, topic: str) -> None:
        for future in self._waiting.get(topic, ()):
            if not future.done():
                future.set_result(None)

    def wake_all(self) -> None:
        """Some wake-up may have been missed: everybody looks."""
        for topic in list(self._waiting):
            self.wake(topic)

"""Hints between copies of the control plane: what one commits wakes who waits on another. Losing one costs only time.

A NOTIFY never rides on a business transaction, because all that notify commit one after the other: topics are gathered for a few
milliseconds and told in a transaction of their own, on the one connection that also listens. It is made anew when it is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog

from spectrum.core.jobs.store import Unavailable
from spectrum.db.losses import answerable
from spectrum.db.pools import Pool, Pooled, drop, give_back
from spectrum.db.sql import query
from spectrum.ports import Clock, Entropy

CHANNEL = "spectrum_wakeups"
DEBOUNCE_SECONDS = 0.005
PAYLOAD_BYTES = 7900  # PostgreSQL takes less than 8000
PING_SECONDS = 10.0
RECONNECT_SECONDS = 1.0
TOPICS_KEPT = 10_000

_TELL = query("notices_tell")
_PING = query("notices_ping")

_log = structlog.get_logger(__name__)


@dataclass
class Notices:
    """One copy's ear and mouth. `copy` names it, so that it does not listen to itself.

    `heard` gets every topic that another copy told; `missed` is called when some may have been.
    """

    system: Pool
    copy: str
    heard: Callable[[str], None]
    missed: Callable[[], None]
    clock: Clock
    entropy: Entropy
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    _topics: dict[str, None] = field(default_factory=dict)
    _stir: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, topics: Iterable[str]) -> None:
        """Tell the other copies soon. While there is no connection, only so much is kept to be told later."""
        if len(self._topics) < TOPICS_KEPT:
            self._topics.update(dict.fromkeys(topics))
            self._stir.set()

    async def run(self) -> None:
        """Listen and tell, over one connection after the other."""
        while True:
            try:
                with answerable():
                    await self._connected()
            except Unavailable as error:
                _log.info("no notices for a moment", reason=str(error))
            except Exception:
                _log.exception("no notices for a moment")
            finally:
                self.listening.clear()
            await self.clock.sleep(RECONNECT_SECONDS * self.entropy.uniform())

    async def _connected(self) -> None:
        connection = await self.system.acquire(timeout=PING_SECONDS)
        try:
            connection.add_termination_listener(self._lost)
            await connection.add_listener(CHANNEL, self._hear)
            self.listening.set()
            self.missed()
            while not connection.is_closed():
                await self._tell_or_ping(connection)
        except asyncio.CancelledError:
            await self._fall_silent(connection)
            raise
        except BaseException:
            drop(connection)
            raise
        finally:
            await give_back(self.system, connection)

    async def _fall_silent(self, connection: Pooled) -> None:
        """The driver ends a command that is under way before it does the next one."""
        try:
            connection.remove_termination_listener(self._lost)
            await connection.remove_listener(CHANNEL, self._hear)
        except Exception:  # whatever it is, nobody listens on it any more
            drop(connection)

    def _lost(self, connection: object) -> None:
        self._stir.set()

    async def _tell_or_ping(self, connection: Pooled) -> None:
        """A connection whose other end has vanished says nothing: it is asked now and then."""
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._stir.wait()
        except TimeoutError:
            await connection.execute(_PING, timeout=PING_SECONDS)
            return
        self._stir.clear()
        await self.clock.sleep(DEBOUNCE_SECONDS)
        if self._topics:
            topics, self._topics = self._topics, {}
            await connection.execute(_TELL, CHANNEL, list(_payloads(self.copy, topics)))

    def _hear(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        teller, *topics = str(payload).split()
        if teller != self.copy:
            for topic in topics:
                self.heard(topic)


def _payloads(copy: str, topics: Iterable[str]) -> Iterator[str]:
    """Topics joined by blanks, in as few payloads as they fit into. No topic is longer than one, and none has a blank."""
    payload = copy
    for topic in topics:
        if len(payload) + 1 + len(topic) > PAYLOAD_BYTES:
            yield payload
            payload = copy
        payload = f"{payload} {topic}"
    yield payload

"""The tail of the log: whoever follows events here shares one reader of what is new (DESIGN §3.19).

New events are read once, by position, and kept in a window. Who follows has a place in the log and no queue: nothing is kept for
one that is slow but what is on its way to it. One whose place lies before the window reads pages of the log, in its own
organization's scope, until it is within the window; the two meet without a gap and without an overlap, because both go by position.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from spectrum.control.instance_views import find_instance
from spectrum.control.log import read
from spectrum.control.window import Told, Window
from spectrum.core.access import Principal
from spectrum.core.errors import Problem, Where
from spectrum.core.events.catalogue import CATALOGUE
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import Row, look_up, visiting
from spectrum.gathering import Gathering
from spectrum.ports import Clock, Entropy, Spawner

BATCH = 2000  # events that the tail reads at once
PAGE = 100  # events that one who is behind reads at once
PAGES = 3  # such pages at the same time: who catches up takes no connection from requests
RECHECK_SECONDS = 1.0  # where a wake-up was lost, or the database does not answer
GATHER_SECONDS = 0.02  # news of so long go out together, and of a little longer for each who follows:
EACH_SECONDS = 0.0002  # that is what telling one of them takes, and requests want the processor too
TOGETHER = 50  # who is told of news at the same moment
RECONNECT_SECONDS = 1.0  # after which who was let go comes back, half as much or half as much again
HURRY_SECONDS = 1.0  # what is on its way to a client has when this copy is stopped

_END = query("log_reader_cursor")
_NEW = query("log_read")
_PAGE = query("event_list")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Times are seconds, sizes are bytes. `one` is how many of `clients` one organization may have."""

    clients: int = 4000
    window: int = 8 * 1024 * 1024
    chunk: int = 64 * 1024  # that is sent at once, unless one event is larger
    heartbeat: float = 15.0
    stall: float = 10.0  # within which a client must have taken a chunk

    @property
    def one(self) -> int:
        return max(self.clients // 2, 1)


@dataclass(frozen=True, slots=True)
class Wish:
    """Which events somebody wants. A type stands for all that go on with a dot behind it: `io.spectrum.job` for all of jobs.

    `instance` is a name or an id, `subject` an id. `after` is a position; without one it begins with what is new.
    """

    after: int | None = None
    subject: str | None = None
    instance: str | None = None
    types: tuple[str, ...] = ()


class Follower:
    """Somebody who follows the events of an organization. `position` is up to where everything was handed over."""

    def __init__(
        self, tail: Tail, organization: str, subject: str | None, types: tuple[str, ...], position: int
    ) -> None:
        self.organization = organization
        self.position = position
        self._tail = tail
        self._subject = subject
        self._types = types
        self._news = asyncio.Event()
        self._greeted = False
        self._most = PAGE
        self._patience: asyncio.Timeout | None = None

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> bytes:
        """What is to be sent next, as soon as there is any; where there is nothing for long, a heartbeat.

        A heartbeat is a message without data: nobody is told of it, but the place to go on from is remembered.
        """
        if not self._greeted:
            self._greeted = True
            return self._greeting()
        clock, limits = self._tail.clock, self._tail.limits
        beat_at = clock.monotonic() + limits.heartbeat
        while not self._tail.ended(self):
            self._news.clear()
            text, more = await self._take()
            if text:
                return text
            left = beat_at - clock.monotonic()
            if left <= 0:
                return f"id: {self.position}\n\n".encode()
            if not more:
                await _news_of(self._news, left)
        raise StopAsyncIteration

    async def deliver(self, sending: Awaitable[None]) -> bool:
        """Whether the client took what was sent while there was patience. One that did not is to be cut off."""
        try:
            async with asyncio.timeout(self._tail.limits.stall) as self._patience:
                await sending
        except TimeoutError:
            if not self._tail.ended(self):
                self._tail.dropped()
            _log.info("a client that does not read was cut off", organization=self.organization, position=self.position)
            return False
        finally:
            self._patience = None
        return True

    def close(self) -> None:
        """Nobody follows any more. Safe to repeat."""
        self._tail.leave(self)

    def wake(self) -> None:
        self._news.set()

    def hurry(self) -> None:
        """Be done soon: what is on its way has a little time from when it was sent, and no more."""
        self.wake()
        if self._patience is not None and (until := self._patience.when()) is not None:
            self._patience.reschedule(until - self._tail.limits.stall + HURRY_SECONDS)

    def _greeting(self) -> bytes:
        """When to come back once the connection is lost, and the place to go on from then."""
        pause = RECONNECT_SECONDS * (0.5 + self._tail.entropy.uniform())
        return f"retry: {round(1000 * pause)}\nid: {self.position}\n\n".encode()

    async def _take(self) -> tuple[bytes, bool]:
        """What comes next of what is wanted, up to the size of a chunk, and whether more may be there already."""
        found, known = await self._tail.since(self.organization, self._subject, self.position, self._most)
        text = bytearray()
        for number, event in enumerate(found):
            if text and len(text) + len(event.text) > self._tail.limits.chunk:
                self._most = number  # what does not fit is read again: so little
                return bytes(text), True
            if self._wants(event):
                text += event.text
            self.position = event.position
        self._most = min(2 * self._most, PAGE)
        if known is None:
            return bytes(text), True
        self.position = max(self.position, known)
        return bytes(text), False

    def _wants(self, event: Told) -> bool:
        if self._subject is not None and event.subject != self._subject:
            return False
        return not self._types or any(_is_of(event.type, each) for each in self._types)


@dataclass
class Tail:
    """One copy's reader of what is new in the log, and who follows it. `dropped` is called when one is cut off."""

    system: Pool
    api: Pool
    clock: Clock
    entropy: Entropy
    spawner: Spawner
    limits: Limits = field(default_factory=Limits)
    dropped: Callable[[], None] = lambda: None
    _following: dict[Follower, None] = field(default_factory=dict, init=False)
    _counts: Counter[str] = field(default_factory=Counter, init=False)
    _window: Window | None = field(default=None, init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _stopping: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._pages = asyncio.Semaphore(PAGES)
        self._ends: Gathering[None, int] = Gathering(self._ask_end, self.spawner, "the log's end")

    def __len__(self) -> int:
        return len(self._following)

    @property
    def size(self) -> int:
        """How many bytes the window holds."""
        return self._window.size if self._window else 0

    @property
    def lag(self) -> int:
        """How many positions the one who is furthest behind is behind what is known of the log."""
        known = self._window.position if self._window else 0
        return max((known - follower.position for follower in self._following), default=0)

    # ---- who follows

    async def follow(self, principal: Principal, wish: Wish) -> Follower:
        """Begin to follow; close what is returned.

        Raises Problem `invalid-parameter`, `not-found`, `rate-limited` or `unavailable`.
        """
        _check_types(wish.types)
        subject = await self._subject(principal, wish)
        end = await self._ends.answer(None)
        if wish.after is not None and wish.after > end:
            raise _bad(
                "after",
                f"the log ends with position {end}: {wish.after} is of another cell, or of one that was set back",
            )
        self._check_room(principal.organization)
        position = end if wish.after is None else wish.after
        follower = Follower(self, principal.organization, subject, wish.types, position)
        self._following[follower] = None
        self._counts[principal.organization] += 1
        self.nudge()
        return follower

    def leave(self, follower: Follower) -> None:
        if follower in self._following:
            del self._following[follower]
            self._counts[follower.organization] -= 1

    def ended(self, follower: Follower) -> bool:
        """Whether it is over for this one, who may go on elsewhere."""
        return self._stopping or follower not in self._following

    def end(self) -> None:
        """Let everybody go, now and from now on: another copy goes on."""
        self._stopping = True
        for follower in self._following:
            follower.hurry()

    async def since(
        self, organization: str, subject: str | None, position: int, most: int
    ) -> tuple[Sequence[Told], int | None]:
        """Some events of an organization after a position, in order; and where these are all, up to where they are.

        From the log itself they are those of the subject alone. Where the database does not answer there are none for a while.
        """
        window = self._window
        if window is None or (found := window.since(organization, position, most)) is None:
            return await self._page(organization, subject, position, most)
        return found, window.position if len(found) < most else None

    async def _page(
        self, organization: str, subject: str | None, position: int, most: int
    ) -> tuple[Sequence[Told], int | None]:
        # What the window knows was committed by now: a look that begins after this sees all of it.
        known = self._window.position if self._window else position
        try:
            async with self._pages, visiting(self.api, [organization]) as connection:
                rows = await connection.fetch(_PAGE, organization, position, most, subject)
        except Problem:
            await self.clock.sleep(RECHECK_SECONDS)
            return (), None
        return [_told(row) for row in rows], known if len(rows) < most else None

    async def _subject(self, principal: Principal, wish: Wish) -> str | None:
        if wish.instance is None:
            return wish.subject
        if wish.subject is not None:
            raise _bad("instance", "this and `subject` go not together: leave one of them out")
        async with visiting(self.api, [principal.organization]) as connection:
            row = await find_instance(connection, principal, wish.instance)
        return str(row["id"])

    def _check_room(self, organization: str) -> None:
        if self._stopping:
            raise _unavailable("This copy of the control plane is being stopped. Ask again: another one goes on.")
        if len(self._following) >= self.limits.clients:
            raise _unavailable(
                f"This copy of the control plane serves {self.limits.clients} streams, which is all it may. Ask again: another one"
                " may have room. Or raise SPECTRUM_STREAM_LIMIT."
            )
        if self._counts[organization] >= self.limits.one:
            detail = f"Your organization has {self.limits.one} streams open here, which is all it may. Close some."
            raise Problem("rate-limited", detail, extra={"retry_after": 5.0})

    # ---- the reader

    def nudge(self) -> None:
        """The log has grown: look now. A hint; losing one costs a moment."""
        self._news.set()

    async def run(self) -> None:
        """Read what is new while somebody follows."""
        while True:
            try:
                await self._round()
            except Problem as problem:
                _log.info("what is new in the log could not be read; tried again", why=problem.detail)
                await self.clock.sleep(RECHECK_SECONDS)
            except Exception:
                _log.exception("what is new in the log could not be read; tried again")
                await self.clock.sleep(RECHECK_SECONDS)

    async def _round(self) -> None:
        if not self._following:
            self._window = None
            await self._news.wait()
            self._news.clear()
            return
        if self._window is None:
            self._window = Window(await self._ends.answer(None), self.limits.window)
            await self._tell(set(self._counts))
        self._news.clear()
        rows = await look_up(self.system, _NEW, self._window.position, BATCH)
        if rows:
            await self._tell(self._window.add([_told(row) for row in rows]))
        elif await self._ends.answer(None) < self._window.position:
            self._begin_anew()
            return
        if len(rows) < BATCH:
            await _news_of(self._news, RECHECK_SECONDS)
        await self.clock.sleep(GATHER_SECONDS + EACH_SECONDS * len(self._following))

    async def _tell(self, organizations: set[str]) -> None:
        """Wake who is concerned, a few at a time: what these are sent is under way before the next ones fill their buffers."""
        concerned = [follower for follower in self._following if follower.organization in organizations]
        for first in range(0, len(concerned), TOGETHER):
            for follower in concerned[first : first + TOGETHER]:
                follower.wake()
            await self.clock.sleep(0)

    def _begin_anew(self) -> None:
        """The database was set back: positions that were told mean something else now."""
        _log.warning("the log ends before what was read of it; everybody who follows is let go")
        self._window = None
        for follower in list(self._following):
            self.leave(follower)
            follower.hurry()

    async def _ask_end(self, asked: Sequence[None]) -> list[int | Exception]:
        rows = await look_up(self.system, _END, "sequencer")
        return [rows[0]["position"] if rows else 0] * len(asked)


async def _news_of(event: asyncio.Event, seconds: float) -> None:
    """Return once there are news, or after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _told(row: Row) -> Told:
    return Told.of(read(row), row["organization_id"])


def _is_of(type_: str, wanted: str) -> bool:
    return type_ == wanted or type_.startswith(f"{wanted}.")


def _check_types(wanted: Sequence[str]) -> None:
    """A misspelt type would be waited for in vain. Raises Problem `invalid-parameter`."""
    for each in wanted:
        if not any(_is_of(known.type, each) for known in CATALOGUE):
            known_nouns = sorted({known.type.rsplit(".", 2)[0] for known in CATALOGUE})
            raise _bad("type", f"there is no event {each!r}; all begin with one of {', '.join(known_nouns)}")


def _bad(name: str, message: str) -> Problem:
    return Problem("invalid-parameter", f"{name}: {message}.", (Where(message, f"query:{name}"),))


def _unavailable(detail: str) -> Problem:
    return Problem("unavailable", detail, extra={"retry_after": 5.0})

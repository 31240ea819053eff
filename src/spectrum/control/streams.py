"""Streams: what somebody asks a worker to read, and the pieces that come back, through whichever copies they travel (DESIGN §3.16).

The request is a row that a worker of the pool takes up with its poll. Each piece is a row too: the copy that takes it in need not
be the one that passes it on. Rows are kept until they are read, and few of them: a worker waits while nobody reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import structlog

from spectrum.control.changes import Changes
from spectrum.control.wakeups import Wakeups, within
from spectrum.core.access import Principal
from spectrum.core.errors import Problem, Where
from spectrum.core.ids import InstanceId, OrganizationId, PoolId, RequestId, WorkerId
from spectrum.core.moments import stamp
from spectrum.db.pools import Connection, Pool
from spectrum.db.sql import query
from spectrum.db.visits import Row, look_up, look_up_row, visiting
from spectrum.ports import Clock, Spawner
from spectrum.transports.protocol import Chunk, LogsAsked, Onward

LIFE_SECONDS = 15.0  # of a request that nobody keeps alive
KEEP_SECONDS = 3.0  # between two times that its reader does so
TAKE_SECONDS = 8.0  # within which a worker must have taken it up
SILENCE_SECONDS = 10.0  # a worker that says nothing for so long is lost; it says at least that there is nothing
RECHECK_SECONDS = 1.0  # where a wake-up was lost
UNREAD_BYTES = 1024 * 1024  # of one stream; the next piece waits
CHUNK_BYTES = 1536 * 1024
FULL_SECONDS = 5.0  # a worker's call waits so long for room
FORGET_SECONDS = 10.0

_LIVING = query("workers_living")
_INSTANCE = query("instance_to_read")
_MAKE = query("request_make")
_OPEN = query("requests_open")
_TAKE = query("requests_take")
_OWNER = query("request_owner")
_LOCK = query("request_lock")
_ADD = query("chunk_add")
_ADDED = query("chunk_added")
_HEARD = query("chunks_heard")
_READ = query("chunks_read")
_FORGET_READ = query("chunks_forget")
_CLOSE = query("request_close")
_FORGET = query("requests_forget")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LogsWish:
    """Which log lines somebody wants: the last `tail` ones, of one service or of all, and those to come."""

    service: str | None = None
    since: datetime | None = None
    tail: int = 1000
    follow: bool = False

    def as_json(self) -> dict[str, Any]:
        since = self.since.isoformat() if self.since else None
        return {"service": self.service, "since": since, "tail": self.tail, "follow": self.follow}


@dataclass(slots=True)
class _Reading:
    """A stream as its reader knows it."""

    id: RequestId
    organization_id: OrganizationId
    pool: str
    keep_at: float = 0.0  # by the monotonic clock
    taken: bool = False


@dataclass
class Streams:
    """Both ends of streams: readers' and workers'."""

    changes: Changes
    system: Pool
    wakeups: Wakeups
    clock: Clock
    spawner: Spawner

    # ---- the reader's end

    async def logs(self, principal: Principal, name_or_id: str, wish: LogsWish) -> AsyncIterator[Mapping[str, Any]]:
        """The log lines of an instance as JSON, oldest first. An empty mapping says that there is nothing new for a while.

        Returns once a worker reads. Close the iterator: that ends the worker's reading. A stream that breaks off ends with a line
        of `stream` `spectrum` that says why. Raises Problem `not-found`, `invalid-parameter` or `unavailable`.
        """
        reading = await self._ask(principal, name_or_id, wish)
        lines = self._lines(reading)
        try:
            first = await anext(lines, None)
        except BaseException:
            self._close(reading)
            raise
        return _Lines(self, reading, first, lines)

    async def _ask(self, principal: Principal, name_or_id: str, wish: LogsWish) -> _Reading:
        owner = principal.organization
        async with visiting(self.changes.pool, [owner]) as connection:
            instance = await connection.fetchrow(_INSTANCE, owner, name_or_id)
        if instance is None:
            raise Problem("not-found", f"There is no instance {name_or_id!r}. See `spectrum instance list`.")
        _check_service(instance, wish.service)
        await self._check_worker(instance)
        async with self.changes.unkeyed(principal.actor, owner) as change:
            request_id = RequestId(change.new_id("req"))
            place = (instance["pool_id"], instance["target_id"], instance["id"])
            times = (change.now, change.now + timedelta(seconds=LIFE_SECONDS))
            await change.connection.execute(
                _MAKE, request_id, owner, *place, "logs", wish.as_json(), principal.actor, *times
            )
        self.wakeups.wake(requests_of(instance["pool_id"]))
        return _Reading(request_id, owner, instance["pool"])

    async def _check_worker(self, instance: Row) -> None:
        (row,) = await look_up(self.system, _LIVING, instance["pool_id"], instance["target_id"])
        if row["down_since"] is not None:
            raise _unavailable(f"The target {instance['target']} of this instance is down: its logs can't be read now.")
        if not row["living"]:
            raise _no_worker(instance["pool"])

    async def _lines(self, reading: _Reading) -> AsyncIterator[Mapping[str, Any]]:
        """Line after line; raises Problem where the stream breaks off."""
        number = 0
        while True:
            pieces = await self._pieces(reading, number)
            for piece in pieces:
                number += 1
                if piece["number"] != number:
                    raise _unavailable("A piece of the stream was lost on its way.")
                lines: list[Mapping[str, Any]] = piece["lines"] or ([] if piece["ends"] else [{}])
                for line in lines:
                    yield line
                if piece["problem"]:
                    raise _unavailable(piece["problem"])
                if piece["ends"]:
                    return

    async def _pieces(self, reading: _Reading, number: int) -> list[Row]:
        """What came after piece `number`, as soon as there is any. Raises Problem where there is silence for too long."""
        start = self.clock.monotonic()
        while True:
            with self.wakeups.listening(reading.id) as woken:
                if self.clock.monotonic() >= reading.keep_at:
                    reading.keep_at = self.clock.monotonic() + KEEP_SECONDS
                    reading.taken = await self._keep(reading)
                if found := await self._read(reading, number):
                    return found
                if self.wakeups.ended:
                    raise _unavailable(
                        "This copy of the control plane is being stopped. Ask again: another one goes on."
                    )
                if self.clock.monotonic() - start > (SILENCE_SECONDS if reading.taken else TAKE_SECONDS):
                    raise self._silent(reading)
                await within(woken, RECHECK_SECONDS)

    async def _keep(self, reading: _Reading) -> bool:
        """Say that somebody still reads; whether a worker has taken the request up."""
        async with self.changes.unkeyed("", reading.organization_id) as change:
            expires = change.now + timedelta(seconds=LIFE_SECONDS)
            row = await change.connection.fetchrow(_HEARD, reading.id, expires)
        if row is None:
            raise _unavailable("The request is over.")
        return row["taken_at"] is not None

    async def _read(self, reading: _Reading, number: int) -> list[Row]:
        async with visiting(self.changes.pool, [reading.organization_id]) as connection:
            found = await connection.fetch(_READ, reading.id, number)
            if found:
                await connection.execute(_FORGET_READ, reading.id, found[-1]["number"])
        if found:
            self.wakeups.wake(_room(reading.id))
        return found

    def _silent(self, reading: _Reading) -> Problem:
        if not reading.taken:
            return _no_worker(reading.pool)
        return _unavailable("The worker that read the logs does not answer any more.")

    def _close(self, reading: _Reading) -> None:
        """Tell the worker that nobody reads, without waiting: the reader may be going away at this moment."""

        async def close() -> None:
            try:
                async with self.changes.unkeyed("", reading.organization_id) as change:
                    await change.connection.execute(_CLOSE, reading.id, change.now)
            except Problem as problem:
                _log.info("a stream was not closed; it expires", request_id=reading.id, why=problem.detail)
            self.wakeups.wake(_room(reading.id))

        self.spawner.spawn(close(), f"close {reading.id}")

    # ---- the worker's end

    async def open(self, pool_id: PoolId, worker_id: WorkerId, room: int, now: datetime) -> tuple[LogsAsked, ...]:
        """Requests of the pool that are this worker's from now on, `room` at most."""
        if room <= 0:
            return ()
        waiting = await look_up(self.system, _OPEN, pool_id, now, room)
        if not waiting:
            return ()
        owners = sorted({row["organization_id"] for row in waiting})
        async with visiting(self.changes.engine, owners) as connection:
            taken = await connection.fetch(_TAKE, [row["id"] for row in waiting], now, worker_id)
        return tuple(_asked(row) for row in taken)

    async def take(self, worker_id: WorkerId, chunk: Chunk, size: int) -> Onward:
        """Keep a piece that a worker sends; `size` is its length in bytes. Waits a while where too much is unread.

        Raises Problem `forbidden` for a request that is not this worker's, `too-large`, and `malformed` for one out of order.
        """
        if size > CHUNK_BYTES:
            raise Problem("too-large", f"A piece of a stream has at most {CHUNK_BYTES} bytes.")
        row = await look_up_row(self.system, _OWNER, chunk.request_id)
        if row is None:
            return Onward(taken=True, wanted=False)
        if row["worker_id"] != worker_id:
            raise Problem("forbidden", f"The request {chunk.request_id} is not yours.")
        end = self.clock.monotonic() + FULL_SECONDS
        while True:
            with self.wakeups.listening(_room(chunk.request_id)) as woken:
                onward = await self._take_once(row["organization_id"], chunk, size)
                if onward.taken or not onward.wanted or self.wakeups.ended or self.clock.monotonic() >= end:
                    return onward
                await within(woken, RECHECK_SECONDS)

    async def _take_once(self, owner: OrganizationId, chunk: Chunk, size: int) -> Onward:
        async with visiting(self.changes.engine, [owner]) as connection:
            row = await connection.fetchrow(_LOCK, chunk.request_id)
            if row is None or chunk.number <= row["last_chunk"]:
                return Onward(taken=True, wanted=row is not None and row["open"])
            if chunk.number != row["last_chunk"] + 1:
                raise Problem("malformed", f"Piece {row['last_chunk'] + 1} of the stream comes before {chunk.number}.")
            if not row["open"] or (row["unread"] and row["unread"] + size > UNREAD_BYTES):
                return Onward(taken=False, wanted=row["open"])
            await _add(connection, owner, chunk, size, row["now"])
        self.wakeups.wake(chunk.request_id)
        return Onward(taken=True, wanted=not chunk.ends)

    # ---- what nobody asks for but time

    async def run(self) -> None:
        """Forget requests that are over, again and again. Every copy may do so."""
        while True:
            try:
                async with self.changes.unkeyed("") as change:
                    now = change.now
                await look_up(self.system, _FORGET, now)
            except Problem as problem:
                _log.info("requests that are over were not removed; tried again", why=problem.detail)
            except Exception:
                _log.exception("requests that are over were not removed; tried again")
            await self.clock.sleep(FORGET_SECONDS)


@dataclass
class _Lines:
    """The lines of a stream whose worker has begun; what breaks it off from here on is its last line."""

    streams: Streams
    reading: _Reading
    first: Mapping[str, Any] | None
    rest: AsyncIterator[Mapping[str, Any]]

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> Mapping[str, Any]:
        if self.first is not None:
            line, self.first = self.first, None
            return line
        try:
            return await anext(self.rest)
        except Problem as problem:
            at = stamp(self.streams.clock.now())
            return {"at": at, "service": "", "stream": "spectrum", "text": problem.detail}

    async def aclose(self) -> None:
        self.streams._close(self.reading)
        await cast(Any, self.rest).aclose()


async def _add(connection: Connection, owner: str, chunk: Chunk, size: int, now: datetime) -> None:
    lines = [dict(line) for line in chunk.lines]
    await connection.execute(
        _ADD, chunk.request_id, chunk.number, owner, lines, size, chunk.ends, chunk.problem or None
    )
    await connection.execute(_ADDED, chunk.request_id, chunk.number, now, chunk.ends)


def _asked(row: Row) -> LogsAsked:
    wish = row["parameters"]
    since = datetime.fromisoformat(wish["since"]) if wish["since"] else None
    place = (RequestId(row["id"]), InstanceId(row["instance_id"]), row["url"])
    return LogsAsked(*place, wish["service"], since, wish["tail"], wish["follow"])


def requests_of(pool_id: str) -> str:
    """The topic on which workers of the pool wait for requests that are not jobs."""
    return f"{pool_id}/requests"


def _room(request_id: str) -> str:
    """The topic on which a worker's call waits until its stream was read further."""
    return f"{request_id}/room"


def _check_service(instance: Row, service: str | None) -> None:
    known = sorted(each["name"] for each in instance["services"])
    if service is not None and known and service.partition("/")[0] not in known:
        message = f"there is no service {service}; there are {', '.join(known)}"
        raise Problem("invalid-parameter", f"service: {message}.", (Where(message, "query:service"),))


def _no_worker(pool: str) -> Problem:
    return _unavailable(f"No worker of the pool {pool} answers. See `spectrum worker list`, and start one.")


def _unavailable(detail: str) -> Problem:
    return Problem("unavailable", detail, extra={"retry_after": 5.0})

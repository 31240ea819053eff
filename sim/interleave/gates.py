"""The driver's pool and connection as production code sees them, with a gate before every statement.

Behind each gate is a real connection. The conductor opens one gate at a time, and may say how the statement ends: also as
one that PostgreSQL refuses, or whose connection dies before it, after it, or while its COMMIT is on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import asyncpg

from spectrum.db.pools import Role

if TYPE_CHECKING:
    from sim.interleave.conductor import Conductor

Work = Callable[[], Awaitable[Any]]

SETTINGS = {"jit": "off", "timezone": "UTC"}  # and no timeouts: when a wait ends is the seed's to say
_NAME = re.compile(r"/\* (\w+) \*/")
FREE = ("scope_set", "BEGIN")  # touch nothing that another session could see


class Fate(StrEnum):
    """What becomes of a statement once its gate is opened."""

    RUNS = "runs"
    SERIALIZATION = "fails to serialize"
    DEADLOCK = "is chosen as a deadlock's victim"
    CANCELLED = "is cancelled"
    LOCK_TIMEOUT = "waits too long for a lock"
    DIES_BEFORE = "never arrives: its connection dies"
    DIES_AFTER = "is done, and its connection dies before the answer"
    ARRIVES_LATE = "loses its connection, and arrives later"


REFUSALS = {
    Fate.SERIALIZATION: asyncpg.SerializationError,
    Fate.DEADLOCK: asyncpg.DeadlockDetectedError,
    Fate.CANCELLED: asyncpg.QueryCanceledError,
    Fate.LOCK_TIMEOUT: asyncpg.LockNotAvailableError,
}
"""What PostgreSQL may refuse of its own accord, whatever the statement."""


class Kind(StrEnum):
    STATEMENT = "statement"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    PAUSE = "pause"


@dataclass(eq=False)
class Session:
    """A real connection and whose it is. `xids` are its transactions' ids, as far as they have one."""

    raw: Any
    pid: int
    owner: str
    role: Role


@dataclass(eq=False)
class Step:
    """One statement at its gate, or behind it. `refused` is why a statement that waits was taken out of its wait."""

    owner: str
    kind: Kind
    what: str
    session: Session | None = None
    refused: Fate | None = None
    waits: bool = False
    text: str = ""


@dataclass
class GatedPool:
    """One role's connections of one control-plane copy."""

    conductor: Conductor
    owner: str
    role: Role
    url: str
    _idle: list[Session] = field(default_factory=list)

    async def acquire(self, *, timeout: float | None = None) -> GatedConnection:
        while self._idle:
            session = self._idle.pop()
            if not session.raw.is_closed():
                return GatedConnection(self.conductor, session)
        with self.conductor.outside():
            return GatedConnection(self.conductor, await self._open())

    async def _open(self) -> Session:
        raw: Any = await asyncpg.connect(self.url, server_settings=SETTINGS, statement_cache_size=400)
        await raw.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        return Session(raw, raw.get_server_pid(), self.owner, self.role)

    async def release(self, connection: GatedConnection) -> None:
        session = connection.let_go()
        if session is None or session.raw.is_closed():
            return
        if session.raw.is_in_transaction():
            with self.conductor.outside():
                await session.raw.reset()
        self._idle.append(session)

    async def fetch(self, text: str, *arguments: Any) -> Any:
        return await self._once("fetch", text, arguments)

    async def fetchval(self, text: str, *arguments: Any) -> Any:
        return await self._once("fetchval", text, arguments)

    async def execute(self, text: str, *arguments: Any) -> Any:
        return await self._once("execute", text, arguments)

    async def _once(self, how: str, text: str, arguments: tuple[Any, ...]) -> Any:
        connection = await self.acquire()
        try:
            return await getattr(connection, how)(text, *arguments)
        finally:
            await self.release(connection)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().raw.close()


class GatedConnection:
    """A connection whose statements pass a gate."""

    def __init__(self, conductor: Conductor, session: Session) -> None:
        self._conductor = conductor
        self._session: Session | None = session

    def let_go(self) -> Session | None:
        """The session, which is not this connection's any more. None where it was lost."""
        session, self._session = self._session, None
        return session

    def is_closed(self) -> bool:
        return self._session is None or bool(self._session.raw.is_closed())

    def terminate(self) -> None:
        if self._session is not None:
            self._session.raw.terminate()

    def transaction(self) -> GatedTransaction:
        return GatedTransaction(self)

    async def fetch(self, text: str, *arguments: Any) -> Any:
        return await self._statement("fetch", text, arguments)

    async def fetchrow(self, text: str, *arguments: Any) -> Any:
        return await self._statement("fetchrow", text, arguments)

    async def fetchval(self, text: str, *arguments: Any) -> Any:
        return await self._statement("fetchval", text, arguments)

    async def execute(self, text: str, *arguments: Any) -> Any:
        return await self._statement("execute", text, arguments)

    async def _statement(self, how: str, text: str, arguments: tuple[Any, ...]) -> Any:
        return await self.passing(Kind.STATEMENT, name_of(text), text, lambda raw: getattr(raw, how)(text, *arguments))

    async def passing(self, kind: Kind, what: str, text: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """Do `work` on the real connection once the gate is open, in the way that the conductor says."""
        session = self._session
        if session is None or session.raw.is_closed():
            raise asyncpg.InterfaceError("connection is closed")
        if what in FREE:
            with self._conductor.outside():
                return await work(session.raw)
        step = Step(session.owner, kind, what, session, text=text)
        fate = await self._conductor.gate(step)
        with self._conductor.flying(step):
            return await self._fated(step, fate, session, work)

    async def _fated(self, step: Step, fate: Fate, session: Session, work: Callable[[Any], Awaitable[Any]]) -> Any:
        match fate:
            case Fate.RUNS:
                return await _run(step, lambda: work(session.raw))
            case Fate.SERIALIZATION | Fate.DEADLOCK | Fate.CANCELLED | Fate.LOCK_TIMEOUT:
                await _refuse(step, session, fate)
            case Fate.DIES_BEFORE:
                await self._conductor.kill(session)
                return await work(session.raw)
            case Fate.DIES_AFTER:
                await _run(step, lambda: work(session.raw))
                session.raw.terminate()
            case Fate.ARRIVES_LATE:
                self._session = None
                self._conductor.post(session, work)
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


async def _refuse(step: Step, session: Session, fate: Fate) -> None:
    """A real error, so that the transaction is aborted as it would be; a COMMIT that fails has ended it, too."""
    try:
        await session.raw.execute(f"DO $$ BEGIN RAISE SQLSTATE '{REFUSALS[fate].sqlstate}'; END $$")
    finally:
        if step.kind is Kind.COMMIT:
            session.raw._top_xact = None  # as the driver does before it sends COMMIT
            await session.raw.execute("ROLLBACK")


async def _run(step: Step, work: Work) -> Any:
    try:
        return await work()
    except asyncpg.QueryCanceledError as error:
        if step.refused is None:
            raise
        raise REFUSALS[step.refused](f"ring 2: it {step.refused}") from error


class GatedTransaction:
    """A transaction of the driver's, whose COMMIT and ROLLBACK pass a gate too."""

    def __init__(self, connection: GatedConnection) -> None:
        self._connection = connection
        self._inner: Any = None

    async def start(self) -> None:
        def begin(raw: Any) -> Awaitable[Any]:
            self._inner = raw.transaction()
            started: Awaitable[Any] = self._inner.start()
            return started

        await self._connection.passing(Kind.STATEMENT, "BEGIN", "", begin)

    async def commit(self) -> None:
        await self._connection.passing(Kind.COMMIT, "COMMIT", "", lambda raw: self._inner.commit())

    async def rollback(self) -> None:
        await self._connection.passing(Kind.ROLLBACK, "ROLLBACK", "", lambda raw: self._inner.rollback())

    async def __aenter__(self) -> None:
        await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            await self.commit()
        else:
            await self.rollback()


def parts_of(text: str) -> list[str]:
    """The named queries that a statement carries out as one; a statement that has none is its own only part."""
    starts = [found.start() for found in _NAME.finditer(text)]
    return [text[start:end] for start, end in pairwise([*starts, len(text)])] or [text]


def name_of(text: str) -> str:
    """The names of its queries; of a statement without any, its first words."""
    return " + ".join(_NAME.findall(text)) or " ".join(text.split()[:3])

"""The engine: every command that changes a job goes through here, and is answered only after its commit.

Group commit without waiting (DESIGN §2): commands that arrive while a flush is in flight share the next one. Where many wait, two
flushes are in flight, of different instances: while one is written, the next is decided. Claims have a lane of their own. What
another copy holds is deferred to the next flush. A database error re-runs its batch one by one, so that one bad command harms no
other. A commit whose acknowledgement was lost is settled before anybody is answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from spectrum.control.fold import Folding
from spectrum.core.errors import Problem, SpectrumError
from spectrum.core.ids import InstanceId
from spectrum.core.jobs.commands import Answer, Command, Hint, Rejection, Repeated
from spectrum.core.jobs.store import (
    Asked,
    Batch,
    ClaimOf,
    Deferred,
    Response,
    Settlement,
    Store,
    Unavailable,
    Uncertain,
    Written,
)
from spectrum.core.plan import Catalog
from spectrum.ports import Clock, Spawner

_log = structlog.get_logger(__name__)

BATCH_LIMIT = 64  # commands of one flush: with all that wait in one, deciding and writing would take turns
LANES = 2  # flushes at the same time
CROWD = 16  # waiting commands that are worth a second transaction
DEFERRAL_PAUSE = 0.005  # seconds, where a whole flush was deferred
SETTLE_PAUSE = 0.2
HELD_SECONDS = 4.0  # for which a command waits for an instance that another copy holds
HELD_SECONDS_TOGETHER = 0.25  # for one among several: whoever asked for all of them waits for it


class Held(Problem):
    """Another copy has held the instance for long. It says nothing of other instances (P19)."""


@dataclass
class _Pending:
    asked: Asked
    future: asyncio.Future[Answer | Repeated]
    patience: float  # seconds from its first deferral, after which it is not deferred again
    until: float | None = None  # by the monotonic clock, once it was deferred


@dataclass
class Engine:
    """Folds commands into transactions. `committed` is called after each commit with what it made of its aggregates, and with the
    hints for who waits for work.
    """

    store: Store
    catalog: Catalog
    clock: Clock
    spawner: Spawner
    committed: Callable[[Sequence[Written], Sequence[Hint]], None] = lambda written, hints: None
    _queue: deque[_Pending] = field(default_factory=deque)
    _lanes: int = 0
    _in_flight: set[InstanceId] = field(default_factory=set)  # whose commands wait, so that they keep their order

    @property
    def waiting(self) -> int:
        """Commands that no transaction has taken up yet."""
        return len(self._queue)

    async def execute(self, asked: Asked | Command) -> Answer | Repeated:
        """Apply one command; returns after its commit.

        Raises `Problem`: what the decision refused, or `unavailable` where the store can't be reached; `Held` where only this
        instance can't.
        """
        return await self._enqueue(asked, HELD_SECONDS)

    async def execute_all(self, asked: Sequence[Asked | Command]) -> list[Answer | Repeated | BaseException]:
        """Apply commands that came together; each is answered, or refused by its exception, for itself.

        One whose instance another copy holds keeps the others' answers back for a moment, and is `Held` then.
        """
        seconds = HELD_SECONDS if len(asked) == 1 else HELD_SECONDS_TOGETHER
        return await asyncio.gather(*(self._enqueue(each, seconds) for each in asked), return_exceptions=True)

    def _enqueue(self, asked: Asked | Command, seconds: float) -> asyncio.Future[Answer | Repeated]:
        future: asyncio.Future[Answer | Repeated] = asyncio.get_running_loop().create_future()
        pending = _Pending(asked if isinstance(asked, Asked) else Asked(asked), future, seconds)
        self._queue.append(pending)
        if self._lanes == 0 or (self._lanes < LANES and len(self._queue) >= CROWD):
            self._lanes += 1
            self.spawner.spawn(self._flush_all(), "engine.flush")
        return pending.future

    async def claim(self, claims: Sequence[Command], of: ClaimOf) -> list[Answer | Repeated | Rejection]:
        """Claim several jobs for one lease, in the claims' own lane; what somebody else holds is left out."""
        results = await self._claim(tuple(Asked(command) for command in claims), of)
        return [result for result in results or () if not isinstance(result, Deferred)]

    async def _claim(self, asked: tuple[Asked, ...], of: ClaimOf) -> Sequence[Response] | None:
        """What became of the claim; None where nothing was committed, because every one of `asked` breaks its transaction.

        One that does so must not keep the pool from all others (P19): half of them is tried, then the other half, until a
        transaction goes through. That uses the claim's number up; what was left out is there for the next.
        """
        try:
            return await self._commit(asked, of)
        except Unavailable:
            raise
        except Exception:
            if len(asked) <= 1:
                _log.exception(
                    "a job can't be claimed", job_ids=[getattr(each.command, "job_id", "") for each in asked]
                )
                return None
        middle = len(asked) // 2
        claimed = await self._claim(asked[:middle], of)
        return claimed if claimed is not None else await self._claim(asked[middle:], of)

    # ---- flushing

    async def _flush_all(self) -> None:
        try:
            while taken := self._take():
                instances = {pending.asked.command.instance_id for pending in taken}
                self._in_flight |= instances
                try:
                    await self._flush(taken)
                finally:
                    self._in_flight -= instances
        finally:
            self._lanes -= 1

    def _take(self) -> list[_Pending]:
        """The oldest commands of instances that are not in flight. What is left is for the lane that holds them."""
        taken: list[_Pending] = []
        left: list[_Pending] = []
        while self._queue and len(taken) < BATCH_LIMIT:
            pending = self._queue.popleft()
            (left if pending.asked.command.instance_id in self._in_flight else taken).append(pending)
        self._queue.extendleft(reversed(left))
        return taken

    async def _flush(self, taken: list[_Pending]) -> None:
        asked = tuple(pending.asked for pending in taken)
        try:
            results = await self._commit(asked)
        except Unavailable as error:
            _fail(taken, Problem("unavailable", f"The database can't be reached: {error}. Try again."))
        except Exception as error:
            await self._flush_singly(taken, error)
        else:
            await self._deliver(taken, results)

    async def _flush_singly(self, taken: list[_Pending], error: Exception) -> None:
        """One command of the batch breaks its transaction: find it by running each alone."""
        if len(taken) == 1:
            _fail(taken, error)
            return
        for pending in taken:
            await self._flush([pending])

    async def _commit(self, asked: tuple[Asked, ...], claim: ClaimOf | None = None) -> Sequence[Response]:
        """Transact until the outcome is known.

        Raises `Unavailable` only where nothing was done.
        """
        fold = Folding(asked, self.catalog, claim)
        batch = Batch(asked, fold, claim)
        while True:
            try:
                results = await self.store.transact(batch)
            except Uncertain as uncertain:
                if await self._settle(uncertain) is Settlement.ABORTED:
                    continue
                results = uncertain.results
            self._tell(fold)
            return results

    def _tell(self, fold: Folding) -> None:
        """What is committed stays committed, whatever those who are told of it do."""
        try:
            self.committed(fold.written, fold.hints)
        except Exception:
            _log.exception("a commit could not be told")

    async def _settle(self, uncertain: Uncertain) -> Settlement:
        while True:
            try:
                return await self.store.settle(uncertain.transaction)
            except Unavailable:
                await self.clock.sleep(SETTLE_PAUSE)

    async def _deliver(self, taken: list[_Pending], results: Sequence[Response]) -> None:
        deferred = [pending for pending, result in zip(taken, results, strict=True) if isinstance(result, Deferred)]
        for pending, result in zip(taken, results, strict=True):
            if not isinstance(result, Deferred):
                _answer(pending, result)
        await self._again(deferred, nothing_moved=len(deferred) == len(taken))

    async def _again(self, deferred: list[_Pending], *, nothing_moved: bool) -> None:
        now = self.clock.monotonic()
        for pending in reversed(deferred):
            if pending.until is None:
                pending.until = now + pending.patience
            if pending.until <= now:
                _fail([pending], Held("unavailable", "Another copy has held this instance for long. Try again."))
            else:
                self._queue.appendleft(pending)
        if deferred and nothing_moved:
            await self.clock.sleep(DEFERRAL_PAUSE)


def _answer(pending: _Pending, result: Response) -> None:
    if pending.future.done():
        return
    match result:
        case Rejection():
            pending.future.set_exception(result.problem)
        case Deferred():
            raise SpectrumError("a deferred command is not answered")
        case _:
            pending.future.set_result(result)


def _fail(taken: Sequence[_Pending], error: Exception) -> None:
    for pending in taken:
        if not pending.future.done():
            pending.future.set_exception(error)

"""The conductor: lets one statement go on at a time, and waits until PostgreSQL says that the rest is done or waits for our own.

After isolationtester (PostgreSQL, src/test/isolation): after every step each statement under way is driven to a fixpoint, "done,
or it waits for one of our sessions". So what happens depends on the seed alone, and not on who was faster. Where everybody
waits there is a deadlock, and the seed picks its victim: PostgreSQL's own detector is asleep.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sim.choices import Choices
from sim.interleave.gates import Fate, Kind, Session, Step, name_of, parts_of

GRACE_SECONDS = 0.002  # most statements are done by then, and PostgreSQL need not be asked
STUCK_SECONDS = 30.0
STICKY = (0.0, 0.5, 0.8, 0.95)  # how likely it is that who went last goes on
PAUSE_WEIGHT = 0.3
FAULTY = 0.5  # of the interleavings
STATEMENT_RATE, COMMIT_RATE, WAIT_RATE = 0.04, 0.35, 0.15
MOST_FAULTS = 2

_STATEMENT_FATES = (Fate.SERIALIZATION, Fate.DEADLOCK, Fate.CANCELLED, Fate.LOCK_TIMEOUT, Fate.DIES_BEFORE)
_COMMIT_FATES = (Fate.DIES_AFTER, Fate.DIES_BEFORE, Fate.ARRIVES_LATE, Fate.SERIALIZATION)
_WAIT_FATES = (Fate.LOCK_TIMEOUT, Fate.CANCELLED)
_BLOCKED = """
SELECT pid, pg_isolation_test_session_is_blocked(pid, $2::integer[]) AS blocked FROM unnest($1::integer[]) AS p (pid)
"""

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Stuck(Exception):
    """Nobody can go on, and PostgreSQL does not say why."""


@dataclass
class Tally:
    """What happened in an interleaving, or in many."""

    steps: int = 0
    waits: int = 0
    deadlocks: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Tally) -> Tally:
        self.steps += other.steps
        self.waits += other.waits
        self.deadlocks += other.deadlocks
        self.faults += other.faults
        return self


class Order:
    """Who goes next, and how it ends: `Seeded` for an interleaving, this one for one after the other."""

    def pick(self, options: Sequence[Step], last: str) -> int:
        owners = [option.owner for option in options]
        return owners.index(last) if last in owners else 0

    def fate(self, step: Step) -> Fate:
        return Fate.RUNS

    def interrupt(self, waiting: Sequence[Step]) -> tuple[Step, Fate] | None:
        return None

    def victim(self, waiting: Sequence[Step]) -> Step:
        return waiting[0]


class Seeded(Order):
    """Drawn from a seed. `faulty` None leaves to the seed whether there are faults at all."""

    def __init__(self, choices: Choices, faulty: bool | None = None) -> None:
        self._schedule = choices.stream("schedule")
        self._faults = choices.stream("faults")
        self._stick = STICKY[choices.stream("stick").below(len(STICKY))]
        drawn = choices.stream("faulty").chance(FAULTY)
        self.faulty = drawn if faulty is None else faulty
        self._left = 1 + self._faults.below(MOST_FAULTS) if self.faulty else 0

    def pick(self, options: Sequence[Step], last: str) -> int:
        if len(options) == 1:
            return 0
        weights = [PAUSE_WEIGHT if option.kind is Kind.PAUSE else 1.0 for option in options]
        others = sum(w for w, option in zip(weights, options, strict=True) if option.owner != last) or 1.0
        goes_on = others * self._stick / (1 - self._stick) if self._stick else 0.0
        return self._schedule.weighted(
            [w * goes_on if goes_on and o.owner == last else w for w, o in zip(weights, options, strict=True)]
        )

    def fate(self, step: Step) -> Fate:
        match step.kind:
            case Kind.COMMIT:
                return self._drawn(COMMIT_RATE, _COMMIT_FATES) or Fate.RUNS
            case Kind.STATEMENT:
                return self._drawn(STATEMENT_RATE, _STATEMENT_FATES) or Fate.RUNS
            case Kind.ROLLBACK | Kind.PAUSE:
                return Fate.RUNS

    def interrupt(self, waiting: Sequence[Step]) -> tuple[Step, Fate] | None:
        fate = self._drawn(WAIT_RATE, _WAIT_FATES) if waiting else None
        return (waiting[self._faults.below(len(waiting))], fate) if fate else None

    def victim(self, waiting: Sequence[Step]) -> Step:
        return waiting[self._schedule.below(len(waiting))]

    def _drawn(self, rate: float, fates: Sequence[Fate]) -> Fate | None:
        if not self._left or not self._faults.chance(rate):
            return None
        self._left -= 1
        return fates[self._faults.below(len(fates))]


@dataclass
class Conductor:
    """Conducts one interleaving after the other. `admin` is a superuser's connection that no interleaving uses.

    `watch` is called after every step, when everybody stands still, with the sessions that are known and the step.
    """

    admin: Any
    order: Order = field(default_factory=Order)
    watch: Callable[[Sequence[Session], Step], Awaitable[None]] | None = None
    tally: Tally = field(default_factory=Tally)
    story: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)  # statements by name, over all interleavings
    now: datetime = _BEGINNING
    _free: bool = True
    _parked: list[tuple[Step, asyncio.Future[Fate]]] = field(default_factory=list)
    _flying: list[Step] = field(default_factory=list)
    _outside: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _late: list[asyncio.Task[None]] = field(default_factory=list)
    _sessions: dict[int, Session] = field(default_factory=dict)
    _last: str = ""
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    # ---- what gates call

    async def gate(self, step: Step) -> Fate:
        """Wait until the step may go on. Returns how."""
        if step.session is not None:
            self._sessions[step.session.pid] = step.session
        if self._free:
            return Fate.RUNS
        opened: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()
        self._parked.append((step, opened))
        return await opened

    @contextmanager
    def flying(self, step: Step) -> Iterator[None]:
        """Meanwhile the step is PostgreSQL's."""
        self.seen.update(map(name_of, parts_of(step.text or step.what)))
        self._flying.append(step)
        try:
            yield
        finally:
            self._flying.remove(step)
            self._changed.set()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Meanwhile something is under way that is no step, and is waited for."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1
            self._changed.set()

    async def kill(self, session: Session) -> None:
        """End a session on the server's side."""
        async with self._asking:
            await self.admin.execute("SELECT pg_terminate_backend($1, 5000)", session.pid)

    def post(self, session: Session, work: Callable[[Any], Awaitable[Any]]) -> None:
        """A COMMIT whose sender is gone: it arrives when the seed says so, or never, and its session ends."""

        async def arrive() -> None:
            step = Step(f"{session.owner}'s lost commit", Kind.ROLLBACK, "COMMIT", session)
            await self.gate(step)
            with self.flying(step):
                await work(session.raw)
                await session.raw.close()

        self._late.append(asyncio.create_task(arrive()))

    async def pause(self, owner: str, seconds: float) -> None:
        """Somebody sleeps; virtual time goes by."""
        await self.gate(Step(owner, Kind.PAUSE, f"pause of {seconds:g} s"))
        self.now += timedelta(seconds=seconds)

    # ---- an interleaving

    async def run(self, actors: Mapping[str, Coroutine[Any, Any, Any]], order: Order) -> dict[str, Any]:
        """Run these to their end, one step after the other. Returns what each came to, an exception where it raised one."""
        self.order, self._free, self._last = order, False, next(iter(actors))
        self.tally, self.story = Tally(), []
        self._sessions.clear()
        tasks = {name: asyncio.create_task(actor, name=name) for name, actor in actors.items()}
        try:
            while True:
                await self._stand_still()
                everything = [*tasks.values(), *self._late]
                if all(task.done() for task in everything):
                    break
                await self._go_on()
        finally:
            self._free = True
            await self._end([*tasks.values(), *self._late])
        for late in self._late:
            late.result()
        self._late.clear()
        return {name: task.exception() or task.result() for name, task in tasks.items()}

    async def _end(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        for task in tasks:
            if not task.done():
                task.cancel()
        self._parked.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _go_on(self) -> None:
        waiting = [step for step in self._flying if step.waits]
        if interruption := self.order.interrupt(waiting):
            await self._refuse(*interruption)
            return
        if not self._parked:
            if not waiting:
                raise Stuck("everybody waits for something that is no statement:\n" + "\n".join(self.story))
            self.tally.deadlocks += 1
            await self._refuse(self.order.victim(waiting), Fate.DEADLOCK)
            return
        # One owner's statements side by side are told apart by what they are, not by who came first.
        self._parked.sort(key=lambda each: (each[0].owner, each[0].what))
        step, opened = self._parked.pop(self.order.pick([step for step, _ in self._parked], self._last))
        self._last = step.owner
        fate = self.order.fate(step)
        self.tally.steps += 1
        if fate is not Fate.RUNS:
            self._count(step, fate)
        self._tell(step, fate)
        opened.set_result(fate)
        await self._stand_still()
        if step in self._flying:
            self.story[-1] += ": waits"
        if self.watch is not None:
            await self.watch(list(self._sessions.values()), step)

    async def _refuse(self, step: Step, fate: Fate) -> None:
        """Take a statement out of its wait."""
        if fate is not Fate.DEADLOCK:
            self._count(step, fate)
        self._tell(step, fate)
        step.refused = fate
        assert step.session is not None
        async with self._asking:
            await self.admin.execute("SELECT pg_cancel_backend($1)", step.session.pid)
        while step in self._flying:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), STUCK_SECONDS)

    def _count(self, step: Step, fate: Fate) -> None:
        self.tally.faults[f"{'commit' if step.kind is Kind.COMMIT else 'statement'} {fate.value}"] += 1

    def _tell(self, step: Step, fate: Fate) -> None:
        self.story.append(f"{step.owner:<6} {step.what}" + (f" {fate.value}" if fate is not Fate.RUNS else ""))

    # ---- the fixpoint

    async def _stand_still(self) -> None:
        """Until every coroutine stands at a gate, has ended, or is in a statement that waits for one of our sessions."""
        deadline = asyncio.get_running_loop().time() + STUCK_SECONDS
        while True:
            await _idle()
            if not self._outside and not self._flying:
                return
            self._changed.clear()
            if not await self._soon() and not self._outside and await self._all_wait():
                return
            if asyncio.get_running_loop().time() > deadline:
                raise Stuck(f"{[step.what for step in self._flying]} do not end:\n" + "\n".join(self.story))

    async def _soon(self) -> bool:
        grace = 0 if self._flying and all(step.waits for step in self._flying) else GRACE_SECONDS
        try:
            async with asyncio.timeout(grace):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _all_wait(self) -> bool:
        asked = list(self._flying)
        pids = [step.session.pid for step in asked if step.session]
        async with self._asking:
            rows = await self.admin.fetch(_BLOCKED, pids, list(self._sessions))
        blocked = {row["pid"] for row in rows if row["blocked"]}
        for step in asked:
            waits = step.session is not None and step.session.pid in blocked
            self.tally.waits += waits and not step.waits
            step.waits = waits
        await _idle()
        return bool(asked) and all(step.waits for step in asked) and self._flying == asked


async def _idle() -> None:
    """Until no callback is ready: whoever is left waits for PostgreSQL, a gate or a timer."""
    loop: Any = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(0)
        if not loop._ready:
            return

"""The seeded event loop: asyncio on virtual time, where a choice says which of the ready handles runs next.

Unmodified asyncio primitives run on it. It has no selector, no threads and no clock: when nothing is ready, time jumps to the next
timer; every step costs a microsecond, so that timers also fire between the steps of busy tasks. What it does is a function of its
choices alone: tasks and futures hash by the order of their creation (asyncio keeps them in sets), and the trace hash contains no
address and no salted hash. A step is one call of a handle; a timer that only wakes who sleeps is none of its own.

Private names of `asyncio` that it stands on: `_run_once`, `_ready`, `_stopping` of its `BaseEventLoop`, and what a timer of `sleep`
does; all of them are the same from Python 3.11 to 3.14.
"""

from __future__ import annotations

import asyncio
import heapq
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any, NoReturn, TypeVar

from sim.choices import Choices, Stream
from sim.hosts import LIFE, Host, Life

T = TypeVar("T")

STEP_COST = 1e-6  # seconds of virtual time
_FLUSH = 16_384  # numbers in the trace before they are hashed
_PRUNE = 256  # tasks that are remembered before the ended ones are forgotten
_WAKES_A_SLEEPER = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]


class Mode(StrEnum):
    """How the next handle is picked."""

    RANDOM = "random"  # each ready handle is as likely
    PRIORITIES = "priorities"  # PCT: random priorities, lowered at a few random points (Burckhardt et al., ASPLOS 2010)
    FIFO = "fifo"  # as asyncio does


class SimulationError(Exception):
    """The simulated world cannot go on."""


class Deadlock(SimulationError):
    """Nothing is ready, and no timer will ever make anything ready."""


class Livelock(SimulationError):
    """The world is busy without an end in sight: too many steps, or too much virtual time."""


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence of a run's story. `at` is virtual seconds."""

    at: float
    who: str
    what: str


class SimHandle(asyncio.Handle):
    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], loop: SimLoop, context: Context) -> None:
        # asyncio's own constructor asks the loop for its debug flag each time; this runs for every step.
        self._context = context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True


class SimTimer(asyncio.TimerHandle):
    __slots__ = ()
    _context: Context

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], loop: SimLoop, context: Context
    ) -> None:
        self._context = context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True

    def cancel(self) -> None:
        self._cancelled = True


class SimFuture(asyncio.Future[T]):
    """A future that hashes by the order in which futures are first asked for their hash: most never are."""

    serial = 0

    def __hash__(self) -> int:
        if not self.serial:
            self.serial = SimLoop.current().next_serial()
        return self.serial


class SimTask(asyncio.Task[T]):
    """A task that hashes by the order of creation."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], loop: SimLoop, name: str | None, context: Context) -> None:
        self.serial = loop.next_serial()
        self.coroutine = coroutine
        super().__init__(coroutine, loop=loop, name=name or f"task-{self.serial}", context=context)

    def __hash__(self) -> int:
        return self.serial


class _Priorities:
    """Probabilistic concurrency testing: finds any bug that needs `depth` ordered events with a known chance per seed."""

    def __init__(self, stream: Stream, depth: int = 3, horizon: int = 3_000) -> None:
        self._draw = stream.draw
        self._put = stream.put
        self._of: dict[int, float] = {}
        self._drops = sorted(int(self._draw() * horizon) for _ in range(depth - 1))
        self._step = 0

    def __call__(self, ready: list[SimHandle]) -> int:
        of = self._of
        best, best_priority, best_owner = 0, -1.0, 0
        for index, handle in enumerate(ready):
            owner = owner_of(handle)
            if (priority := of.get(owner)) is None:
                priority = of[owner] = 1 + self._draw()
            if priority > best_priority:
                best, best_priority, best_owner = index, priority, owner
        self._step += 1
        if self._drops and self._step >= self._drops[0]:
            self._drops.pop(0)
            of[best_owner] = len(self._drops) / 1_000
        return self._put(best)


class SimLoop(asyncio.BaseEventLoop):
    """Runs one simulated world. `tell` writes its story; `on_change` hears after each step what it has `changed`."""

    def __init__(
        self, choices: Choices, mode: Mode = Mode.RANDOM, max_steps: int = 2_000_000, max_time: float = 1e7
    ) -> None:
        super().__init__()
        self.get_debug = bool  # type: ignore[method-assign]  # asked for at every future: False, at once
        self.seed = choices.seed
        self.now = 0.0
        self.steps = 0
        self.ready: list[SimHandle] = []
        self.lives: list[Life] = []
        self.story: list[Line] = []
        self.complaints: list[str] = []
        self.marks: Counter[str] = Counter()
        self.work: Counter[str] = Counter()  # how much was done: jobs, calls of ports
        self.on_change: Callable[[set[object]], None] | None = None
        self._ready = self.ready  # BaseEventLoop.close clears it
        self._stopping = False
        self._timers: list[tuple[float, int, SimTimer]] = []
        self._serial = 0
        self._max_steps = max_steps
        self._max_time = max_time
        self._dirty: set[object] = set()
        self._buried = False
        self._outside: list[SimTask[Any]] = []
        self._trace: list[int] = []
        self._hash = blake2b(digest_size=16)
        self._pick = _picker(choices, mode)

    @classmethod
    def current(cls) -> SimLoop:
        """The running loop. Raises RuntimeError outside the simulator."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, cls):
            raise RuntimeError("this part of the simulator runs on a SimLoop only: see sim.run")
        return loop

    # Time

    def time(self) -> float:
        """The monotonic clock of the host that asks; the world's own clock outside of hosts."""
        life = LIFE.get()
        return self.now if life is None else life.host.boot_time()

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        timer = SimTimer(when, callback, args, self, context)
        life = LIFE.get()
        return self._set(when if life is None else when / life.host.rate, timer)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def later(self, delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Have something happen outside of all hosts in so many seconds of the world."""
        when = self.now + delay
        return self._set(when, SimTimer(when, callback, args, self, Context()))

    def _set(self, when: float, timer: SimTimer) -> SimTimer:
        self._serial += 1
        # A moment that lies ahead by less than rounding can show would fire without end at one and the same time.
        soonest = self.now + STEP_COST
        heapq.heappush(self._timers, (when if when > soonest else soonest, self._serial, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    # Scheduling

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if context is None:
            context = copy_context()
        handle = SimHandle(callback, args, self, context)
        if not self._buried:
            life = context.get(LIFE)
            (self.ready if life is None else life.inbox).append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # for asyncio's own hooks: there are no threads

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(loop=self)

    def create_task(  # type: ignore[override]
        self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        if self.is_closed():
            coroutine.close()
            raise RuntimeError("the simulated world has ended: nothing can be started any more")
        context = copy_context() if context is None else context
        task = SimTask(coroutine, self, name, context)
        life = context.get(LIFE)
        tasks = self._outside if life is None else life.tasks
        tasks.append(task)
        if len(tasks) % _PRUNE == 0:
            self._prune(tasks)
        self._trace.append(zlib.crc32(task.get_name().encode()))
        return task

    def outside(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a coroutine on no host: it goes on when the caller's host crashes or pauses."""
        return self.create_task(coroutine, name=name, context=Context())

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> NoReturn:  # type: ignore[override]
        raise SimulationError(f"{func!r} wants a thread: put it behind a port that has a twin")

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def withdraw(self, life: Life) -> list[SimHandle]:
        """Take everything that a life has ready out of the queue."""
        taken = [handle for handle in self.ready if handle._context.get(LIFE) is life]
        self.ready[:] = [handle for handle in self.ready if handle._context.get(LIFE) is not life]
        return taken

    def _run_once(self) -> None:
        """Run until stopped. (asyncio calls it in a loop; one call for the whole run saves a frame per step.)"""
        ready, timers = self.ready, self._timers
        while not self._stopping:
            if timers and timers[0][0] <= self.now:
                self._release_due()
            if not ready:
                self._advance()
                continue
            index = self._pick(ready) if len(ready) > 1 else 0
            handle = ready.pop(index)
            if handle._cancelled:
                continue
            self.now += STEP_COST
            self.steps += 1
            self._trace.append(owner_of(handle) << 16 | index)
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.complain(f"a callback raised {error!r}")
            if self._dirty:
                changed, self._dirty = self._dirty, set()
                if self.on_change is not None:
                    self.on_change(changed)
            if len(self._trace) > _FLUSH:
                self._flush()
                if self.steps > self._max_steps:
                    raise Livelock(f"more than {self._max_steps} steps. Waiting: {self.waiting()}")

    def _release_due(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            timer = heapq.heappop(timers)[2]
            if timer._cancelled:
                continue
            if timer._callback is _WAKES_A_SLEEPER:
                timer._callback(*timer._args)  # whoever sleeps is ready: on its host, and not while that stands still
                continue
            life = timer._context.get(LIFE)
            (self.ready if life is None else life.inbox).append(timer)  # type: ignore[arg-type]

    def _advance(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Deadlock(f"nothing is ready and no timer is set. Waiting: {self.waiting()}")
        if timers[0][0] > self._max_time:
            raise Livelock(f"more than {self._max_time:.0f} virtual seconds. Waiting: {self.waiting()}")
        self.now = timers[0][0]
        self._trace.append(int(self.now * 1e9))

    def _flush(self) -> None:
        self._hash.update(array("Q", self._trace).tobytes())
        self._trace.clear()

    # What an observer sees

    def digest(self) -> str:
        """The trace hash: equal for two runs that took the same steps at the same times and told the same story."""
        self._flush()
        return self._hash.hexdigest()

    def tell(self, what: str, who: str | None = None) -> None:
        """Add a sentence to the story. `who` is the calling host unless it is given."""
        if who is None:
            life = LIFE.get()
            who = "world" if life is None else life.host.name
        self.story.append(Line(self.now, who, what))
        self._trace.append(zlib.crc32(what.encode()))

    def changed(self, thing: object = None) -> None:
        """Say that this step changed something that an invariant looks at: this thing, or any (None)."""
        self._dirty.add(None if thing is None else id(thing))

    def waiting(self) -> str:
        """The tasks that have not ended, and where they wait."""
        lives = [task for life in self.lives if life.alive for task in life.tasks]
        places = [f"{task.get_name()} at {_place(task.coroutine)}" for task in self._outside + lives if not task.done()]
        return "; ".join(places) or "nobody"

    def host(self, name: str, boot: Callable[[Host], Coroutine[Any, Any, None]]) -> Host:
        """A new machine, still switched off."""
        return Host(self, name, boot)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._buried:
            self.complain(f"{context.get('message')}: {context.get('exception')!r}")

    def settle_complaints(self) -> None:
        """Also complain about tasks that ended with an exception which nobody looked at (nor was kept from it by a crash)."""
        for tasks in (self._outside, *(life.tasks for life in self.lives if life.alive)):
            for task in tasks:
                if task.done():
                    self.inspect(task)

    def inspect(self, task: asyncio.Task[Any]) -> None:
        """Complain if an ended task has an exception that nobody looked at."""
        if task._log_traceback:
            self.complain(f"task {task.get_name()} ended with {task.exception()!r}")

    def _prune(self, tasks: list[SimTask[Any]]) -> None:
        """Forget the tasks that have ended, but for those with an exception: somebody may still be about to look at it."""
        tasks[:] = [task for task in tasks if not task.done() or task._log_traceback]

    def complain(self, complaint: str) -> None:
        """Something went wrong where nobody could catch it: the run has failed."""
        self.complaints.append(complaint)
        self.tell(complaint, "loop")
        self.changed()

    # The end

    def close(self) -> None:
        """Bury everyone: close the coroutines that are left while no port listens and nothing can be scheduled any more."""
        if self.is_closed():
            return
        self._buried = True
        # Whatever a finally block does now is done by a life that is over.
        undertaker = Host(self, "undertaker", _nobody)
        grave = Life(undertaker, 0, [])
        grave.alive = False
        context = Context()
        context.run(LIFE.set, grave)
        for life in self.lives:
            life.alive = False
        for task in self._outside + [task for life in self.lives for task in life.tasks]:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                context.run(_bury, task.coroutine)
        self._timers.clear()
        super().close()


def owner_of(handle: SimHandle) -> int:
    """Who runs when the handle does: the serial of its task, or a number that stands for the name of its callback."""
    callback = handle._callback
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, SimTask):
        return owner.serial
    name = getattr(callback, "__qualname__", None) or type(callback).__name__
    return _named(name)


_names: dict[str, int] = {}


def _named(name: str) -> int:
    if (number := _names.get(name)) is None:
        number = _names[name] = zlib.crc32(name.encode()) | 1 << 40
    return number


def _picker(choices: Choices, mode: Mode) -> Callable[[list[SimHandle]], int]:
    stream = choices.stream("schedule")
    if mode is Mode.PRIORITIES and not choices.replaying:
        return _Priorities(stream)
    if mode is Mode.FIFO and not choices.replaying:
        return lambda ready: 0
    if choices.replaying:
        return lambda ready: stream.below(len(ready))
    draw, put = stream.draw, stream.put
    return lambda ready: put(int(draw() * len(ready)))


def _place(coroutine: Coroutine[Any, Any, Any] | Generator[Any, Any, Any]) -> str:
    """The innermost function that a suspended coroutine waits in, with its line."""
    inner: Any = coroutine
    while (deeper := getattr(inner, "cr_await", None)) is not None and hasattr(deeper, "cr_frame"):
        inner = deeper
    frame = getattr(inner, "cr_frame", None)
    return f"{inner.__qualname__}:{frame.f_lineno}" if frame is not None else inner.__qualname__


async def _nobody(host: Host) -> None:
    raise AssertionError(f"{host.name} is never started")


def _bury(coroutine: Coroutine[Any, Any, Any], patience: int = 100) -> None:
    """Close a coroutine, whatever its finally blocks try: each await of theirs is one more refusal to end."""
    for _ in range(patience):
        try:
            coroutine.close()
            return
        except BaseException:  # noqa: S112
            continue

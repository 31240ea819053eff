"""The twin of the network between workers and control planes: requests and answers get lost, doubled, delayed and reordered.

It is joined below HTTP: a request is any value, and its handler runs on the host that it is sent to, so that a crash there takes
the handler with it. Requests are frozen values; sender and receiver share nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from sim.hosts import LIFE, Host, require_alive
from sim.loop import SimLoop
from sim.marks import declare, sometimes
from sim.twins.calls import CALLS, trouble
from sim.twins.faults import Faults

DOUBLED = declare("a request arrived twice", "idempotency keys and report numbers exist for this")
UNANSWERED = declare("a request was done and its answer dropped", "the sender must ask again under the same id")
OVERTAKEN = declare("a request overtook an earlier one", "order is a promise of numbers, not of the network")

Handler = Callable[[Any], Coroutine[Any, Any, Any]]


class Unreachable(Exception):
    """The sender's side of a broken connection. `perhaps_done` is False only where the request surely never arrived."""

    def __init__(self, why: str, perhaps_done: bool) -> None:
        super().__init__(why)
        self.perhaps_done = perhaps_done


@dataclass(slots=True)
class Letter:
    """One request on its way; `again`: it will arrive a second time."""

    sender: str
    address: str
    number: int
    request: Any
    answer: asyncio.Future[Any]
    again: bool = False


class Wire:
    """One network. `cut` holds directed cuts: ("to" | "from", host name)."""

    def __init__(self, faults: Faults, name: str = "http") -> None:
        self.cut: set[tuple[str, str]] = set()
        self._faults = faults
        self._name = name
        self._handlers: dict[str, tuple[Host, Handler]] = {}
        self._sent: dict[str, int] = {}
        self._arrived: dict[str, int] = {}

    def listen(self, address: str, host: Host, handler: Handler) -> None:
        """Let `handler` answer what is sent to `address`, on this host. Done anew in each life of the host."""
        self._handlers[address] = (host, handler)

    async def send(self, address: str, request: Any) -> Any:
        """Send a request and wait for its answer; the caller sets its own timeout.

        Raises Unreachable, or what the handler raised.
        """
        require_alive()
        await trouble(self._faults, f"before {self._name}")
        loop = SimLoop.current()
        loop.work[CALLS] += 1
        life = LIFE.get()
        self._sent[address] = number = self._sent.get(address, 0) + 1
        sender = "world" if life is None else life.host.name
        letter = Letter(sender, address, number, request, loop.create_future())
        loop.later(self._faults.delay(self._name), self._arrive, letter)
        result = await letter.answer
        await trouble(self._faults, f"after {self._name}")
        return result

    def _arrive(self, letter: Letter) -> None:
        if self._lost(f"{self._name} drop request", letter.sender, letter.address):
            SimLoop.current().tell(f"a request from {letter.sender} to {letter.address} is lost", self._name)
            self._break(letter.answer, perhaps_done=False)
            return
        letter.again = self._faults.strikes(f"{self._name} duplicate")
        self._note_order(letter.address, letter.number)
        self._deliver(letter, self._answered)

    def _deliver(self, letter: Letter, then: Callable[[Letter, Any, BaseException | None], None]) -> None:
        """Have the request handled on the host that listens; `then` hears what came of it, or that the connection broke."""
        host, handler = self._handlers.get(letter.address, (None, None))
        if host is None or handler is None or (life := host.life) is None:
            then(letter, None, Unreachable(f"nobody listens at {letter.address}", perhaps_done=False))
            return
        task = host.spawn(handler(letter.request), f"{letter.address} handler")
        broken = Unreachable(f"{letter.address} broke the connection", perhaps_done=True)

        def ended(task: asyncio.Task[Any]) -> None:
            if life.bereaved.pop(task, None) is not None:
                failure = task.exception()
                then(letter, None if failure else task.result(), failure)

        life.bereaved[task] = lambda: then(letter, None, broken)
        task.add_done_callback(ended, context=Context())

    def _answered(self, letter: Letter, result: Any, failure: BaseException | None) -> None:
        loop, delay = SimLoop.current(), 0.0
        if self._lost(f"{self._name} drop answer", letter.address, letter.sender):
            sometimes(UNANSWERED, failure is None)
            loop.tell(f"the answer of {letter.address} to {letter.sender} is lost", self._name)
            self._break(letter.answer, perhaps_done=True)
        else:
            delay = self._faults.delay(self._name)
            loop.later(delay, _give, letter.answer, result, failure)
        if letter.again:
            loop.later(delay + self._faults.delay(f"{self._name} again"), self._arrive_again, letter)

    def _arrive_again(self, letter: Letter) -> None:
        sometimes(DOUBLED)
        self._deliver(letter, self._unheard)

    def _unheard(self, letter: Letter, result: Any, failure: BaseException | None) -> None:
        """Whatever comes of the second arrival of a request, nobody hears of it."""
        if failure is not None:
            SimLoop.current().tell(
                f"the second arrival of a request at {letter.address} came to {failure!r}", self._name
            )

    def _lost(self, fault: str, origin: str, destination: str) -> bool:
        cut = ("from", self._owner(origin)) in self.cut or ("to", self._owner(destination)) in self.cut
        return cut or self._faults.strikes(fault)

    def _owner(self, address: str) -> str:
        listening = self._handlers.get(address)
        return address if listening is None else listening[0].name

    def _break(self, answer: asyncio.Future[Any], perhaps_done: bool) -> None:
        """The sender hears that the connection broke, or hears nothing at all."""
        if self._faults.one_of(f"{self._name} lost", ("broken", "silence")) == "broken" and not answer.done():
            answer.set_exception(Unreachable("the connection broke", perhaps_done))

    def _note_order(self, address: str, number: int) -> None:
        sometimes(OVERTAKEN, number < self._arrived.get(address, 0))
        self._arrived[address] = max(number, self._arrived.get(address, 0))


def _give(answer: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if not answer.done():
        answer.set_result(result) if failure is None else answer.set_exception(failure)

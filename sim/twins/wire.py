"""The twin of the network between workers and control planes: requests and answers get lost, doubled, delayed and reordered.

It is joined below HTTP: a request is any value, and its handler runs on the host that it is sent to, so that a crash there takes
the handler with it. Requests are frozen values; sender and receiver share nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sim.hosts import LIFE, Host, require_alive
from sim.loop import SimLoop
from sim.marks import declare, sometimes
from sim.twins.calls import trouble
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
        answer: asyncio.Future[Any] = loop.create_future()
        life = LIFE.get()
        sender = "world" if life is None else life.host.name
        self._sent[address] = number = self._sent.get(address, 0) + 1
        loop.outside(self._carry(sender, address, number, request, answer), f"{self._name} to {address}")
        result = await answer
        await trouble(self._faults, f"after {self._name}")
        return result

    async def _carry(self, sender: str, address: str, number: int, request: Any, answer: asyncio.Future[Any]) -> None:
        await asyncio.sleep(self._faults.delay(self._name))
        if self._lost(f"{self._name} drop request", sender, address):
            SimLoop.current().tell(f"a request from {sender} to {address} is lost", self._name)
            self._break(answer, perhaps_done=False)
            return
        again = self._faults.strikes(f"{self._name} duplicate")
        self._note_order(address, number)
        try:
            result = await self._deliver(address, request)
            failure: BaseException | None = None
        except Exception as error:
            result, failure = None, error
        if self._lost(f"{self._name} drop answer", address, sender):
            sometimes(UNANSWERED, failure is None)
            SimLoop.current().tell(f"the answer of {address} to {sender} is lost", self._name)
            self._break(answer, perhaps_done=True)
        else:
            await asyncio.sleep(self._faults.delay(self._name))
            if not answer.done():
                answer.set_result(result) if failure is None else answer.set_exception(failure)
        if again:
            await asyncio.sleep(self._faults.delay(f"{self._name} again"))
            sometimes(DOUBLED)
            await self._once_more(address, request)

    async def _deliver(self, address: str, request: Any) -> Any:
        host, handler = self._handlers.get(address, (None, None))
        if host is None or handler is None or (life := host.life) is None:
            raise Unreachable(f"nobody listens at {address}", perhaps_done=False)
        task = host.spawn(handler(request), f"{address} handler")
        await asyncio.wait((task, life.over), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Unreachable(f"{address} broke the connection", perhaps_done=True)
        return task.result()

    async def _once_more(self, address: str, request: Any) -> None:
        """The second arrival of a request: whatever comes of it, nobody hears of it."""
        try:
            await self._deliver(address, request)
        except Exception as error:
            SimLoop.current().tell(f"the second arrival of a request at {address} came to {error!r}", self._name)

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

"""The vendors: threads that create, stop, start, delete and purge through the SDK, over both control planes, and never give up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from chaos.parts import SERVERS, Cell
from chaos.prober import Prober
from spectrum.sdk import Client, ClientError
from spectrum.sdk.errors import JobFailed, ProblemError, Unreachable, WaitTimeout
from spectrum.sdk.models import Instance, Job

T = TypeVar("T")

PATIENCE = 600.0  # seconds after which a command or a job counts as stuck
TWICE = 0.3  # of the commands are sent to the other control plane as well, under the same key


@dataclass(frozen=True)
class Accepted:
    """An answer that a client was given: this job, for this key."""

    key: str
    verb: str
    name: str
    job_id: str


@dataclass
class Ledger:
    """What all clients were told. Appending is safe between threads."""

    accepted: list[Accepted] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # why, by job
    answered: list[str] = field(default_factory=list)  # the control plane that did, for each answer


class Stuck(Exception):
    """Nobody answered for as long as a client waits."""


@dataclass
class Customer:
    """One thread's work: one instance of `spec` after the other, until it may stop."""

    number: int
    cell: Cell
    spec: Mapping[str, Any]
    ledger: Ledger
    prober: Prober
    on: Callable[[], bool]
    chance: random.Random
    given_up: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._clients = {name: self.cell.client(number) for number, name in enumerate(SERVERS)}

    def run(self) -> None:
        try:
            turn = 0
            while self.on() and not self.given_up.is_set():
                turn += 1
                self._live(f"c{self.number}-{turn}")
        except Exception as error:
            self.ledger.wrong.append(f"customer {self.number} ended: {type(error).__name__}: {error}")
        finally:
            for client in self._clients.values():
                client.close()

    def _live(self, name: str) -> None:
        if self.act("create", name) == "succeeded":
            self.probe(name)
            for _ in range(self.chance.randint(0, 2)):
                self.prober.forget(name)
                self.act("stop", name)
                if self.act("start", name) == "succeeded":
                    self.probe(name)
        self.prober.forget(name)
        self._away(name)

    def leave(self, names: Iterable[str]) -> None:
        """Take these instances away, and go."""
        try:
            for name in names:
                self._away(name)
        finally:
            for client in self._clients.values():
                client.close()

    def _away(self, name: str) -> None:
        """Delete and purge; what stays behind after a failure is asked for again, as a person would."""
        deadline = time.monotonic() + PATIENCE
        for verb, there in (("delete", "deleted"), ("purge", "purged")):
            while self.look(name, there) is not None and time.monotonic() < deadline:
                self.act(verb, name)

    def look(self, name: str, gone: str) -> Instance | None:
        """The instance, or None where it has come that far."""
        found = self._asked(lambda client: client.instances.find(name))
        return None if found is None or found.lifecycle in (gone, "purged") else found

    def probe(self, name: str) -> None:
        found = self._asked(lambda client: client.instances.get(name))
        if found.lifecycle == "running" and found.url:
            self.prober.watch(name, found.url)

    def act(self, verb: str, name: str) -> str:
        """The state in which the job ended; `refused` where there was none."""
        key = f"{name}-{verb}-{self.chance.getrandbits(64):016x}"
        try:
            job = self._asked(lambda client: self._send(client, verb, name, key))
        except ProblemError as error:
            self.ledger.refused.append(f"{verb} {name}: {error.status} {error.slug}: {error}")
            return "refused"
        self.ledger.accepted.append(Accepted(key, verb, name, job.id))
        if self.chance.random() < TWICE:
            again = self._asked(lambda client: self._send(client, verb, name, key))
            if again.id != job.id:
                self.ledger.wrong.append(f"P9: {verb} {name} under one key was {job.id}, then {again.id}")
        state = self.ledger.ended[job.id] = self._ending(job)
        return state

    def _ending(self, job: Job) -> str:
        def wait(client: Client) -> str:
            try:
                return client.jobs.wait(job.id, timeout=10).state
            except JobFailed as failed:
                self.ledger.failed[job.id] = failed.job.error.message if failed.job.error else failed.job.state
                return failed.job.state
            except WaitTimeout as error:
                raise Unreachable(str(error), "") from error

        return self._asked(wait)

    def _asked(self, ask: Callable[[Client], T]) -> T:
        """What either control plane answers, asked again and again. A plain no is raised; no answer is not one."""
        deadline = time.monotonic() + PATIENCE
        while True:
            copy = self.chance.choice(SERVERS)
            try:
                answer = ask(self._clients[copy])
            except Unreachable as error:
                last: ClientError = error
            except ProblemError as error:
                if error.status < 500 and error.status != 429:
                    raise
                last = error
            else:
                self.ledger.answered.append(copy)
                return answer
            if self.given_up.is_set() or time.monotonic() > deadline:
                raise Stuck(str(last))
            time.sleep(0.1)

    def _send(self, client: Client, verb: str, name: str, key: str) -> Job:
        if verb == "create":
            return client.instances.create(name, self.spec, key=key)
        return client.instances.act(verb, name, key=key)


@dataclass
class Crowd:
    """All customers, each in a thread."""

    customers: list[Customer]
    _threads: list[threading.Thread] = field(default_factory=list)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """All of them are over afterwards, also where the run is given up."""
        self._threads = [threading.Thread(target=customer.run) for customer in self.customers]
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            for customer in self.customers:
                customer.given_up.set()
            for thread in self._threads:
                thread.join()

    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

"""A customer's traffic: every running instance is asked ten times a second, from the place where it lives.

Whoever measures must run himself: the prober keeps a record of its own lateness, and what it could not judge for that counts as
not measured, never as answered.
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException

from chaos.machine import enter

PERIOD = 0.1  # seconds
PATIENCE = 5.0  # seconds for one answer
STARVED = 0.5  # seconds of a request in which the prober itself did not run: then silence says nothing of the instance
_KEPT = int(10 * PATIENCE / PERIOD)  # beats
_SILENCE = (TimeoutError, ConnectionResetError, BrokenPipeError, HTTPException)


@dataclass(frozen=True)
class Beat:
    """The prober's own clock: it meant to wake at `due` and woke at `woke`; seconds of one clock."""

    due: float
    woke: float


@dataclass(frozen=True)
class Asked:
    """One request: from when to when, and why it has no answer.

    `silent`: nothing came, or the other side hung up on a request that it had waited for: both may be the asker's own doing.
    """

    began: float
    ended: float
    failure: str | None = None
    silent: bool = False


def starved(asked: Asked, beats: Iterable[Beat]) -> float:
    """Seconds of the request in which the prober did not run though it should have."""
    return sum(max(0.0, min(beat.woke, asked.ended) - max(beat.due, asked.began)) for beat in beats)


def measured(asked: Asked, beats: Iterable[Beat]) -> bool:
    """Whether the request says something of the instance. A refusal always does; silence only where the prober was awake."""
    return not asked.silent or starved(asked, beats) < STARVED


@dataclass
class _Probe:
    thread: threading.Thread
    over: threading.Event


@dataclass
class Prober:
    """`asked` counts requests; `failures` says which were not answered, `not_measured` which were not, by whose fault is unknown.

    `slowest` is the longest wait for an answer, `latest` the longest that the prober itself was behind its schedule: seconds.
    """

    namespace: str | None
    asked: int = 0
    slowest: float = 0.0
    latest: float = 0.0
    failures: list[str] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)
    _probes: dict[str, _Probe] = field(default_factory=dict)
    _beats: deque[Beat] = field(default_factory=lambda: deque([Beat(0.0, 0.0)], maxlen=_KEPT))
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, name: str, url: str) -> None:
        over = threading.Event()
        thread = threading.Thread(target=self._probe, args=(name, url, over))
        self._probes[name] = _Probe(thread, over)
        thread.start()

    def forget(self, name: str) -> None:
        """Returns once the last request is answered: what is stopped afterwards fails nobody."""
        probe = self._probes.pop(name, None)
        if probe is not None:
            probe.over.set()
            probe.thread.join()

    @contextmanager
    def probing(self) -> Iterator[None]:
        over = threading.Event()
        beating = threading.Thread(target=self._beat, args=(over,))
        beating.start()
        try:
            yield
        finally:
            for name in list(self._probes):
                self.forget(name)
            over.set()
            beating.join()

    def _beat(self, over: threading.Event) -> None:
        while not over.is_set():
            due = time.monotonic() + PERIOD
            over.wait(PERIOD)
            beat = Beat(due, time.monotonic())
            with self._turn:
                self._beats.append(beat)
                self.latest = max(self.latest, beat.woke - beat.due)

    def _probe(self, name: str, url: str, over: threading.Event) -> None:
        enter(self.namespace)
        while not over.wait(PERIOD):
            asked = _ask(url)
            while asked.silent and self._beats[-1].woke < asked.ended:
                time.sleep(PERIOD)  # the beat that is under way tells of the end of the request
            with self._turn:
                self._count(name, asked)

    def _count(self, name: str, asked: Asked) -> None:
        self.asked += 1
        self.slowest = max(self.slowest, asked.ended - asked.began)
        if asked.failure is not None:
            fair = measured(asked, self._beats)
            said = f"{name} after {asked.ended - asked.began:.1f} s: {asked.failure}"
            lag = f"the prober did not run for {starved(asked, self._beats):.1f} s of it"
            (self.failures if fair else self.not_measured).append(f"{said}; {lag}")


def _ask(url: str) -> Asked:
    began = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE):
            return Asked(began, time.monotonic())
    except urllib.error.HTTPError as error:
        return Asked(began, time.monotonic(), str(error) if error.code >= 500 else None)
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return Asked(began, time.monotonic(), f"{type(reason).__name__}: {error}", isinstance(reason, _SILENCE))

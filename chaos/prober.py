"""A customer's traffic: every running instance is asked ten times a second, from the place where it lives."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from chaos.machine import enter

PERIOD = 0.1  # seconds
PATIENCE = 5.0  # seconds for one answer


@dataclass
class _Probe:
    thread: threading.Thread
    over: threading.Event


@dataclass
class Prober:
    """`asked` counts requests, `failures` says which were not answered."""

    namespace: str | None
    asked: int = 0
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)
    _probes: dict[str, _Probe] = field(default_factory=dict)
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
        try:
            yield
        finally:
            for name in list(self._probes):
                self.forget(name)

    def _probe(self, name: str, url: str, over: threading.Event) -> None:
        enter(self.namespace)
        while not over.wait(PERIOD):
            began = time.monotonic()
            failure = _failure(url)
            took = time.monotonic() - began
            with self._turn:
                self.asked += 1
                self.slowest = max(self.slowest, took)
                if failure is not None:
                    self.failures.append(f"{name} at {began:.1f}: {failure}")


def _failure(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE):
            return None
    except urllib.error.HTTPError as error:
        return str(error) if error.code >= 500 else None
    except OSError as error:
        return str(error)

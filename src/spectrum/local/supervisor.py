"""The detached process that keeps an installation's parts running: `python -m spectrum.local.supervisor HOME`.

There is one per installation, the holder of a lock. It can be killed at any moment: the parts go on, and the next
supervisor adopts them by their records. A part writes its own record before it becomes the program, and holds the
supervisor's lock until then, so that there is never a part without a record.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from spectrum.local import identity, parts
from spectrum.local.child import LOCK_DESCRIPTOR, Child
from spectrum.local.home import Home, write
from spectrum.local.identity import Identity
from spectrum.local.logs import say

TICK = 1.0  # seconds between two looks at ports, logs and back-off


class Supervisor:
    """Starts parts, restarts what dies; SIGTERM stops them in reverse order, SIGHUP makes it read them again."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._children: list[Child] = []
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._reload = True
        self._written = ""

    def run(self) -> None:
        self._listen()
        while not self._stopping:
            if self._reload:
                self._reload = False
                self._take_up(parts.load(self._home) or tuple(child.part for child in self._children))
            pause = min([TICK, *(child.tend() for child in self._children)])
            self._publish()
            self._sleep(pause)
        self._stop_all()

    def _listen(self) -> None:
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload = True

    def _take_up(self, wanted: tuple[parts.Part, ...]) -> None:
        """Keep what runs as wanted, stop what does not, give everything a fresh start without back-off."""
        names = {part.name for part in wanted}
        for child in reversed(self._children):
            if child.part.name not in names:
                child.stop()
        known = {child.part.name: child for child in self._children}
        self._children = [known.get(part.name) or Child(self._home, part) for part in wanted]
        for child, part in zip(self._children, wanted, strict=True):
            child.adopt(part)

    def _sleep(self, seconds: float) -> None:
        """Until a part ends, a signal comes, or the time is over."""
        watch = select.poll()
        watch.register(self._wake, select.POLLIN)
        for child in self._children:
            if child.descriptor is not None:
                watch.register(child.descriptor, select.POLLIN)
        watch.poll(max(0.0, seconds) * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def _publish(self) -> None:
        """What `status` shows. A full disk must not end supervision: the old state stays, and its readers check it."""
        me = identity.identify(os.getpid())
        wanted = parts.fingerprint(tuple(child.part for child in self._children))
        state = {
            "supervisor": me and asdict(me),
            "wanted": wanted,
            "parts": [child.as_json() for child in self._children],
        }
        text = json.dumps(state, indent=1)
        if text != self._written:
            with contextlib.suppress(OSError):
                write(self._home.state, text)
                self._written = text

    def _stop_all(self) -> None:
        for child in reversed(self._children):
            say(f"stopping {child.part.name}")
            child.stop()
            self._publish()


def stored_state(home: Home) -> dict[str, Any]:
    """What the supervisor wrote last; empty where it has written nothing."""
    try:
        stored = json.loads(home.state.read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def living_supervisor(home: Home) -> Identity | None:
    """The living holder of the lock. It writes its state soon after it took the lock."""
    stored = stored_state(home).get("supervisor")
    supervisor = Identity(**stored) if stored else None
    return supervisor if supervisor and identity.alive(supervisor) else None


def take_lock(home: Home, seconds: float, give_up: Callable[[], object] = lambda: False) -> int | None:
    """The lock of the one supervisor, or None if it is not to be had within `seconds`. It ends with its holder."""
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline or give_up():
                os.close(descriptor)
                return None
            time.sleep(0.02)


def main() -> None:
    home = Home(Path(sys.argv[1]))
    # A part that is just being launched holds the lock for a moment; another supervisor holds it for good.
    descriptor = take_lock(home, seconds=5.0, give_up=lambda: living_supervisor(home))
    if descriptor is None or not parts.load(home):
        say(f"nothing to supervise in {home.root}: it has a supervisor already, or is down")
        raise SystemExit(0)
    os.dup2(descriptor, LOCK_DESCRIPTOR, inheritable=False)
    os.close(descriptor)
    say(f"supervisor {os.getpid()} of {home.root} starts")
    Supervisor(home).run()
    say("supervisor ends")


if __name__ == "__main__":
    main()

"""One supervised part: its process, whether it was started or adopted, and when it is started next."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from enum import StrEnum
from pathlib import Path
from typing import Any

from spectrum.local import identity
from spectrum.local.home import Home
from spectrum.local.identity import Identity
from spectrum.local.listeners import listens
from spectrum.local.logs import message, rotate, say, tail
from spectrum.local.parts import Part, accepts

LOCK_DESCRIPTOR = 9  # of the supervisor's lock in its own process and in a part until that has written its record
STABLE = 10.0  # seconds after which an end no longer counts as part of a crash loop
LOOP = 4  # quick ends in a row that make a crash loop
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0

# Becomes the program only after pid, start time and boot are on disk; closes the lock with the same act.
_LAUNCHER = f"""
read -r stat < /proc/$$/stat && read -r boot < {identity.BOOT_ID} || exit 70
printf '%s\\n%s\\n%s\\n' "$boot" "$2" "$stat" > "$1.new" && mv "$1.new" "$1" || exit 70
shift 2
exec "$@" {LOCK_DESCRIPTOR}>&-
"""


class State(StrEnum):
    WAITING = "waiting"  # for another part or a file
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing-off"
    CRASH_LOOP = "crash-loop"
    STOPPED = "stopped"


class Child:
    """What the supervisor knows of one part. `descriptor` is readable once the process has ended."""

    def __init__(self, home: Home, part: Part) -> None:
        self.part = part
        self.state = State.WAITING
        self.descriptor: int | None = None
        self._home = home
        self._identity: Identity | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._since = time.time()
        self._restarts = 0
        self._quick_ends = 0
        self._start_at = 0.0  # monotonic
        self._error = ""
        self._waits_for = ""

    def adopt(self, part: Part) -> None:
        """Take over what runs already, if it is what the part asks for now; else stop it. The next start is at once."""
        self.part = part
        self._quick_ends, self._start_at = 0, 0.0
        recorded = read_record(self._home, part.name)
        if self._identity is None and recorded is not None:
            self._watch(recorded[0])
        if self._identity is not None and (recorded is None or recorded[1] != part.digest):
            say(f"{part.name} has changed and is started anew")
            self.stop()
            self._become(State.WAITING)

    def tend(self) -> float:
        """Do what is due; seconds until it has to be asked again."""
        rotate(self._home.log(self.part.name))
        if self._identity is not None and not identity.alive(self._identity):
            self._ended()
        if self._identity is None:
            return self._try_start()
        if self.state is State.STARTING and self._is_ready(self._identity.pid):
            self._become(State.RUNNING)
        if identity.uptime(self._identity) >= STABLE:
            self._quick_ends = 0
        return 0.1 if self.state is State.STARTING else 1.0

    def stop(self) -> None:
        """Ask it to end, in its own way, and make it end when its grace is over."""
        if self._identity is not None:
            identity.end(self._identity, self.part.stop_signal, self.part.grace)
            self._forget()
        self._home.record(self.part.name).unlink(missing_ok=True)
        self._become(State.STOPPED)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.part.name,
            "state": self.state.value,
            "pid": self._identity.pid if self._identity else None,
            "port": self.part.port,
            "since": self._since,
            "restarts": self._restarts,
            "crash_loop": self._quick_ends >= LOOP,
            "waits_for": self._waits_for,
            "last_error": self._error,
        }

    def _is_ready(self, pid: int) -> bool:
        """Whether what others need of it is there, and its port open by itself: a stranger there is no sign of life."""
        if not all(Path(path).exists() for path in self.part.gives_files):
            return False
        port = self.part.port
        return port is None or (accepts(port) and (self.part.adopts or listens(pid, port)))

    def _try_start(self) -> float:
        wait = self._start_at - time.monotonic()
        if wait > 0:
            return wait
        if missing := self.part.missing():
            self._waits_for = missing
            self._become(State.WAITING)
            return 0.1
        try:
            self._start()
        except OSError as error:
            self._failed(f"cannot be started: {error}")
        return 0.1

    def _start(self) -> None:
        record = self._home.record(self.part.name)
        for path in self.part.gives_files:
            Path(path).unlink(missing_ok=True)
        with self._home.log(self.part.name).open("ab") as log:
            launcher = ["/bin/sh", "-c", _LAUNCHER, "sh", str(record), self.part.digest]
            self._popen = subprocess.Popen(
                [*launcher, *self.part.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home.root,
                env=self._environment(),
                start_new_session=True,
                pass_fds=(LOCK_DESCRIPTOR,),
            )
        say(f"{self.part.name} started as {self._popen.pid}")
        started = identity.identify(self._popen.pid)
        if started is None:
            self._ended()
        else:
            self._watch(started)

    def _environment(self) -> dict[str, str]:
        """The caller's, without SPECTRUM's own variables: a part is told everything that it is to know."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPECTRUM_")}
        files = {name: Path(path).read_text().strip() for name, path in self.part.environment_files.items()}
        return inherited | dict(self.part.environment) | files

    def _watch(self, process: Identity) -> None:
        self.descriptor = identity.open_pidfd(process)
        if self.descriptor is None:
            return self._ended() if self._popen is not None else None
        self._identity = process
        self._since = time.time() - identity.uptime(process)
        self._become(State.STARTING)
        return None

    def _ended(self) -> None:
        code = self._popen.wait() if self._popen is not None else None
        self._forget()
        self._failed(f"{_how(code)}{self._last_words(code)}")

    def _last_words(self, code: int | None) -> str:
        """What it said before it ended, which explains nothing where it was killed."""
        last = tail(self._home.log(self.part.name), 1)
        return f": {message(last[0])}" if last and code != -signal.SIGKILL else ""

    def _failed(self, error: str) -> None:
        """Note why, and when it is tried again: twice as late each time, up to a bound."""
        self._error = error[:500]
        say(f"{self.part.name} {self._error}")
        self._restarts += 1
        self._quick_ends += 1
        pause = min(FIRST_PAUSE * 2 ** (self._quick_ends - 1), LONGEST_PAUSE)
        self._start_at = time.monotonic() + pause
        self._become(State.CRASH_LOOP if self._quick_ends >= LOOP else State.BACKING_OFF)

    def _forget(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
        if self._popen is not None:
            self._popen.wait()
        self.descriptor = self._identity = self._popen = None

    def _become(self, state: State) -> None:
        if state is not State.WAITING:
            self._waits_for = ""
        self.state = state


def read_record(home: Home, name: str) -> tuple[Identity, str] | None:
    """The living process that a part's record names, and the digest of what was asked for when it was started."""
    try:
        boot, digest, stat = home.record(name).read_text().splitlines()
        recorded = identity.parse(stat, boot)
    except (OSError, ValueError, IndexError):
        return None
    return (recorded, digest) if identity.alive(recorded) else None


def stop_orphan(home: Home, part: Part) -> bool:
    """Stop a part whose supervisor is gone. False if it did not run."""
    found = read_record(home, part.name)
    if found is not None:
        identity.end(found[0], part.stop_signal, part.grace)
    home.record(part.name).unlink(missing_ok=True)
    return found is not None


def _how(code: int | None) -> str:
    match code:
        case None:
            return "ended"
        case _ if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        case _:
            return f"ended with code {code}"

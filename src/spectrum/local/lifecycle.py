"""Bringing an installation's parts up and down, and saying how they are. Every call may be interrupted and repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from spectrum.local import identity, parts
from spectrum.local.child import State, read_record, stop_orphan
from spectrum.local.errors import LocalError
from spectrum.local.home import Home, port_is_free
from spectrum.local.listeners import owner_of
from spectrum.local.logs import tail
from spectrum.local.parts import Part
from spectrum.local.supervisor import living_supervisor, stored_state, take_lock

START_SECONDS = 180.0
PAUSE = 0.05

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part as it is now. `uptime` in seconds."""

    name: str
    state: str
    pid: int | None
    port: int | None
    uptime: float | None
    restarts: int
    last_error: str
    crash_loop: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """An installation as it is now. Without a supervisor its parts go on, but nobody restarts them."""

    home: str
    supervisor: int | None
    parts: tuple[PartStatus, ...]

    @property
    def running(self) -> bool:
        return self.supervisor is not None and all(part.state == State.RUNNING for part in self.parts)


def start(home: Home, wanted: tuple[Part, ...]) -> None:
    """Have a supervisor keep exactly these parts running. Returns once it does, not once they are ready."""
    parts.store(home, wanted)
    running = living_supervisor(home)
    if not (running and identity.send(running, signal.SIGHUP)):
        for part in wanted:
            _refuse_taken_port(home, part)
        _spawn(home)
    _await_taken_up(home, wanted)


def await_running(home: Home, names: tuple[str, ...], timeout: float = START_SECONDS) -> None:
    """Until all of these parts run, under a supervisor, which is started again if it has died meanwhile.

    Raises `LocalError` if a part does not stay up, or it takes longer than `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        if living_supervisor(home) is None:
            start(home, parts.load(home))  # the one that was told a moment ago was dying
        status = read(home)
        current = {part.name: part for part in status.parts if part.name in names}
        for part in current.values():
            if part.crash_loop:
                raise _does_not_stay_up(home, part)
        if status.supervisor and [part.state for part in current.values()] == [State.RUNNING] * len(names):
            return
        if time.monotonic() >= deadline:
            late = ", ".join(name for name in names if name not in current or current[name].state != State.RUNNING)
            raise LocalError(f"{late} not ready after {timeout:.0f} s", f"Look into {home.logs}")
        time.sleep(PAUSE)


def stop(home: Home, report: Report) -> None:
    """Stop supervisor and parts, in reverse order, whoever started them. Data stays."""
    if not home.run.is_dir():
        return
    wanted = parts.withdraw(home)
    if running := living_supervisor(home):
        report("Stopping the parts")
        identity.end(running, signal.SIGTERM, sum(part.grace for part in wanted) + 10.0)
    lock = take_lock(home, seconds=10.0)
    if lock is None:
        raise LocalError(f"The supervisor of {home.root} does not end", "Look into " + str(home.log("supervisor")))
    try:
        for part in reversed(wanted):
            if stop_orphan(home, part):
                report(f"Stopped {part.name}, which had lost its supervisor")
        home.state.unlink(missing_ok=True)
    finally:
        os.close(lock)


def read(home: Home) -> Status:
    """What the supervisor wrote last, held against the processes that are really there."""
    entries = stored_state(home).get("parts", ())
    supervisor = living_supervisor(home)
    found = tuple(_part_status(home, entry, supervisor is not None) for entry in entries)
    return Status(str(home.root), supervisor.pid if supervisor else None, found)


def _part_status(home: Home, entry: dict[str, object], supervised: bool) -> PartStatus:
    found = read_record(home, str(entry["name"]))
    state = str(entry["state"])
    if found is None and state in (State.RUNNING, State.STARTING):
        state = State.BACKING_OFF if supervised else State.STOPPED
    elif found is not None and not supervised:
        state = "unsupervised"
    return PartStatus(
        name=str(entry["name"]),
        state=state,
        pid=found[0].pid if found else None,
        port=entry["port"] if isinstance(entry["port"], int) else None,
        uptime=round(identity.uptime(found[0]), 1) if found else None,
        restarts=int(str(entry["restarts"])),
        last_error=str(entry["last_error"] or entry["waits_for"]),
        crash_loop=bool(entry["crash_loop"]),
    )


def _spawn(home: Home) -> None:
    """Start a supervisor of its own session; it stays when this process and its terminal end."""
    with home.log("supervisor").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "spectrum.local.supervisor", str(home.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home.root,
            start_new_session=True,
        )
    deadline = time.monotonic() + 15.0
    while not (running := living_supervisor(home)):
        if time.monotonic() >= deadline:
            said = " ".join(tail(home.log("supervisor"), 1))
            raise LocalError(f"The supervisor does not start: {said}", f"Look into {home.log('supervisor')}")
        time.sleep(PAUSE)
    if running.pid != process.pid:  # one that an interrupted command had started was first
        identity.send(running, signal.SIGHUP)
        process.wait()
    process.returncode = 0  # it outlives this process on purpose: nothing to warn about


def _await_taken_up(home: Home, wanted: tuple[Part, ...]) -> None:
    """Until the supervisor says that these are the parts that it keeps: what it said before is of others."""
    deadline = time.monotonic() + sum(part.grace for part in wanted) + 15.0
    while living_supervisor(home) and stored_state(home).get("wanted") != parts.fingerprint(wanted):
        if time.monotonic() >= deadline:
            raise LocalError("The supervisor does not take up its parts", f"Look into {home.log('supervisor')}")
        time.sleep(PAUSE)


def _refuse_taken_port(home: Home, part: Part) -> None:
    if part.port is None or part.adopts or read_record(home, part.name) or port_is_free(part.port):
        return
    raise LocalError(
        f"Port {part.port}, which {part.name} uses, is taken by {owner_of(part.port)}",
        f"End that program, or remove {home.ports} to have another port chosen, and run spectrum up again",
    )


def _does_not_stay_up(home: Home, part: PartStatus) -> LocalError:
    return LocalError(f"{part.name} does not stay up: it {part.last_error}", f"Look into {home.log(part.name)}")

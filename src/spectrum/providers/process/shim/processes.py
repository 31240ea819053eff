"""Which processes belong to a unit or an instance, and how they are ended, strays and grandchildren included."""

from __future__ import annotations

import os
import signal
import time

from . import durable
from .durable import Identity
from .refusals import TRANSIENT, Refusal

MARKER = "INSTANCE_UNIT"
KILL_SECONDS = 10.0


class Process:
    """One row of /proc: who it is and what it descends from."""

    __slots__ = ("group", "identity", "parent", "session", "uid")

    def __init__(self, identity: Identity, parent: int, group: int, session: int, uid: int) -> None:
        self.identity = identity
        self.parent = parent
        self.group = group
        self.session = session
        self.uid = uid


def table(boot: str) -> dict[int, Process]:
    """Every running process that can be seen, by pid; zombies have ended and are left out."""
    found: dict[int, Process] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        fields = durable.stat_fields(int(name))
        if fields is None or fields[0] in "ZX":
            continue
        try:
            uid = os.stat(f"/proc/{name}").st_uid
        except OSError:
            continue
        identity = Identity(int(name), int(fields[19]), boot)
        found[int(name)] = Process(identity, int(fields[1]), int(fields[2]), int(fields[3]), uid)
    return found


def _carries(pid: int, marker: bytes) -> bool:
    """True where the process inherited the unit's mark, which a daemon that forks twice and leads its own session keeps."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(entry == marker or entry.startswith(marker + b"/") for entry in file.read().split(b"\0"))
    except OSError:
        return False


def descendants(roots: set[int], rows: dict[int, Process]) -> set[int]:
    found = {pid for pid in roots if pid in rows}
    grew = True
    while grew:
        more = {pid for pid, row in rows.items() if row.parent in found} - found
        found |= more
        grew = bool(more)
    return found


class Scope:
    """What tells the processes of one unit (or of a whole instance) from all others on the machine.

    `mark` is the value of the MARKER variable, or its beginning up to a slash; `uid` the account where it is the instance's alone.
    """

    def __init__(self, mark: str, uid: int | None, groups: tuple[str, ...] = (), whole_account: bool = False) -> None:
        self.marker = f"{MARKER}={mark}".encode()
        self.uid = uid
        self.groups = groups
        self.whole_account = whole_account and uid is not None

    def members(self, main: Identity | None, spare: set[int]) -> list[Identity]:
        """Every process of the scope, descendants of the keepers in `spare` included, these themselves left out."""
        rows = table(durable.boot_id())
        roots = spare | ({main.pid} if main is not None and main.alive() else set())
        found = descendants(roots, rows) | self._in_groups()
        found |= {pid for pid, row in rows.items() if self._holds(pid, row, main)}
        return [rows[pid].identity for pid in found - spare - {os.getpid()} if pid in rows]

    def _holds(self, pid: int, row: Process, main: Identity | None) -> bool:
        if self.whole_account and row.uid == self.uid:
            return True
        if main is not None and main.boot == row.identity.boot and main.pid in (row.session, row.group):
            return True
        return row.uid in (self.uid, os.geteuid()) and _carries(pid, self.marker)

    def _in_groups(self) -> set[int]:
        found: set[int] = set()
        for group in self.groups:
            text = durable.read(os.path.join(group, "cgroup.procs"))
            found |= {int(pid) for pid in (text or "").split()}
        return found

    def kill(self, main: Identity | None = None, spare: set[int] | None = None) -> None:
        """End everything in the scope, again and again until nothing is left: a process may fork while it is looked for.

        Raises Refusal (transient) where something can't be ended within KILL_SECONDS.
        """
        deadline = time.monotonic() + KILL_SECONDS
        while members := self.members(main, spare or set()):
            if time.monotonic() > deadline:
                names = ", ".join(str(member.pid) for member in members[:10])
                raise Refusal(
                    TRANSIENT, "processes-remain", f"processes {names} did not end within {KILL_SECONDS:g} s of SIGKILL"
                )
            for member in members:
                member.signal(signal.SIGKILL)
            for member in members:
                member.wait(max(0.0, min(1.0, deadline - time.monotonic())))

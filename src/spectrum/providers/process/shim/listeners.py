"""Who listens on a port: proof that an answer on it comes from the instance, and not from somebody who took the port."""

from __future__ import annotations

import os

from . import durable
from .processes import descendants, table

LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h


class Listener:
    """One listening socket: its inode and the uid that made it (proc_net_tcp(5))."""

    __slots__ = ("inode", "uid")

    def __init__(self, inode: int, uid: int) -> None:
        self.inode = inode
        self.uid = uid


def on_port(port: int) -> list[Listener]:
    """Every socket that listens on the port, IPv4 and IPv6."""
    found = []
    wanted = f":{port:04X}"
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (durable.read(path) or "").splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and fields[1].endswith(wanted):
                found.append(Listener(int(fields[9]), int(fields[7])))
    return found


def _sockets(pid: int) -> set[int]:
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    except OSError:
        return found
    return found


def holder(port: int) -> str:
    """Who listens on the port, in words for a person."""
    for listener in on_port(port):
        for name in filter(str.isdigit, os.listdir("/proc")):
            if listener.inode in _sockets(int(name)):
                command = (durable.read(f"/proc/{name}/comm") or "?").strip()
                return f"process {name} ({command}) of uid {listener.uid}"
        return f"a process of uid {listener.uid}"
    return "nobody"


def belongs(port: int, roots: set[int], uid: int | None) -> bool | None:
    """True: every listener is the instance's; False: somebody else listens; None: nobody does.

    `uid` is the account where it is the instance's alone; `roots` are the pids that its process trees start from.
    """
    listeners = on_port(port)
    if not listeners:
        return None
    if uid is not None:
        return all(listener.uid == uid for listener in listeners)
    ours: set[int] = set()
    for pid in descendants(roots, table(durable.boot_id())):
        ours |= _sockets(pid)
    return all(listener.inode in ours for listener in listeners)

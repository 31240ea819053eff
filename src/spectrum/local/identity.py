"""Which process is meant: pid, start time and boot, so that a recycled pid is never taken for its former owner."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STATE, START = 0, 19  # fields 3 and 22 of proc_pid_stat(5), counted from the one after the command's name


@dataclass(frozen=True, slots=True)
class Identity:
    pid: int
    started: int  # clock ticks since boot
    boot: str


def identify(pid: int) -> Identity | None:
    """The process that has this pid now; None if there is none, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return _living(text, BOOT_ID.read_text().strip())


def parse(stat: str, boot: str) -> Identity:
    """From a line of /proc/PID/stat. The command's name may hold blanks and brackets: its last bracket ends it."""
    return Identity(int(stat.split(" ", 1)[0]), int(stat.rpartition(")")[2].split()[START]), boot)


def alive(identity: Identity) -> bool:
    return identify(identity.pid) == identity


def open_pidfd(identity: Identity) -> int | None:
    """A descriptor of exactly this process (readable once it has ended), or None if it is gone."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if alive(identity):
        return descriptor
    os.close(descriptor)
    return None


def send(identity: Identity, number: int) -> bool:
    """Signal exactly this process. False if it is gone; its pid's next owner is never touched."""
    descriptor = open_pidfd(identity)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def wait(identity: Identity, timeout: float) -> bool:
    """Whether the process has ended within `timeout` seconds. It need not be a child."""
    descriptor = open_pidfd(identity)
    if descriptor is None:
        return True
    try:
        watch = select.poll()
        watch.register(descriptor, select.POLLIN)
        return bool(watch.poll(timeout * 1000))
    finally:
        os.close(descriptor)


def uptime(identity: Identity) -> float:
    """Seconds since the process started."""
    booted = float(Path("/proc/uptime").read_text().split()[0])
    return max(0.0, booted - identity.started / os.sysconf("SC_CLK_TCK"))


def end(identity: Identity, number: int, grace: float) -> None:
    """Ask the process to end, and make it end once `grace` seconds are over."""
    if send(identity, number) and not wait(identity, grace):
        send(identity, signal.SIGKILL)
        wait(identity, grace)


def _living(stat: str, boot: str) -> Identity | None:
    return None if stat.rpartition(")")[2].split()[STATE] in "ZX" else parse(stat, boot)

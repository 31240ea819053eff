"""Facts that survive: files replaced as a whole, and processes recognised again by pid, start time and boot."""

from __future__ import annotations

import fcntl
import json
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def sync_folder(path: str) -> None:
    """Make the names in a folder durable (fsync(2), notes on directories)."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: str, content: str, mode: int = 0o600) -> None:
    """Replace a file so that a reader, or a crash at any moment, sees the old or the new content as a whole."""
    fresh = path + ".new"  # one writer per file: what a crash leaves is written over
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    os.replace(fresh, path)
    sync_folder(os.path.dirname(path))


def write_json(path: str, value: Any, mode: int = 0o600) -> None:
    write(path, json.dumps(value, separators=(",", ":")) + "\n", mode)


def read(path: str) -> str | None:
    """The content, or None where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_json(path: str) -> Any:
    """The value, or None where there is no such file. Raises ValueError where the file is damaged."""
    text = read(path)
    return None if text is None else json.loads(text)


def unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def is_locked(path: str) -> bool:
    """Whether somebody holds the file's lock (flock(2)) for himself. Asks with a shared one: two that ask don't see each other."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def boot_id() -> str:
    return (read("/proc/sys/kernel/random/boot_id") or "").strip()


def stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, field 3 (state) first; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


class Identity:
    """One process, told apart from a later one with the same pid by start time (field 22) and boot id (proc(5))."""

    __slots__ = ("boot", "pid", "start")

    def __init__(self, pid: int, start: int, boot: str) -> None:
        self.pid = pid
        self.start = start
        self.boot = boot

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The running process with this pid, or None (a zombie has ended)."""
        fields = stat_fields(pid)
        if fields is None or fields[0] in "ZX":
            return None
        return cls(pid, int(fields[19]), boot_id())

    @classmethod
    def parse(cls, text: str | None) -> Identity | None:
        """Reads `pid start boot`, as the keeper and the launcher write it; None where it isn't complete yet."""
        parts = (text or "").split()
        if len(parts) != 3 or not (text or "").endswith("\n"):
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.pid} {self.start} {self.boot}\n"

    def alive(self) -> bool:
        now = Identity.of(self.pid)
        return now is not None and now.start == self.start and now.boot == self.boot

    def open(self) -> int | None:
        """A pidfd (pidfd_open(2)) of exactly this process, or None where it has ended."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return None
        if self.alive():
            return handle
        os.close(handle)
        return None

    def signal(self, number: int) -> bool:
        """Send a signal to exactly this process; False where it has ended."""
        import signal

        handle = self.open()
        if handle is None:
            return False
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def wait(self, seconds: float) -> bool:
        """True once it has ended, False where it still runs after `seconds`."""
        handle = self.open()
        if handle is None:
            return True
        try:
            poller = select.poll()
            poller.register(handle, select.POLLIN)
            return bool(poller.poll(seconds * 1000))
        finally:
            os.close(handle)

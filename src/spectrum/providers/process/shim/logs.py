"""What services say: raw output taken from the files they write to, stamped, kept as JSON lines, capped in size.

A service writes to a file and not to a pipe: it goes on undisturbed while its supervisor is away.
"""

from __future__ import annotations

import json
import os
import threading
import time

from . import durable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CAP = 4 * 1024 * 1024  # bytes; a log and its predecessor are kept
LINE = 16 * 1024  # bytes; longer lines are cut in pieces
CHUNK = 256 * 1024
OLD = "~~"  # no service or hook is called so
TAIL_BYTES = 64 * 1024
TYPICAL_LINE = 256  # bytes
PUNCH_EVERY = 1024 * 1024
KEEP_SIZE_AND_PUNCH_HOLE = 0x03  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, fallocate(2)


class Log:
    """The kept lines of an instance, one file per service (or hook), each with one predecessor.

    A line is `{"at": seconds since the epoch, "stream": …, "text": …}`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lock = threading.Lock()

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name.replace("/", "~"))

    def append(self, name: str, stream: str, lines: list[str], at: float | None = None) -> None:
        moment = time.time() if at is None else at
        text = "".join(json.dumps({"at": moment, "stream": stream, "text": line}) + "\n" for line in lines)
        path = self.path(name)
        with self.lock:
            try:
                with open(path, "a", encoding="ascii") as file:
                    file.write(text)
                    if file.tell() > CAP:
                        os.replace(path, path + OLD)
            except OSError:
                return  # a full disk or a purge under way: the service matters more than its log

    def names(self, service: str = "") -> list[str]:
        """Who has said something: all of them, or a service and its hooks (`service/hook`)."""
        try:
            found = sorted(name.replace("~", "/") for name in os.listdir(self.folder) if not name.endswith(OLD))
        except FileNotFoundError:
            return []
        return [name for name in found if not service or name == service or name.startswith(service + "/")]

    def tail(self, name: str, count: int, since: float = 0.0) -> list[dict[str, Any]]:
        """The last `count` lines not older than `since` (seconds since the epoch), oldest first."""
        size = min(CAP + CHUNK, max(TAIL_BYTES, count * TYPICAL_LINE))
        lines, whole = _read_end(self.path(name), size)
        if whole:
            lines = _read_end(self.path(name) + OLD, size)[0] + lines
        return [line for line in lines if line["at"] >= since][-count:] if count > 0 else []

    def follow(self, service: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        """New lines since the call, for ever; an empty list where there are none."""
        where = {name: self._end(name) for name in self.names(service)}
        return self._news(service, where)

    def _news(self, service: str, where: dict[str, tuple[int, int]]) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        while True:
            fresh = []
            for name in self.names(service):
                lines, where[name] = self._after(name, where.get(name, (0, 0)))
                fresh += [(name, line) for line in lines]
            yield fresh

    def _end(self, name: str) -> tuple[int, int]:
        try:
            about = os.stat(self.path(name))
        except FileNotFoundError:
            return (0, 0)
        return about.st_ino, about.st_size

    def _after(self, name: str, position: tuple[int, int]) -> tuple[list[dict[str, Any]], tuple[int, int]]:
        inode, size = self._end(name)
        lines: list[dict[str, Any]] = []
        offset = position[1]
        if position[0] not in (0, inode):
            lines += _read_from(self.path(name) + OLD, offset)[0]
            offset = 0
        more, end = _read_from(self.path(name), offset) if size > offset else ([], offset)
        return lines + more, (inode, end)


def _parse(text: bytes) -> list[dict[str, Any]]:
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue  # the first of a tail, or the last before a crash: cut off
    return [line for line in lines if isinstance(line, dict)]


def _read_end(path: str, size: int) -> tuple[list[dict[str, Any]], bool]:
    """The lines in the last `size` bytes, and whether that is all of the file."""
    try:
        with open(path, "rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - size)
            file.seek(start)
            return _parse(file.read()), start == 0
    except FileNotFoundError:
        return [], True


def _read_from(path: str, offset: int) -> tuple[list[dict[str, Any]], int]:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            text = file.read()
    except FileNotFoundError:
        return [], offset
    whole = text.rpartition(b"\n")[0] + b"\n" if b"\n" in text else b""
    return _parse(whole), offset + len(whole)


class Pump:
    """Takes what one unit wrote to its two raw files into the log. Lines are stamped when taken, at most a few seconds late."""

    def __init__(self, folder: str, log: Log, name: str) -> None:
        self.folder = folder
        self.log = log
        self.name = name
        self.lock = threading.Lock()
        stored = (durable.read(os.path.join(folder, "taken")) or "0 0").split()
        self.taken = {"stdout": int(stored[0]), "stderr": int(stored[1])}
        self.punched = dict(self.taken)

    def open(self, stream: str, uid: int, gid: int) -> int:
        """The file that the unit writes the stream to; owned by its account, so that it may reopen /dev/stdout."""
        handle = os.open(os.path.join(self.folder, stream), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.fchown(handle, uid, gid)
        return handle

    def take(self, last: bool = False) -> bool:
        """True where there was something new. `last`: the unit has ended, its last line may lack its end."""
        with self.lock:
            fresh = [self._take(stream, last) for stream in ("stdout", "stderr")]
            if any(fresh):
                with open(os.path.join(self.folder, "taken"), "w", encoding="ascii") as file:
                    file.write(f"{self.taken['stdout']} {self.taken['stderr']}\n")
            return any(fresh)

    def _take(self, stream: str, last: bool) -> bool:
        try:
            handle = os.open(os.path.join(self.folder, stream), os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fresh = False
            while self._chunk(handle, stream, last):
                fresh = True
            return fresh
        finally:
            os.close(handle)

    def _chunk(self, handle: int, stream: str, last: bool) -> bool:
        about = os.fstat(handle)
        if about.st_size < self.taken[stream]:
            self.taken[stream] = self.punched[stream] = 0  # the service cut its own output
        text = os.pread(handle, CHUNK, self.taken[stream])
        if not last and b"\n" not in text and len(text) < LINE:
            return False
        if not (last and len(text) < CHUNK) and b"\n" in text:
            text = text[: text.rindex(b"\n") + 1]
        if not text:
            return False
        self.log.append(self.name, stream, _lines(text), min(time.time(), about.st_mtime))
        self.taken[stream] += len(text)
        if self.taken[stream] - self.punched[stream] >= PUNCH_EVERY:
            self._give_back(handle, stream)
        return True

    def _give_back(self, handle: int, stream: str) -> None:
        """Give the disk back without a moment in which a line could be lost: a hole, where the file system can; else cut."""
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        length = ctypes.c_int64(self.taken[stream])
        if libc.fallocate(handle, KEEP_SIZE_AND_PUNCH_HOLE, ctypes.c_int64(0), length) == 0:
            self.punched[stream] = self.taken[stream]
        elif os.fstat(handle).st_size == self.taken[stream]:
            os.ftruncate(handle, 0)
            self.taken[stream] = self.punched[stream] = 0


def _lines(text: bytes) -> list[str]:
    lines = []
    for line in text.rstrip(b"\n").split(b"\n"):
        cut = [line[index : index + LINE] for index in range(0, len(line), LINE)] or [b""]
        lines += [piece.rstrip(b"\r").decode("utf-8", "replace") for piece in cut]
    return lines

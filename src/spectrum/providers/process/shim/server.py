"""The supervisor process: one per instance by a lock held for life, answering calls over a socket in newline-delimited JSON."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import threading
import time

from . import durable
from .fences import FenceRecord
from .instance import Instance
from .refusals import INVALID, TRANSIENT, Refusal, Stale

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOL = 1
QUICK, SLOW = 0.25, 2.0  # seconds between two looks at what services wrote
IDLE = 5.0  # seconds without calls after which a supervisor with nothing to supervise ends
GONE = 0.2  # the same, once the instance is purged or shut down
STACK = 512 * 1024


class Held(Exception):
    """Another supervisor of the instance lives."""


def acquire(target: str, instance: str) -> int:
    """The lock that makes this the instance's only supervisor; held until the process ends. Raises Held."""
    path = os.path.join(target, "fences", f"{instance}.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise Held from None
    return handle


class Server:
    """Listens in `sockets/`; the folder's permissions are the authentication, and the peer's uid is checked on top."""

    def __init__(self, target: str, instance: str, command: str) -> None:
        self.lock = acquire(target, instance)
        fences = FenceRecord(os.path.join(target, "fences", f"{instance}.json"))
        self.instance = Instance(target, instance, fences, command)
        self.folder = os.open(os.path.join(target, "sockets"), os.O_RDONLY | os.O_DIRECTORY)
        self.path = (
            f"/proc/self/fd/{self.folder}/{instance}"  # short, however deep the target lies (unix(7): 107 bytes)
        )
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.clients = 0
        self.counting = threading.Lock()
        self.left = os.eventfd(0, os.EFD_NONBLOCK)  # a caller has hung up
        self.last = time.monotonic()
        threading.stack_size(STACK)

    def open(self) -> None:
        self.instance.recover()
        durable.unlink(self.path)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o600)
        self.listener.listen(128)

    def serve(self) -> None:
        """Until there is nothing to supervise and nobody calls."""
        poller = select.poll()
        for number in (self.listener.fileno(), self.left):
            poller.register(number, select.POLLIN)
        pause = QUICK
        while (patience := self._patience()) > 0:
            ready = [number for number, _ in poller.poll(min(pause, patience) * 1000)]
            if self.left in ready:
                os.eventfd_read(self.left)
            if self.listener.fileno() in ready:
                client, _ = self.listener.accept()
                self._count(1)
                threading.Thread(target=self._client, args=(client,), daemon=True).start()
            pause = QUICK if self._take_output() else min(SLOW, pause * 2)
        durable.unlink(self.path)

    def _take_output(self) -> bool:
        try:
            return bool([unit for unit in list(self.instance.units.values()) if unit.pump.take()])
        except OSError:
            return False  # a unit that is being removed, or a full disk: the next look tells

    def _patience(self) -> float:
        """Seconds that are left before it ends; 0 or less: nothing to supervise, and nobody has called for long enough."""
        with self.counting:
            if self.clients or not self.instance.idle():
                self.last = time.monotonic()
        idle = IDLE if self.instance.journal.slots and not self.instance.journal.down else GONE
        return self.last + idle - time.monotonic()

    def _count(self, change: int) -> None:
        with self.counting:
            self.clients += change
            self.last = time.monotonic()
        if change < 0:
            os.eventfd_write(self.left, 1)

    def _client(self, client: socket.socket) -> None:
        try:
            with client, client.makefile("rwb") as stream:
                if self._known(client):
                    for line in stream:
                        self._answer(line, client, stream)
        except (OSError, ValueError):
            return  # the caller has gone; what it asked for was done or not, and can be observed
        finally:
            self._count(-1)

    def _known(self, client: socket.socket) -> bool:
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", credentials)[1] in (0, os.geteuid())

    def _answer(self, line: bytes, client: socket.socket, stream: Any) -> None:
        call = json.loads(line)
        if call["do"] == "logs":
            self._logs(call, client, stream)
            return
        stream.write(json.dumps(self._outcome(call)).encode() + b"\n")
        stream.flush()

    def _outcome(self, call: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": self._do(call)}
        except Stale as stale:
            return {"stale": str(stale)}
        except Refusal as refusal:
            return {"fault": refusal.as_json()}
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return {"fault": Refusal(TRANSIENT, "target-failed", f"{where}{error.strerror or error}").as_json()}
        except Exception:
            import traceback  # only here: it costs every supervisor a megabyte

            problem = traceback.format_exc().splitlines()
            return {"fault": Refusal(TRANSIENT, "supervisor-failed", problem[-1], problem[-20:]).as_json()}

    def _do(self, call: dict[str, Any]) -> Any:
        match call["do"]:
            case "observe":
                return self.instance.observe(call["slot"], call["fence"])
            case "survey":
                return self.instance.survey(call["fence"])
            case "ensure":
                return self.instance.ensure(call)
            case "remove":
                return self.instance.remove(call["slot"], call["fence"], call["token"])
            case "greet":
                return PROTOCOL
            case "shut_down":
                return self.instance.shut_down()
            case "revive":
                return self.instance.revive()
            case unknown:
                raise Refusal(
                    INVALID, "unknown-call", f"this supervisor (protocol {PROTOCOL}) knows no call {unknown!r}"
                )

    def _logs(self, call: dict[str, Any], client: socket.socket, stream: Any) -> None:
        """Lines as they are, then, if asked to, as they come, until the caller hangs up."""
        log, service = self.instance.log, call["service"]
        self._take_output()
        follower = log.follow(service)
        names = log.names(service)
        lines = [{**line, "service": name} for name in names for line in log.tail(name, call["tail"], call["since"])]
        for line in sorted(lines, key=lambda line: float(line["at"]))[-call["tail"] :]:
            stream.write(json.dumps(line).encode() + b"\n")
        stream.flush()
        poller = select.poll()
        poller.register(client.fileno(), select.POLLIN | select.POLLHUP)
        while call["follow"] and not poller.poll(QUICK * 1000):
            self._take_output()
            for name, line in next(follower):
                stream.write(json.dumps({**line, "service": name}).encode() + b"\n")
            stream.flush()
        stream.write(b"{}\n")
        stream.flush()

"""The machine's ports: one registry for all targets and users, so that two of them never give out the same port.

A claim is a link named after the port in a sticky folder that everybody may write; what it points to is its owner, as text. Making
a link is one exclusive act that needs no lock: a stopped process can't hold up its neighbours, a killed one leaves no half claim.
Only taking over a dead claim takes a lock, and it never waits for it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat

from . import durable
from .refusals import FATAL, TRANSIENT, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

REGISTRY = "/var/tmp/spectrum-ports"  # noqa: S108 - one well-known place; survives a reboot
SHARED = 0o1777  # everybody makes claims, only their owner removes them
FIRST, LAST = 20_000, 65_500


class Registry:
    """Claims of one owner: an instance on a target (its folder)."""

    def __init__(self, target: str, instance: str, folder: str = REGISTRY) -> None:
        self.folder = folder
        self.owner = {"target": target, "instance": instance}

    def _prepare(self) -> None:
        try:
            os.mkdir(self.folder)
            os.chmod(self.folder, SHARED)
        except FileExistsError:
            pass
        about = os.lstat(self.folder)
        if os.geteuid() == 0 and stat.S_ISDIR(about.st_mode):
            os.chmod(self.folder, SHARED)
        elif not stat.S_ISDIR(about.st_mode) or not os.access(self.folder, os.W_OK | os.X_OK):
            message = f"{self.folder} can't be written; make it a folder with mode 1777: it holds the claims of ports"
            raise Refusal(FATAL, "port-registry", message)

    def _path(self, port: int) -> str:
        return os.path.join(self.folder, str(port))

    def claim(self, name: str) -> int:
        """A port for `name` (service/port) that nobody has claimed and nobody uses; stays until released. Raises Refusal."""
        self._prepare()
        for port in _candidates(self.owner["instance"] + name):
            if self._take(port, name):
                if _is_free(port):
                    return port
                durable.unlink(self._path(port))
        raise Refusal(
            TRANSIENT, "no-free-port", f"no port is free outside the ephemeral range; claims lie in {self.folder}"
        )

    def again(self, port: int, name: str) -> bool:
        """Renew a claim that `name` already had (its file may have been swept away); False where it is somebody else's."""
        self._prepare()
        return self._take(port, name)

    def _take(self, port: int, name: str) -> bool:
        path = self._path(port)
        wanted = {**self.owner, "port": name}
        if _create(path, wanted):
            durable.sync_folder(self.folder)
            return True
        holder = _read_claim(path)
        return holder == wanted or (_is_dead(holder, path) and self._take_over(path, wanted))

    def _take_over(self, path: str, wanted: dict[str, str]) -> bool:
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_dead(_read_claim(path), path):
                return False
            durable.unlink(path)
            return _create(path, wanted)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)

    def release(self, port: int) -> None:
        claim = _read_claim(self._path(port)) or {}
        if {**claim, **self.owner} == claim:
            durable.unlink(self._path(port))

    def release_all(self) -> None:
        """Give back every claim of this owner, also those that no journal knows (a crash between claim and journal)."""
        try:
            names = [name for name in os.listdir(self.folder) if name.isdigit()]
        except FileNotFoundError:
            return
        for name in names:
            self.release(int(name))


def _create(path: str, claim: dict[str, str]) -> bool:
    try:
        os.symlink(json.dumps(claim), path)
    except FileExistsError:
        return False
    return True


def _read_claim(path: str) -> dict[str, str] | None:
    try:
        value = json.loads(os.readlink(path))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _is_dead(claim: dict[str, str] | None, path: str) -> bool:
    """True where the claim is ours to judge (its file is, or we are root) and its owner has no journal any more."""
    try:
        owner = os.lstat(path).st_uid
    except FileNotFoundError:
        return False
    if os.geteuid() not in (0, owner) or claim is None:
        return False
    folder = os.path.join(claim.get("target", ""), "supervisors", claim.get("instance", ""))
    return not os.path.lexists(folder)


def _ephemeral() -> tuple[int, int]:
    low, high = (durable.read("/proc/sys/net/ipv4/ip_local_port_range") or "32768 60999").split()
    return int(low), int(high)


def outside_ephemeral(port: int) -> bool:
    low, high = _ephemeral()
    return not low <= port <= high


def _candidates(hint: str) -> Iterator[int]:
    """Every port worth trying, outside the ephemeral range first; inside it only where that range leaves nothing."""
    low, high = _ephemeral()
    usable = [port for port in range(FIRST, LAST) if not low <= port <= high] or list(range(FIRST, LAST))
    start = sum(byte * 31**index for index, byte in enumerate(hint.encode()[-24:])) % len(usable)
    yield from usable[start:]
    yield from usable[:start]


def _is_free(port: int) -> bool:
    for address in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - asks, listens to nothing
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
                probe.listen(1)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    return False
                raise
    return True

"""The folder that holds everything of one installation on this machine (SPECTRUM_HOME, by default ./.spectrum)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from spectrum.core.access import TOKEN_ENTROPY, make_token
from spectrum.local.errors import LocalError

FIRST_PORT, LAST_PORT = 7100, 9099  # below the range from which the kernel takes ports for outgoing connections
ROOM = 300 * 1024 * 1024  # bytes: PostgreSQL's first start takes about 60 MB, an example's environment 150 MB


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports, chosen once for an installation and kept. Those of Kafka and its controller are 0 where it was never used."""

    api: int
    database: int
    kafka: int = 0
    controller: int = 0


_PORTS = ("api", "database", "kafka", "controller")
SHARED = Path("/var/lib/spectrum")


@dataclass(frozen=True, slots=True)
class Home:
    """Where things are. Secrets are files of mode 0600 in a folder of mode 0700."""

    root: Path

    @property
    def url(self) -> Path:
        return self.root / "url"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def demo_password(self) -> Path:
        return self.root / "demo.password"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    @property
    def master_key(self) -> Path:
        return self.root / "master.key"

    @property
    def database(self) -> Path:
        return self.root / "postgres"

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def bus(self) -> Path:
        """How workers heard of work when the installation was last brought up."""
        return self.root / "bus"

    @property
    def database_url(self) -> Path:
        return self.run / "database-url"

    @property
    def instances_pointer(self) -> Path:
        return self.root / "instances.location"

    @property
    def instances(self) -> Path:
        """Where instances live: here, or where root's pointer says (accounts of instances can't enter a private folder)."""
        if self.instances_pointer.exists():
            return Path(self.instances_pointer.read_text().strip())
        return self.root / "instances"

    @property
    def worker(self) -> Path:
        return self.root / "worker"

    @property
    def worker_key(self) -> Path:
        return self.worker / "key"

    @property
    def join_token(self) -> Path:
        return self.worker / "join-token"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def parts(self) -> Path:
        return self.run / "parts.json"

    @property
    def unwanted_parts(self) -> Path:
        """What `parts` becomes with `down`: a supervisor that comes late finds nothing to start."""
        return self.run / "parts.stopped.json"

    @property
    def state(self) -> Path:
        return self.run / "state.json"

    @property
    def lock(self) -> Path:
        return self.run / "supervisor.lock"

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"

    def record(self, part: str) -> Path:
        return self.run / f"{part}.pid"

    @property
    def api_url(self) -> str:
        """Where the API of this installation listens. Raises `LocalError` before the ports were chosen."""
        return f"http://127.0.0.1:{stored_ports(self).api}"


def locate() -> Home:
    """The installation that this process works with, made or not."""
    return Home(Path(os.environ.get("SPECTRUM_HOME") or ".spectrum").absolute())


def prepare(home: Home) -> None:
    """Make the folder and everything in it that is only made once. Safe to repeat and to interrupt.

    Raises `LocalError` if the folder is not the caller's own, or the disk is full.
    """
    try:
        for folder in (home.root, home.run, home.logs, home.worker):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owner(home.root)
        home.root.chmod(0o700)
        if (free := shutil.disk_usage(home.root).free) < ROOM:
            raise LocalError(
                f"The disk of {home.root} has {free // 2**20} MB left and at least {ROOM // 2**20} MB are needed",
                "Make room, or set SPECTRUM_HOME to a folder on another disk",
            )
        if os.geteuid() == 0:
            write_once(home.instances_pointer, f"{_shared_place(home)}\n")
        write_once(home.token, make_token(secrets.token_bytes(TOKEN_ENTROPY)).text + "\n")
    except OSError as error:
        raise _explained(error, home) from error


def _shared_place(home: Home) -> Path:
    """A folder that belongs to this installation alone, on a way that every account may pass through."""
    SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
    return SHARED / f"instances-{hashlib.sha256(str(home.root).encode()).hexdigest()[:16]}"


def check_owner(folder: Path) -> None:
    """Refuse a folder that belongs to somebody else or that others can write: what it says could not be trusted."""
    state = folder.lstat()
    if state.st_uid != os.geteuid():
        raise LocalError(f"{folder} belongs to user {state.st_uid}, not to you", "Work in a folder of your own")
    if state.st_mode & 0o022:
        raise LocalError(f"{folder} can be written by others", f"chmod go-w {folder}")


def write(path: Path, text: str) -> None:
    """Replace a file at once and for good, readable by its owner only."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def write_once(path: Path, text: str) -> None:
    """The same, where the file is not there yet: whoever is first wins."""
    if path.exists():
        return
    new = path.with_name(f".{path.name}.{os.getpid()}.first")
    write(new, text)
    with contextlib.suppress(FileExistsError):
        os.link(new, path)
    new.unlink()


@contextlib.contextmanager
def alone(home: Home, what: str) -> Iterator[None]:
    """One `up` or `down` at a time. The lock ends with its holder, however that ends."""
    with (home.run / "command.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "Another command"
            raise LocalError(f"{holder} is at work on {home.root}", "Wait until it is done") from None
        file.truncate(0)
        file.write(f"spectrum {what} (pid {os.getpid()})")
        file.flush()
        yield


def stored_ports(home: Home) -> Ports:
    try:
        stored = json.loads(home.ports.read_text())
        rest = (int(stored.get(name, 0)) for name in _PORTS[2:])
        return Ports(int(stored["api"]), int(stored["database"]), *rest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LocalError(f"{home.root} has no ports yet", "Run: spectrum up") from error


def choose_ports(home: Home, *, kafka: bool = False) -> Ports:
    """The installation's ports: the stored ones, else free ones near a place that its path decides.

    So two installations seldom meet, also while one of them is down, and one that is made anew gets its old ports.
    """
    try:
        ports = stored_ports(home)
        if ports.kafka or not kafka:
            return ports
    except LocalError:
        ports = Ports(*_free_ports(home, 2))
    if kafka:
        ports = replace(ports, **dict(zip(_PORTS[2:], _free_ports(home, 2, ports), strict=True)))
    write(home.ports, json.dumps(asdict(ports)) + "\n")
    return ports


def _free_ports(home: Home, count: int, taken: Ports | None = None) -> list[int]:
    span = LAST_PORT - FIRST_PORT + 1
    start = int.from_bytes(hashlib.sha256(os.fsencode(home.root)).digest()[:4], "big") % span
    candidates = (FIRST_PORT + (start + n) % span for n in range(span))
    known = asdict(taken).values() if taken else ()
    found = list(islice((port for port in candidates if port not in known and port_is_free(port)), count))
    if len(found) < count:
        raise LocalError(
            f"No {count} ports between {FIRST_PORT} and {LAST_PORT} are free on 127.0.0.1",
            "Stop a program that uses them",
        )
    return found


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def _explained(error: OSError, home: Home) -> LocalError:
    where = error.filename or home.root
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return LocalError(f"The disk of {home.root} is full", "Make room, or set SPECTRUM_HOME to another disk")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return LocalError(f"{where} cannot be written", "Set SPECTRUM_HOME to a folder of your own")
        case _:
            return LocalError(f"{where}: {error.strerror}", "Set SPECTRUM_HOME to another folder")

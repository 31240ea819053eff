"""One Kafka broker (KRaft, its own controller) in a folder of its own, to be started, harmed and ended by its pid."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spectrum.core.errors import SpectrumError
from spectrum.local import kafka
from tests.keeper import REPOSITORY

CACHE = REPOSITORY / ".cache/spectrum"
HOST = kafka.HOST
PORTS = range(20_000, 30_000)  # below those that the system gives to whoever connects
READY = "Kafka Server started"
READY_SECONDS = 90.0
# A smaller heap, for a broker that lives briefly among others.
FLAGS = ("-Xms64m", "-Xmx256m", *kafka.FLAGS[2:], "-XX:ActiveProcessorCount=1")
_PR_SET_PDEATHSIG = 1

# Groups that take notice soon of whoever is gone.
_QUICK = {
    "group.min.session.timeout.ms": "1000",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.session.timeout.ms": "6000",
}


@dataclass
class Broker:
    """A broker on loopback. `listeners` are protocols, such as SASL_SSL, the first one for the broker's own use; `properties`
    and `formatting` are for the broker and for the formatter of its storage, besides what every broker has.
    """

    folder: Path
    listeners: Sequence[str] = ("PLAINTEXT",)
    properties: Mapping[str, str] = field(default_factory=dict)
    formatting: Sequence[str] = ()
    ports: Mapping[str, int] = field(init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [*self.listeners, "CONTROLLER"]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))

    @property
    def address(self) -> str:
        return f"{HOST}:{self.ports[self.listeners[0]]}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the broker is not running"
        return self.process.pid

    def start(self) -> None:
        """Run, and return once it serves. What it kept is there again. Raises `SpectrumError`."""
        properties = {**_QUICK, **self.properties}
        command = kafka.broker(self.folder, self.ports, CACHE, properties, self.formatting, FLAGS)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent(),
                start_new_session=True,
            )
        self._await_ready()

    def kill(self) -> None:
        """End it at once, as a machine does that loses its power."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """End it in order, if it runs."""
        if self.process is not None:
            self.thaw()
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def lose_disk(self) -> None:
        """Everything that a broker which does not run had kept."""
        assert self.process is None
        shutil.rmtree(self.folder / "data")

    def freeze(self) -> None:
        """It hangs: connections stay, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def _log(self) -> Path:
        return self.folder / "broker.log"

    def _await_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_SECONDS
        while READY not in (said := self._log.read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SpectrumError(f"Kafka does not start: {said[-1500:]}")
            time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that nobody gets by connecting."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SpectrumError("There are no free ports.")


def _die_with_parent() -> Callable[[], None]:
    library = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)

    return ask

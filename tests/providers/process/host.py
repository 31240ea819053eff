"""The host as it is: what a test must leave as it found it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REGISTRY = Path("/var/tmp/spectrum-ports")


@dataclass(frozen=True)
class Traces:
    """Everything on this machine that names an instance or a folder."""

    processes: frozenset[str]
    accounts: frozenset[str]
    ports: frozenset[str]
    groups: frozenset[str]


def command_lines() -> dict[int, str]:
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    return found


def environments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _group(name: str, ours: Callable[[str], bool]) -> bool:
    return name.startswith("spectrum-") and ours(name)


def traces(*words: str) -> Traces:
    """What carries one of the words (instance ids, folders) on its command line or in its environment, name or comment."""

    def ours(text: str) -> bool:
        return any(word in text for word in words)

    processes = {line for pid, line in command_lines().items() if ours(line) or ours(environments(pid))}
    accounts = {entry.pw_name for entry in pwd.getpwall() if ours(entry.pw_gecos) or ours(entry.pw_dir)}
    tails = {f"spi-{word[-12:]}" for word in words}
    claims = {path.name for path in REGISTRY.glob("*") if path.is_symlink() and ours(str(path.readlink()))}
    # Walked, not globbed: groups of others go meanwhile.
    cgroups = {
        f"{place}/{name}" for place, names, _ in os.walk("/sys/fs/cgroup") for name in names if _group(name, ours)
    }
    named = {entry.gr_name for entry in grp.getgrall() if entry.gr_name in tails}
    return Traces(frozenset(processes), frozenset(accounts | named), frozenset(claims), frozenset(cgroups))


NOTHING = Traces(frozenset(), frozenset(), frozenset(), frozenset())

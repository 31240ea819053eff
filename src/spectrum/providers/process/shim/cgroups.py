"""Control groups, version 2 or 1, where this process may make them: limits that hold, and a sure list of a unit's processes."""

from __future__ import annotations

import os

from . import durable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONTROLLERS = ("memory", "cpu", "pids")
SUPERVISOR = "supervisor~"  # no service is called so
PERIOD = 100_000  # microseconds, the kernel's default for cpu.max and cpu.cfs_period_us


def _mounts() -> dict[str, str]:
    """Where the hierarchies are mounted: `2` for version 2, else the name of the controller (proc_pid_mountinfo(5))."""
    found: dict[str, str] = {}
    for line in (durable.read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        path = before.split()[4]
        if kind == "cgroup2":
            found["2"] = path
        elif kind == "cgroup":
            found.update(
                {name.removeprefix("name="): path for name in options.split(",") if name.removeprefix("name=") != "rw"}
            )
    return found


def _own_group(prefix: str) -> str:
    for line in (durable.read("/proc/self/cgroup") or "").splitlines():
        if line.startswith(prefix):
            return line.split(":", 2)[2].lstrip("/")
    return ""


def _write(path: str, value: str) -> bool:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except OSError:
        return False
    return True


def _make(path: str) -> bool:
    try:
        os.mkdir(path)
    except FileExistsError:
        pass
    except OSError:
        return False
    return os.access(os.path.join(path, "cgroup.procs"), os.W_OK)


class Groups:
    """The groups of one instance: one folder per hierarchy that can be used, with one leaf per unit and one for the supervisor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folders: dict[str, str] = {}  # controller, `2`, or `systemd` -> the instance's folder

    def prepare(self) -> None:
        """Make the instance's folders, as far as this process may."""
        name = self.name
        mounts = _mounts()
        for controller in (*CONTROLLERS, "systemd"):
            if controller in mounts and _make(path := os.path.join(mounts[controller], name)):
                self.folders[controller] = path
        if "2" in mounts:
            self._second(mounts["2"], name)
        self._enter(SUPERVISOR)

    def _second(self, mount: str, name: str) -> None:
        """Version 2: the topmost folder on our own path that we may write to: a move needs the right at the common ancestor."""
        parts = [part for part in _own_group("0::").split("/") if part and part != ".."]
        for depth in range(len(parts) + 1):
            parent = os.path.join(mount, *parts[:depth])
            if not os.access(os.path.join(parent, "cgroup.procs"), os.W_OK):
                continue
            path = os.path.join(parent, name)
            if _make(path):
                for controller in CONTROLLERS:
                    _write(os.path.join(parent, "cgroup.subtree_control"), f"+{controller}")
                    _write(os.path.join(path, "cgroup.subtree_control"), f"+{controller}")
                self.folders["2"] = path
                break

    def leaf(self, name: str) -> tuple[str, ...]:
        """The folders of one unit, made where missing, distinct."""
        paths = [os.path.join(folder, name) for folder in self.folders.values()]
        return tuple(dict.fromkeys(path for path in paths if _make(path)))

    def leaves(self) -> tuple[str, ...]:
        """The folders of all units."""
        found = []
        for folder in set(self.folders.values()):
            found += [entry.path for entry in os.scandir(folder) if entry.is_dir() and entry.name != SUPERVISOR]
        return tuple(found)

    def _enter(self, name: str) -> None:
        """Move this process out of the group of whoever started it, so that it isn't killed together with that."""
        for path in self.leaf(name):
            _write(os.path.join(path, "cgroup.procs"), "0")

    def limit(self, leaves: tuple[str, ...], limits: dict[str, Any]) -> list[str]:
        """Set the limits of a unit; answers the names of those that nothing here enforces."""
        missing = []
        for name in ("memory", "cpus", "pids"):
            wanted = limits.get(name)
            if wanted is not None and not any(_set(leaf, name, wanted) for leaf in leaves):
                missing.append(name)
        return missing

    def drop(self, leaves: tuple[str, ...]) -> None:
        for path in leaves:
            _remove(path)

    def drop_all(self) -> None:
        for folder in set(self.folders.values()):
            try:
                names = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
            except OSError:
                continue
            if os.path.join(folder, SUPERVISOR) in names:
                _write(os.path.join(os.path.dirname(folder), "cgroup.procs"), "0")
            for path in (*names, folder):
                _remove(path)


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        return


def _set(leaf: str, name: str, wanted: float) -> bool:
    match name:
        case "memory":
            if _write(os.path.join(leaf, "memory.max"), str(int(wanted))):
                _write(os.path.join(leaf, "memory.swap.max"), "0")
                return True
            done = _write(os.path.join(leaf, "memory.limit_in_bytes"), str(int(wanted)))
            _write(os.path.join(leaf, "memory.memsw.limit_in_bytes"), str(int(wanted)))
            return done
        case "cpus":
            quota = int(wanted * PERIOD)
            return _write(os.path.join(leaf, "cpu.max"), f"{quota} {PERIOD}") or (
                _write(os.path.join(leaf, "cpu.cfs_period_us"), str(PERIOD))
                and _write(os.path.join(leaf, "cpu.cfs_quota_us"), str(quota))
            )
        case _:
            return _write(os.path.join(leaf, "pids.max"), str(int(wanted)))

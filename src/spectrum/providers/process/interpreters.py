"""Which Python makes an environment: one that satisfies the product's specifier and that instance accounts may execute."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from spectrum.core.errors import Actor, ErrorClass, Fault

PLACES = ("/usr/local/bin", "/usr/bin", "/opt/python/bin")
PROBE = "import sys, sysconfig; print(*sys.version_info[:3], sysconfig.get_platform(), sys.implementation.cache_tag)"


@dataclass(frozen=True, slots=True)
class Interpreter:
    path: Path
    version: tuple[int, int, int]
    platform: str  # operating system, processor and ABI, as sysconfig and sys.implementation name them


def executable_by_everybody(path: Path) -> bool:
    """Whether accounts other than the owner can run it: every folder on the way, and the file that it is."""
    real = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in real.parents) and bool(real.stat().st_mode & 0o005 == 0o005)


def satisfies(version: tuple[int, int, int], specifier: str) -> bool:
    """PEP 440 comparison of release numbers. Raises Fault (invalid) for what it does not know."""
    return all(_clause(version, clause.strip()) for clause in specifier.split(",") if clause.strip())


def _clause(version: tuple[int, int, int], clause: str) -> bool:
    match = re.fullmatch(r"(~=|==|!=|<=|>=|<|>)\s*(\d+(?:\.\d+){0,2})(\.\*)?", clause)
    if match is None or (match[3] and match[1] not in ("==", "!=")) or (match[1] == "~=" and "." not in match[2]):
        message = f"{clause!r} is not a Python version specifier; write for example '>=3.11,<3.14'"
        raise Fault(ErrorClass.INVALID, "bad-python-specifier", message, actor=Actor.VENDOR)
    given = tuple(int(part) for part in match[2].split("."))
    full = (*given, 0, 0)[:3]
    same = version[: len(given)] == given if match[3] else version == full
    match match[1]:
        case "==":
            return same
        case "!=":
            return not same
        case ">=":
            return version >= full
        case "<=":
            return version <= full
        case ">":
            return version > full
        case "<":
            return version < full
        case _:
            return version >= full and version[: len(given) - 1] == given[:-1]


def _candidates() -> list[Path]:
    own = Path(getattr(sys, "_base_executable", "") or sys.executable)
    found = [own]
    folders = [Path(place) for place in PLACES]
    if os.geteuid() != 0:
        folders += [Path(folder) for folder in os.environ.get("PATH", "").split(":") if folder]
    for folder in folders:
        with contextlib.suppress(OSError):  # it is not there, or not for us
            found += sorted(path for path in folder.iterdir() if re.fullmatch(r"python3(\.\d+)?", path.name))
    return found


def _exists(path: Path) -> bool:
    """Also False where we may not look."""
    try:
        return path.exists()
    except PermissionError:
        return False


_probed: dict[tuple[Path, int], Interpreter] = {}  # by file and when it was changed


def _as_it_is(path: Path) -> tuple[Path, int]:
    return path, path.stat().st_mtime_ns


async def _probe(path: Path) -> Interpreter | None:
    """What the program says of itself. Each start of a service on an environment asks, and a program is run once for it."""
    try:
        file = _as_it_is(path)
        if file in _probed:
            return _probed[file]
        process = await asyncio.create_subprocess_exec(
            path, "-I", "-S", "-c", PROBE,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        said, _ = await process.communicate()
        major, minor, micro, platform, tag = said.decode().split()
    except (OSError, ValueError):
        return None
    _probed[file] = Interpreter(path, (int(major), int(minor), int(micro)), f"{platform}-{tag}")
    return _probed[file]


async def find(specifier: str) -> Interpreter:
    """The first that fits: our own, then the system's. Raises Fault (invalid) where none does, saying what was there."""
    seen: list[str] = []
    tried: set[Path] = set()
    for path in _candidates():
        real = path.resolve()
        if real in tried or not _exists(real):
            continue
        tried.add(real)
        if os.geteuid() == 0 and not executable_by_everybody(path):
            seen.append(f"{path} (other accounts can't execute it)")
        elif (interpreter := await _probe(real)) is not None:
            if satisfies(interpreter.version, specifier):
                return interpreter
            seen.append(f"{path} ({'.'.join(map(str, interpreter.version))})")
    message = f"no Python on this machine fits {specifier or 'any version'!r} and can be run by instances; found: {', '.join(seen)}"
    raise Fault(ErrorClass.INVALID, "no-python", message, actor=Actor.OPERATOR)

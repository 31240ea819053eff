"""What releases run on, on this target: environments, archives and folders, content-addressed, made once, shared."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

from spectrum.core.errors import Actor, ErrorClass, Fault
from spectrum.core.product.resources import Artifact, ArtifactKind
from spectrum.providers.process import archives, interpreters
from spectrum.providers.process.interpreters import Interpreter

FORMAT = 1  # raised when the same inputs would be built differently
BUILD_SECONDS = 900.0
LOCK_SECONDS = (
    300.0  # a builder that was stopped must not hold up the others for ever: then two build, and one rename wins
)
UNUSED_SECONDS = (
    3600.0  # since it was last asked for; an instance that is being created names it in its journal only later
)
LIBC = ctypes.CDLL(None, use_errno=True)


class ArtifactStore:
    """One folder per target. What is under its digest is complete: it is built beside it, synced, and renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def stock(self, artifact: Artifact) -> Path:
        """The artifact's folder, made if it is not there. Raises Fault, with the tool's words where it can't be made."""
        if artifact.kind is ArtifactKind.PATH:
            return _existing_folder(artifact)
        interpreter = await interpreters.find(artifact.python) if artifact.kind is ArtifactKind.PYTHON else None
        place = self.folder / digest_of(artifact, interpreter)
        if not place.is_dir():
            self._prepare()
            async with _locked(place.with_suffix(".lock")):
                if not place.is_dir():
                    await self._build(artifact, interpreter, place)
        os.utime(place)
        return place

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)

    async def _build(self, artifact: Artifact, interpreter: Interpreter | None, place: Path) -> None:
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            result = fresh / "result"
            if interpreter is not None:
                await _make_environment(artifact, interpreter, fresh, result)
            else:
                await archives.fetch(artifact, fresh / "archive")
                result.mkdir()
                await asyncio.to_thread(archives.unpack, fresh / "archive", result)
            await asyncio.to_thread(_settle, result, place)
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh)

    def path_folders(self, artifact: Artifact, root: Path) -> tuple[str, ...]:
        """The folders that come first on PATH. Raises Fault (invalid) where a pattern matches nothing or leads out of it."""
        found: list[Path] = []
        for pattern in artifact.path:
            parts = PurePosixPath(pattern)
            if parts.is_absolute() or ".." in parts.parts:
                raise _invalid(
                    artifact, f"path {pattern!r} leads out of the artifact; write it relative to the artifact's folder"
                )
            matches = sorted(path for path in root.glob(pattern) if path.is_dir())
            if not matches:
                raise _invalid(artifact, f"path {pattern!r} matches no folder in it")
            found += matches
        if not artifact.path or artifact.kind is ArtifactKind.PYTHON:
            found.append(root / "bin" if (root / "bin").is_dir() else root)
        return tuple(str(path) for path in found)

    async def sweep(self, in_use: set[str]) -> tuple[str, ...]:
        """Remove what is neither in use nor was asked for lately, and what interrupted builds left. Answers the names."""
        if not self.folder.is_dir():
            return ()
        removed = []
        for path in sorted(self.folder.iterdir()):
            if path.name in in_use or not path.is_dir() or time.time() - path.stat().st_mtime < UNUSED_SECONDS:
                continue
            async with _locked(self.folder / f"{path.name}.lock"):
                if not path.is_dir() or time.time() - path.stat().st_mtime < UNUSED_SECONDS:
                    continue
                away = Path(tempfile.mkdtemp(prefix=".old-", dir=self.folder))
                path.rename(away / "result")
            await asyncio.to_thread(shutil.rmtree, away)
            path.with_suffix(".lock").unlink(missing_ok=True)
            removed.append(path.name)
        return tuple(removed)


def _invalid(artifact: Artifact, message: str) -> Fault:
    return Fault(ErrorClass.INVALID, "bad-artifact", f"artifact {artifact.name}: {message}", actor=Actor.VENDOR)


def digest_of(artifact: Artifact, interpreter: Interpreter | None) -> str:
    """Of everything that the result depends on; where it is fetched from and how it is called are not part of it."""
    inputs = {
        "format": FORMAT,
        "kind": artifact.kind.value,
        "requirements": artifact.requirements,
        "sha256": artifact.sha256.removeprefix("sha256:").lower(),
        "interpreter": [str(interpreter.path), interpreter.version, interpreter.platform] if interpreter else None,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _existing_folder(artifact: Artifact) -> Path:
    folder = Path(artifact.folder)
    if not folder.is_absolute() or not folder.is_dir():
        raise _invalid(artifact, f"{artifact.folder!r} is not a folder on the target; give the absolute path of one")
    return folder


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        # Another process holds it: there is no event to wait for.
        while not _try_lock(handle) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _settle(result: Path, place: Path) -> None:
    """Durable as a whole, then visible as a whole; whoever was quicker has made the same."""
    result.chmod(0o755)
    handle = os.open(result, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if LIBC.syncfs(handle):
            os.sync()
        with contextlib.suppress(OSError):
            result.rename(place)
        if not place.is_dir():
            raise Fault(ErrorClass.TRANSIENT, "artifact-not-placed", f"{result} could not be renamed to {place}")
    finally:
        os.close(handle)
    parent = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(parent)
    os.close(parent)


async def _make_environment(artifact: Artifact, interpreter: Interpreter, fresh: Path, result: Path) -> None:
    """Relocatable, since it is renamed when it is complete: its programs find their interpreter beside themselves."""
    requirements = fresh / "requirements.txt"
    requirements.write_text(artifact.requirements)
    await _uv(artifact, "venv", "--relocatable", "--no-project", "--python", str(interpreter.path), str(result))
    await _uv(
        artifact, "pip", "install", "--python", str(result / "bin" / "python"), "--require-hashes", "--no-build",
        "--link-mode", "copy", "--compile-bytecode", "--requirements", str(requirements),
    )  # fmt: skip
    await asyncio.to_thread(archives.make_readable, result)


def _uv_program() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        message = "uv is missing beside this Python; install the worker with its extras"
        raise Fault(ErrorClass.FATAL, "no-uv", message, actor=Actor.OPERATOR)
    return found


async def _uv(artifact: Artifact, *arguments: str) -> None:
    ours = ("SPECTRUM_", "PYTHON", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    process = await asyncio.create_subprocess_exec(
        _uv_program(), "--quiet", "--no-progress", *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        umask=0o022,
        env={"UV_SYSTEM_CERTS": "1"} | inherited,  # trust what this machine trusts
    )  # fmt: skip
    try:
        _, said = await asyncio.wait_for(process.communicate(), BUILD_SECONDS)
    except (TimeoutError, asyncio.CancelledError) as stop:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(stop, asyncio.CancelledError):
            raise
        raise Fault(
            ErrorClass.DEPENDENCY, "artifact-slow", f"artifact {artifact.name} was not built in {BUILD_SECONDS:g} s"
        ) from None
    if process.returncode:
        raise _build_fault(artifact, said.decode("utf-8", "replace").strip().splitlines())


def _build_fault(artifact: Artifact, said: list[str]) -> Fault:
    """What can't be reached is tried again; requirements that don't fit, or whose hashes are wrong, never will."""
    text = " ".join(said).lower()
    network = any(
        word in text for word in ("failed to fetch", "error sending request", "timed out", "dns error", "connect")
    )
    kind = ErrorClass.DEPENDENCY if network else ErrorClass.INVALID
    message = f"artifact {artifact.name} could not be made: {said[-1].strip() if said else 'uv gave no reason'}"
    actor = Actor.OPERATOR if network else Actor.VENDOR
    return Fault(kind, "artifact-failed", message, actor=actor, evidence=tuple(said))

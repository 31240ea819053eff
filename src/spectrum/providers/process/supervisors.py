"""The supervisors of one target, from outside: their code in place, started where missing, called over their sockets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from spectrum.core.errors import Actor, ErrorClass, Fault, StaleFence
from spectrum.providers.process.shim import durable
from spectrum.providers.process.wire import fault_from_json

SHIM = Path(__file__).parent / "shim"
ENTRY = """import os
import sys

from shim.main import main

sys.exit(main(sys.argv[1:], os.path.dirname(os.path.abspath(__file__))))
"""
LINE_LIMIT = 64 * 1024 * 1024  # bytes of one call: a release's files travel in it
REACH_SECONDS = 30.0  # within which a supervisor must have been started and have answered the connection
SILENT_SECONDS = 5.0  # after which a supervisor that takes a connection and says nothing is busy, not dead
START_SECONDS = 120.0  # it may have to finish a removal that an earlier one began
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",  # threads share one arena: there are many supervisors
}
KEY_BYTES = 32
PUBLIC, PRIVATE = 0o711, 0o700


def private_parent(path: Path) -> Path | None:
    """The first folder on the way to `path` that other accounts may not pass through; None where they can reach it."""
    for folder in reversed((path, *path.parents)):
        with contextlib.suppress(FileNotFoundError):
            if not folder.stat().st_mode & 0o001:
                return folder
    return None


class Supervisors:
    """One per target folder and provider; holds nothing open between calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._code: Path | None = None

    def prepare(self) -> None:
        """Make the target's folders. Raises Fault where accounts of instances could not reach them."""
        fresh = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.folder.chmod(PUBLIC if os.geteuid() == 0 else PRIVATE)
        for name in ("supervisors", "fences", "sockets", "shim", "instances"):
            path = self.folder / name
            path.mkdir(exist_ok=True, mode=PRIVATE)
            path.chmod(PUBLIC if name == "instances" and os.geteuid() == 0 else PRIVATE)
        if os.geteuid() == 0 and (blocked := private_parent(self.folder)) is not None:
            message = (
                f"instances run as accounts of their own, which can't pass through {blocked} to {self.folder}: "
                f"choose a folder that they can reach, or run: chmod o+x {blocked}"
            )
            raise Fault(ErrorClass.INVALID, "folder-not-reachable", message, actor=Actor.OPERATOR)

    def key(self) -> bytes:
        """The target's own secret, which keys its digests. Two workers that make it at once agree on one.

        Raises Fault as `prepare`.
        """
        path = self.folder / "digest.key"
        if not path.exists():
            self.prepare()
            handle, fresh = tempfile.mkstemp(dir=self.folder)  # readable by its owner alone
            with os.fdopen(handle, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
            Path(fresh).unlink()
        return path.read_bytes()

    def code(self) -> Path:
        """The supervisor's code, copied beside the instances under its digest, so that no upgrade changes it while it runs."""
        if self._code is None or not self._code.is_dir():
            sources = {path.name: path.read_bytes() for path in sorted(SHIM.glob("*.py"))}
            digest = hashlib.sha256(b"".join(name.encode() + text for name, text in sources.items())).hexdigest()[:16]
            self._code = self.folder / "shim" / digest
            if not self._code.is_dir():
                self._copy(sources, self._code)
        return self._code

    def _copy(self, sources: Mapping[str, bytes], place: Path) -> None:
        fresh = Path(tempfile.mkdtemp(dir=place.parent))
        (fresh / "shim").mkdir()
        (fresh / "__main__.py").write_text(ENTRY)
        for name, text in sources.items():
            (fresh / "shim" / name).write_bytes(text)
        try:
            fresh.rename(place)
        except OSError:  # somebody else was quicker
            shutil.rmtree(fresh)

    async def start(self, instance: str) -> None:
        """Start a supervisor, unless one lives. Returns once one answers. Raises Fault (dependency)."""
        self.prepare()
        process = await asyncio.create_subprocess_exec(
            getattr(sys, "_base_executable", "") or sys.executable, "-I", "-S", self.code(), "supervise", self.folder, instance,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            env=ENVIRONMENT,
        )  # fmt: skip
        try:
            _, said = await asyncio.wait_for(process.communicate(), START_SECONDS)
        except TimeoutError:
            raise Fault(
                ErrorClass.DEPENDENCY, "no-supervisor", f"the supervisor of {instance} did not start in time"
            ) from None
        if (process.returncode or 0) > 0:  # below 0 it was killed, and may be tried again
            problem = said.decode("utf-8", "replace").strip()
            reason = problem.splitlines()[-1] if problem else "no reason given"
            message = f"the supervisor of {instance} could not be started: {reason}"
            raise Fault(ErrorClass.DEPENDENCY, "no-supervisor", message, evidence=tuple(problem.splitlines()))

    @contextlib.asynccontextmanager
    async def connect(self, instance: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to a living supervisor. Raises OSError where there is none."""
        folder = os.open(self.folder / "sockets", os.O_RDONLY | os.O_DIRECTORY)
        try:
            path = f"/proc/self/fd/{folder}/{instance}"  # short, however deep the target lies (unix(7): 107 bytes)
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT)
        finally:
            os.close(folder)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def lives(self, instance: str) -> bool:
        """Whether a supervisor answers. To take a connection proves nothing: a program that it was just starting when it died
        holds its socket for a moment. One that is silent lives: nobody else could take its place.
        """
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                return await self._exchange(instance, {"do": "greet"}) is not None
        except TimeoutError:
            return True

    async def reach(self, instance: str) -> None:
        """Returns once a supervisor takes connections; starts one where there is none. Raises Fault (dependency)."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REACH_SECONDS
        pause = 0.01
        while not await self.lives(instance):
            if loop.time() > deadline:
                raise Fault(ErrorClass.DEPENDENCY, "no-supervisor", f"no supervisor of {instance} takes calls")
            await self.start(instance)
            if not await self.lives(instance):  # another one holds the lock, and is about to listen or to end
                await asyncio.sleep(pause)
                pause = min(0.5, pause * 2)

    async def call(self, instance: str, order: Mapping[str, Any], timeout: float) -> Any:
        """What the supervisor answers. A supervisor that dies meanwhile is started again and asked again: calls are idempotent.

        Raises StaleFence, or Fault with the supervisor's own class; dependency where it stays silent for `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while (answer := await self._exchange(instance, order)) is None:
                    await self.reach(instance)
        except TimeoutError:
            message = f"the supervisor of {instance} did not answer within {timeout:g} s; what it was asked for may still happen"
            raise Fault(ErrorClass.DEPENDENCY, "supervisor-silent", message) from None
        if "stale" in answer:
            raise StaleFence(answer["stale"])
        if "fault" in answer:
            raise fault_from_json(answer["fault"])
        return answer["ok"]

    async def _exchange(self, instance: str, order: Mapping[str, Any]) -> dict[str, Any] | None:
        """One question and its answer; None where nobody is there, or dies over it."""
        try:
            async with self.connect(instance) as (reader, writer):
                writer.write(json.dumps(order).encode() + b"\n")
                await writer.drain()
                line = await reader.readline()
        except OSError:
            return None
        return dict(json.loads(line)) if line.endswith(b"\n") else None

    async def ended(self, instance: str, timeout: float) -> None:
        """Returns once no supervisor of the instance lives."""
        lock = str(self.folder / "fences" / f"{instance}.lock")
        async with asyncio.timeout(timeout):
            while durable.is_locked(lock):  # noqa: ASYNC110 - another process ends: there is no event to wait for
                await asyncio.sleep(0.02)

    def journals(self) -> dict[str, dict[str, Any]]:
        """The journal of every instance that has something on this target; empty where something is, but no journal."""
        found: dict[str, dict[str, Any]] = {}
        for parent in ("instances", "supervisors"):
            if (self.folder / parent).is_dir():
                found.update({path.name: {} for path in (self.folder / parent).iterdir()})
        for instance in found:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found[instance] = json.loads((self.folder / "supervisors" / instance / "journal.json").read_text())
        return found

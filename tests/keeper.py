"""What the workers of a test session share: a server that a keeper process holds, such as PostgreSQL or Kafka.

A keeper watches the process that started the session and ends with it, however that ends; its server ends with the keeper. What it
serves is the business of a module that has `serving(folder)`, a context manager with the answer for those who ask.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from spectrum.core.errors import SpectrumError

READY_SECONDS = 300
PREFIX = "spectrum-test-"
REPOSITORY = Path(__file__).parent.parent
ANSWER = "answer.json"


def is_missing(what: str, why: str) -> NoReturn:
    """Skip the test, or fail it where `SPECTRUM_TEST_REQUIRE` names what is missing."""
    if what in os.environ.get("SPECTRUM_TEST_REQUIRE", "").split(","):
        pytest.fail(why)
    pytest.skip(why)


# ---- the session's side


def shared(module: str) -> Mapping[str, Any]:
    """What the session's keeper of this module answers; the first who asks starts it. Raises `SpectrumError`."""
    folder = _session_folder(module)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = folder / ANSWER
        if not answer.exists():
            _start_keeper(module, folder)
        said: Mapping[str, Any] = json.loads(answer.read_text())
    if "error" in said:
        raise SpectrumError(said["error"])
    return said


def _session() -> psutil.Process:
    """The process with which the session ends: of an xdist worker, the one that started it."""
    return psutil.Process(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid())


def _session_folder(module: str) -> Path:
    session = _session()
    folder = _base() / f"{PREFIX}{session.pid}-{session.create_time():.0f}-{module.rpartition('.')[2]}"
    folder.mkdir(mode=0o755, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise SpectrumError(f"{folder} belongs to somebody else: remove it.")
    return folder


def _base() -> Path:
    """Memory, where there is enough of it: cloning a database is mostly writing files."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30:
        return memory
    return Path(tempfile.gettempdir())


def _start_keeper(module: str, folder: Path) -> None:
    with (folder / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", __name__, module, str(folder), str(_session().pid)],
            cwd=REPOSITORY,
            env=python_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    watch = os.pidfd_open(keeper.pid)
    deadline = time.monotonic() + READY_SECONDS
    try:
        while not (folder / ANSWER).exists():
            if select.select([watch], [], [], 0.02)[0] or time.monotonic() > deadline:
                raise SpectrumError(f"its keeper said: {(folder / 'keeper.log').read_text()[-2000:]}")
    except BaseException:
        keeper.kill()
        keeper.wait()
        raise
    finally:
        os.close(watch)
    keeper.returncode = 0  # it goes on beside us, and ends by itself


def python_environment() -> dict[str, str]:
    """The environment of a Python that finds what this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


# ---- the keeper's side


def keep(module: str, folder: Path, session: int) -> None:
    """Hold a server until the session's process has ended; then leave nothing behind."""
    watch = os.pidfd_open(session)
    _remove_leftovers(folder.parent)
    try:
        with ExitStack() as stack:
            try:
                answer = stack.enter_context(importlib.import_module(module).serving(folder))
            except SpectrumError as error:
                answer = {"error": str(error)}
            partial = folder / "answer.partial"
            partial.touch(mode=0o600)
            partial.write_text(json.dumps(answer))
            partial.rename(folder / ANSWER)
            select.select([watch], [], [])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(base: Path) -> None:
    """Folders of sessions whose keeper was killed too; their servers ended with it."""
    for folder in base.glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)) and folder.stat().st_uid == os.geteuid():
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

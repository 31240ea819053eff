"""The part that keeps a real PostgreSQL running: it survives its watcher, and comes back when it is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import asyncpg
import pytest

from spectrum.db.embedded import Embedded
from spectrum.local import commands, lifecycle
from spectrum.local.errors import LocalError
from spectrum.local.home import Home, choose_ports
from spectrum.local.parts import Part
from spectrum.local.system import system_parts
from tests.waiting import wait_until


@pytest.fixture
def database(home: Home) -> Iterator[Part]:
    yield system_parts(home, choose_ports(home))[0]
    lifecycle.stop(home, lambda _: None)
    Embedded(home.database).remove()


async def answer(home: Home) -> int:
    connection = await asyncpg.connect(home.database_url.read_text().strip())
    try:
        return int(await connection.fetchval("select 6 * 7"))
    finally:
        await connection.close()


def server_pid(home: Home) -> int | None:
    server = Embedded(home.database).running()
    return server.pid if server else None


@pytest.mark.anyio
async def test_postgresql_survives_its_watcher_and_is_restarted_when_it_dies(home: Home, database: Part) -> None:
    lifecycle.start(home, (database,))
    lifecycle.await_running(home, ("postgres",))
    assert await answer(home) == 42
    first = server_pid(home)
    watcher = lifecycle.read(home).parts[0].pid
    os.kill(watcher or 0, signal.SIGKILL)
    wait_until(lambda: lifecycle.read(home).parts[0].pid not in (None, watcher))
    lifecycle.await_running(home, ("postgres",))
    assert server_pid(home) == first
    os.kill(first or 0, signal.SIGKILL)
    wait_until(lambda: server_pid(home) not in (None, first), seconds=60.0)
    lifecycle.await_running(home, ("postgres",))
    assert await answer(home) == 42
    lifecycle.stop(home, lambda _: None)
    assert server_pid(home) is None


def test_a_postgresql_without_watcher_and_supervisor_is_stopped_by_down(
    home: Home, database: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECTRUM_HOME", str(home.root))
    lifecycle.start(home, (database,))
    lifecycle.await_running(home, ("postgres",))
    status = lifecycle.read(home)
    for pid in (status.supervisor, status.parts[0].pid):
        os.kill(pid or 0, signal.SIGKILL)
    assert server_pid(home) is not None
    commands.down(lambda _: None)
    assert server_pid(home) is None


def test_a_foreign_postgresql_in_the_data_folder_is_told_with_the_remedy(home: Home, database: Part) -> None:
    data = Embedded(home.database).place.data
    data.mkdir()
    (data / "PG_VERSION").write_text("12\n")
    lifecycle.start(home, (database,))
    with pytest.raises(
        LocalError, match=r"ended with code 1: /.* SPECTRUM did not make: move them away or set SPECTRUM_HOME"
    ):
        lifecycle.await_running(home, ("postgres",))

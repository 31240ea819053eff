"""Parts stay up, whatever is killed; nothing is doubled, nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from spectrum.local import identity, lifecycle
from spectrum.local.child import read_record
from spectrum.local.errors import LocalError
from spectrum.local.home import Home, write
from spectrum.local.parts import accepts
from tests.local.conftest import free_ports, listener, processes_of, program
from tests.waiting import wait_until


def pids(home: Home) -> dict[str, int | None]:
    return {part.name: part.pid for part in lifecycle.read(home).parts}


def up(home: Home, *parts: object) -> dict[str, int | None]:
    lifecycle.start(home, parts)  # type: ignore[arg-type]
    lifecycle.await_running(home, tuple(part.name for part in parts), timeout=30.0)  # type: ignore[attr-defined]
    return pids(home)


def test_a_part_that_needs_a_port_starts_once_it_is_open(home: Home) -> None:
    first, second = free_ports(2)
    up(home, listener(home, "late", second, needs_ports=(first,)), listener(home, "early", first))
    late, early = (read_record(home, name) for name in ("late", "early"))
    assert late and early
    assert early[0].started <= late[0].started


def test_a_part_that_needs_a_file_waits_for_it_and_says_so(home: Home) -> None:
    wanted = home.root / "token-for-it"
    (port,) = free_ports(1)
    lifecycle.start(home, (listener(home, "part", port, needs_files=(str(wanted),)),))
    wait_until(lambda: str(wanted) in lifecycle.read(home).parts[0].last_error)
    write(wanted, "here")
    lifecycle.await_running(home, ("part",), timeout=30.0)


def test_a_killed_part_comes_back_as_another_process(home: Home) -> None:
    (port,) = free_ports(1)
    before = up(home, listener(home, "part", port))["part"]
    assert before
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: pids(home)["part"] not in (None, before))
    lifecycle.await_running(home, ("part",), timeout=30.0)
    part = lifecycle.read(home).parts[0]
    assert part.restarts == 1
    assert "SIGKILL" in part.last_error


def test_a_part_that_always_fails_is_told_with_its_last_words(home: Home) -> None:
    broken = program(home, "broken", "import sys; sys.exit('the cellar is flooded')")
    lifecycle.start(home, (broken,))
    with pytest.raises(LocalError) as caught:
        lifecycle.await_running(home, ("broken",), timeout=60.0)
    assert "the cellar is flooded" in caught.value.message
    assert str(home.log("broken")) in caught.value.hint


def test_parts_outlive_their_supervisor_and_the_next_one_adopts_them(home: Home) -> None:
    one, two = free_ports(2)
    parts = (listener(home, "one", one), listener(home, "two", two))
    before = up(home, *parts)
    supervisor = lifecycle.read(home).supervisor
    assert supervisor
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: lifecycle.read(home).supervisor is None)
    assert {part.state for part in lifecycle.read(home).parts} == {"unsupervised"}
    assert up(home, *parts) == before
    assert lifecycle.read(home).supervisor not in (None, supervisor)


def test_an_adopted_part_is_restarted_like_any_other(home: Home) -> None:
    (port,) = free_ports(1)
    before = up(home, listener(home, "part", port))["part"]
    os.kill(lifecycle.read(home).supervisor or 0, signal.SIGKILL)
    wait_until(lambda: lifecycle.read(home).supervisor is None)
    assert up(home, listener(home, "part", port))["part"] == before
    os.kill(before or 0, signal.SIGKILL)
    wait_until(lambda: pids(home)["part"] not in (None, before))


def test_parts_without_supervisor_are_stopped_by_down(home: Home) -> None:
    (port,) = free_ports(1)
    up(home, listener(home, "part", port))
    os.kill(lifecycle.read(home).supervisor or 0, signal.SIGKILL)
    wait_until(lambda: lifecycle.read(home).supervisor is None)
    said: list[str] = []
    lifecycle.stop(home, said.append)
    assert processes_of(home) == []
    assert any("part" in line for line in said)


def test_a_changed_part_is_started_anew_and_its_neighbour_is_left_alone(home: Home) -> None:
    one, two, three = free_ports(3)
    before = up(home, listener(home, "same", one), listener(home, "other", two))
    after = up(home, listener(home, "same", one), listener(home, "other", three))
    assert after["same"] == before["same"]
    assert after["other"] != before["other"]


def test_a_process_that_got_a_recorded_pid_later_is_never_touched(home: Home) -> None:
    (port,) = free_ports(1)
    part = listener(home, "part", port)
    me = identity.identify(os.getpid())
    assert me
    stat = f"{me.pid} (somebody else) S " + " ".join(["0"] * 18) + f" {me.started - 1} 0"
    write(home.record("part"), f"{me.boot}\n{part.digest}\n{stat}\n")
    assert read_record(home, "part") is None
    assert not identity.send(identity.Identity(me.pid, me.started - 1, me.boot), signal.SIGKILL)
    assert up(home, part)["part"] != me.pid


def test_a_record_from_before_a_reboot_names_nobody(home: Home) -> None:
    me = identity.identify(os.getpid())
    assert me
    assert not identity.alive(identity.Identity(me.pid, me.started, "another-boot"))


def test_a_stubborn_part_is_ended_when_its_grace_is_over(home: Home) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    )
    part = program(home, "deaf", deaf)
    part = type(part)(part.name, part.command, grace=0.2)
    up(home, part)
    wait_until(lambda: "deaf" in home.log("deaf").read_text())
    lifecycle.stop(home, lambda _: None)
    assert processes_of(home) == []


def test_a_stranger_on_its_port_does_not_make_a_part_run(home: Home) -> None:
    (port,) = free_ports(1)
    lifecycle.start(home, (program(home, "mute", "import signal; signal.pause()", port=port),))
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        with pytest.raises(LocalError, match="not ready"):
            lifecycle.await_running(home, ("mute",), timeout=1.0)


def test_a_part_runs_once_what_others_read_of_it_is_there_too(home: Home) -> None:
    address = home.root / "address"
    write(address, "of an earlier start")
    (port,) = free_ports(1)
    lifecycle.start(home, (listener(home, "part", port, gives_files=(str(address),)),))
    wait_until(lambda: accepts(port))
    with pytest.raises(LocalError, match="not ready"):
        lifecycle.await_running(home, ("part",), timeout=1.0)
    write(address, "here")
    lifecycle.await_running(home, ("part",), timeout=30.0)


def test_two_installations_run_side_by_side(make_home: Callable[[str], Home]) -> None:
    left, right = make_home("left"), make_home("right")
    one, two = free_ports(2)
    up(left, listener(left, "part", one))
    before = up(right, listener(right, "part", two))
    lifecycle.stop(left, lambda _: None)
    assert processes_of(left) == []
    assert pids(right) == before


def test_a_second_supervisor_of_a_home_steps_back(home: Home) -> None:
    (port,) = free_ports(1)
    before = up(home, listener(home, "part", port))
    supervisor = lifecycle.read(home).supervisor
    lifecycle._spawn(home)
    assert lifecycle.read(home).supervisor == supervisor
    assert pids(home) == before


def test_a_supervisor_that_comes_after_down_starts_nothing(home: Home) -> None:
    (port,) = free_ports(1)
    up(home, listener(home, "part", port))
    lifecycle.stop(home, lambda _: None)
    late = subprocess.run([sys.executable, "-m", "spectrum.local.supervisor", str(home.root)], timeout=60.0)
    assert late.returncode == 0
    assert processes_of(home) == []


def test_a_supervisor_that_dies_while_parts_are_waited_for_is_replaced(home: Home) -> None:
    (port,) = free_ports(1)
    before = up(home, listener(home, "part", port))
    os.kill(lifecycle.read(home).supervisor or 0, signal.SIGKILL)
    wait_until(lambda: lifecycle.read(home).supervisor is None)
    lifecycle.await_running(home, ("part",), timeout=30.0)
    assert pids(home) == before
    assert lifecycle.read(home).supervisor

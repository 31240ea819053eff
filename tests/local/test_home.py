"""The folder of an installation: made once, trusted only when it is the caller's own, with ports that stay."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spectrum.local import lifecycle
from spectrum.local.errors import LocalError
from spectrum.local.home import Home, alone, check_owner, choose_ports, prepare, write_once
from spectrum.local.logs import rotate, tail
from tests.local.conftest import listener


def test_the_folder_and_its_secrets_are_the_callers_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    before = os.umask(0o000)
    try:
        prepare(home)
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.token.stat().st_mode) == 0o600


def test_preparing_again_keeps_the_token(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    prepare(home)
    first = home.token.read_text()
    prepare(home)
    assert home.token.read_text() == first
    assert len(first) > 30


def test_whoever_is_first_decides_a_file_that_is_written_once(tmp_path: Path) -> None:
    write_once(tmp_path / "file", "first")
    write_once(tmp_path / "file", "second")
    assert (tmp_path / "file").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_others_can_write_is_refused_with_the_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(LocalError, match="chmod go-w"):
        check_owner(tmp_path)


def test_ports_for_kafka_are_chosen_when_it_is_first_wanted_and_kept(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    prepare(home)
    without = choose_ports(home)
    with_it = choose_ports(home, kafka=True)
    assert (without.kafka, without.controller) == (0, 0)
    assert (with_it.api, with_it.database) == (without.api, without.database)
    assert len({with_it.api, with_it.database, with_it.kafka, with_it.controller}) == 4
    assert choose_ports(home) == choose_ports(home, kafka=True) == with_it


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(LocalError, match="belongs to user 12345"):
        check_owner(tmp_path)


def test_ports_are_chosen_once_and_kept(make_home: Callable[[str], Home]) -> None:
    home = make_home("home")
    first = choose_ports(home)
    assert first.api != first.database
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", first.api))
        other.listen()
        assert choose_ports(home) == first


def test_a_port_that_is_taken_is_not_chosen(make_home: Callable[[str], Home]) -> None:
    home = make_home("home")
    wanted = choose_ports(home)
    home.ports.unlink()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", wanted.api))
        other.listen()
        assert wanted.api not in (choose_ports(home).api, choose_ports(home).database)


def test_a_taken_port_is_told_with_the_program_that_has_it(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LocalError) as caught:
            lifecycle.start(home, (listener(home, "part", port),))
    assert f"Port {port}" in caught.value.message
    assert f"pid {os.getpid()}" in caught.value.message
    assert "spectrum up" in caught.value.hint


def test_a_second_command_at_the_same_time_is_told_who_is_at_work(home: Home) -> None:
    with alone(home, "up"):
        source = (
            "import sys; from pathlib import Path; from spectrum.local.home import Home, alone\n"
            "with alone(Home(Path(sys.argv[1])), 'down'): pass"
        )
        second = subprocess.run([sys.executable, "-c", source, str(home.root)], capture_output=True, text=True)
    assert f"spectrum up (pid {os.getpid()}) is at work" in second.stderr


def test_a_full_disk_is_told_in_one_sentence(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted)], capture_output=True
    ).returncode:
        pytest.skip("a small file system needs the right to mount one")
    try:
        with pytest.raises(LocalError, match=r"MB left and at least .* Make room"):
            prepare(Home(mounted / "home"))
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_large_log_is_rotated_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old line\n" * 100)
        rotate(log, largest=500)
        writer.write(b"new line\n")
    assert log.read_bytes() == b"new line\n"
    assert (tmp_path / "part.log.1").read_bytes() == b"old line\n" * 100
    assert tail(log, 3) == ("new line",)

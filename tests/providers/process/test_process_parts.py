"""The supervisor's small parts: counting health, keeping logs, records that survive, requests that wait their turn."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from spectrum.providers.process.shim import durable, logs
from spectrum.providers.process.shim.durable import Identity
from spectrum.providers.process.shim.fences import FenceRecord
from spectrum.providers.process.shim.files import clear, inside
from spectrum.providers.process.shim.health import HEALTHY, STARTING, UNHEALTHY, Counter
from spectrum.providers.process.shim.logs import Log, Pump
from spectrum.providers.process.shim.refusals import Refusal, Stale
from spectrum.providers.process.shim.turns import Turns

CHECK = {"interval": 10.0, "start_interval": 1.0, "start_period": 5.0, "retries": 3, "timeout": 1.0, "test": ["true"]}


def test_failures_within_the_start_period_do_not_count() -> None:
    counter = Counter(CHECK, now=0)
    for moment in (1, 2, 3, 4):
        counter.count(False, moment)

    assert (counter.status, counter.failures) == (STARTING, 0)


def test_retries_failures_in_a_row_make_unhealthy_and_one_success_healthy() -> None:
    counter = Counter(CHECK, now=0)
    counter.count(True, 1)
    counter.count(False, 12, "first")
    counter.count(False, 22, "second")
    assert (counter.status, counter.said) == (HEALTHY, "second")

    counter.count(False, 32, "third")
    assert counter.status == UNHEALTHY

    counter.count(True, 42)
    assert (counter.status, counter.said) == (HEALTHY, "")


def test_checks_come_quickly_at_first_and_then_at_the_interval() -> None:
    counter = Counter(CHECK, now=0)
    assert counter.due < 0.5
    counter.count(False, 2.0)
    assert counter.due == 2.5
    counter.count(False, 40.0)
    assert counter.due == 50.0
    counter.count(True, 60.0)

    assert counter.due == 70.0


def pump(folder: Path) -> Pump:
    return Pump(str(folder), Log(str(folder / "logs")), "web")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def write(unit: Path, text: bytes) -> None:
    with (unit / "stdout").open("ab") as file:
        file.write(text)


def kept(unit: Path, count: int = 100_000) -> list[str]:
    return [line["text"] for line in Log(str(unit / "logs")).tail("web", count)]


def test_a_line_is_taken_once_it_is_whole_also_by_the_next_supervisor(unit: Path) -> None:
    write(unit, b"one\ntw")
    assert pump(unit).take()
    assert not pump(unit).take()
    write(unit, b"o\nthree")

    pump(unit).take()
    assert kept(unit) == ["one", "two"]

    pump(unit).take(last=True)
    assert kept(unit) == ["one", "two", "three"]


def test_bytes_that_are_no_text_and_lines_without_end_do_no_harm(unit: Path) -> None:
    write(unit, b"\xff\x00\n" + b"x" * (logs.LINE * 2 + 5))

    pump(unit).take()
    pump(unit).take(last=True)

    assert kept(unit)[0] == "\ufffd\x00"
    assert "".join(kept(unit)[1:]) == "x" * (logs.LINE * 2 + 5)
    assert max(map(len, kept(unit))) == logs.LINE


def test_the_disk_is_given_back_and_no_line_is_lost_or_doubled(unit: Path) -> None:
    taker = pump(unit)
    for part in range(40):
        write(unit, b"".join(b"%08d %s\n" % (part * 1000 + number, b"x" * 90) for number in range(1000)))
        taker.take()

    numbers = [int(text.split()[0]) for text in kept(unit)]
    on_disk = sum(path.stat().st_blocks * 512 for path in unit.rglob("*") if path.is_file())

    assert numbers == list(range(numbers[0], 40_000))
    assert on_disk < 2 * (logs.CAP + logs.CHUNK) + 2 * logs.PUNCH_EVERY


def test_a_follower_sees_every_line_across_a_rotation(unit: Path) -> None:
    log = Log(str(unit / "logs"))
    log.append("web", "stdout", ["before"])
    follower = log.follow("web")
    seen: list[str] = []
    long = "y" * 10_000
    for number in range(1200):
        log.append("web", "stdout", [f"{number} {long}"])
        if number % 100 == 0:
            seen += [line["text"].split()[0] for _, line in next(follower)]
    seen += [line["text"].split()[0] for _, line in next(follower)]

    assert seen == [str(number) for number in range(1200)]


def test_a_service_is_not_mistaken_for_another_one_with_a_longer_name(unit: Path) -> None:
    log = Log(str(unit / "logs"))
    for name in ("web", "web/migrate", "website"):
        log.append(name, "stdout", ["x"])

    assert log.names("web") == ["web", "web/migrate"]
    assert log.names() == ["web", "web/migrate", "website"]


def test_a_fence_record_remembers_across_restarts(tmp_path: Path) -> None:
    path = str(tmp_path / "record")
    FenceRecord(path).record(7, "web/container", 9)

    again = FenceRecord(path)

    with pytest.raises(Stale):
        again.check(6, "web/container", 10)
    with pytest.raises(Stale):
        again.check(7, "web/container", 8)
    again.check(7, "web/container", 9)
    again.check(7, "db/container", 1)
    again.check(7, "web/container", 0)


def test_a_damaged_fence_record_refuses_everything(tmp_path: Path) -> None:
    (tmp_path / "record").write_text("{")

    with pytest.raises(Refusal, match="put it back from a backup"):
        FenceRecord(str(tmp_path / "record"))


def test_a_newer_fence_waits_for_older_calls_and_keeps_further_ones_out(tmp_path: Path) -> None:
    turns = Turns(FenceRecord(str(tmp_path / "record")))
    inside_new = threading.Event()

    def newer() -> None:
        with turns.take("db/container", 2, 0):
            inside_new.set()

    thread = threading.Thread(target=newer)
    with turns.take("web/container", 1, 1):
        thread.start()
        with turns.changed:
            assert turns.changed.wait_for(lambda: turns.newest == 2 or inside_new.is_set(), 10) or turns.newest == 2
        assert not inside_new.is_set()
        with pytest.raises(Stale), turns.take("cache/container", 1, 2):
            pytest.fail("an older fence was let in")
    thread.join(10)

    assert inside_new.is_set()


def test_a_file_is_replaced_as_a_whole_and_leaves_no_other(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    durable.write_json(path, {"n": 1})
    durable.write_json(path, {"n": 2}, mode=0o400)

    assert json.loads(Path(path).read_text()) == {"n": 2}
    assert Path(path).stat().st_mode & 0o777 == 0o400
    assert os.listdir(tmp_path) == ["state.json"]  # noqa: PTH208


def test_a_process_is_not_taken_for_a_later_one_with_its_pid() -> None:
    myself = Identity.of(os.getpid())
    assert myself is not None and myself.alive()

    assert not Identity(myself.pid, myself.start - 1, myself.boot).alive()
    assert not Identity(myself.pid, myself.start, "another boot").alive()
    assert Identity.parse(str(myself)[:-1]) is None


@pytest.mark.parametrize("target", ["/../x", "/a/../../x", "/", "", "/a\0b"])
def test_a_target_that_leads_out_of_the_root_is_refused(target: str) -> None:
    with pytest.raises(Refusal, match="must be an absolute path inside"):
        inside("/root/of/web", target)


def test_a_target_may_have_the_root_in_front(tmp_path: Path) -> None:
    assert inside("/r/web", "/r/web/etc/x") == inside("/r/web", "/etc/x") == "/r/web/etc/x"


def test_a_tree_is_cleared_without_following_its_links(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "data").touch()
    tree = tmp_path / "tree"
    (tree / "locked").mkdir(parents=True)
    (tree / "locked" / "file").touch()
    (tree / "locked").chmod(0)
    (tree / "link").symlink_to(keep)

    clear(str(tree))

    assert not tree.exists()
    assert (keep / "data").exists()

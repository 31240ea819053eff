"""The supervisor: killed, stopped and started again at any moment, it finds its services, doubles nothing, loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from spectrum.core.errors import Fault, StaleFence
from spectrum.core.product.resources import Facts, File, Hook, Limits, RestartPolicy, Service
from spectrum.providers.process import ProcessProvider
from spectrum.providers.process.shim.durable import Identity
from spectrum.providers.protocol import Presence, SlotHealth
from tests.conformance.hand import DEADLINE, Hand
from tests.providers.process.host import NOTHING, command_lines, environments, traces
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def supervisors(hand: Hand) -> list[int]:
    return [pid for pid, line in command_lines().items() if "supervise" in line and hand.instance in line]


def copies(hand: Hand, slot: str) -> list[int]:
    """The processes of a slot that are the product's own program (its children carry the mark too, but not the port)."""
    mark = re.compile(rf"INSTANCE_UNIT={hand.instance}\.\w+/{slot}\0")
    return [pid for pid in command_lines() if mark.search(environments(pid))]


async def kill_supervisor(hand: Hand) -> None:
    for pid in supervisors(hand):
        identity = Identity.of(pid)
        os.kill(pid, signal.SIGKILL)
        if identity is not None:
            assert identity.wait(DEADLINE)


def main_pid(target: ProcessProvider, hand: Hand, slot: str) -> int:
    unit = target.folder / "supervisors" / hand.instance / "units" / slot.replace("/", "~")
    return int((unit / "main").read_text().split()[0])


def script(text: str, hand: Hand, facts: Facts, **more: object) -> Service:
    """A service that is a shell script, without port and health check."""
    service = replace(hand.harness.web(facts), command=("sh", "-c", text), ports=(), health=None, mounts=())
    return replace(service, **more)  # type: ignore[arg-type]


async def gone(pid: int) -> None:
    await eventually(lambda: Identity.of(pid) is None)


async def test_services_outlive_their_supervisor_and_are_found_again(hand: Hand, target: ProcessProvider) -> None:
    await hand.web()
    await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)
    before = main_pid(target, hand, "web/container")

    await kill_supervisor(hand)
    assert Identity.of(before) is not None
    seen = await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)

    assert (seen.restarts, seen.running, seen.key) == (0, True, "key.1")
    assert copies(hand, "web/container") == [before]


async def test_the_end_of_a_hook_is_learned_although_nobody_watched(hand: Hand, target: ProcessProvider) -> None:
    facts = await hand.ground()
    gate = target.folder.parent / "gate"
    os.mkfifo(gate)
    gate.chmod(0o666)
    hook = Hook("wait", hand.harness.web(facts), ("sh", "-c", f"read line < {gate}; echo $line; exit 7"), timeout=60)
    await hand.ensure("web/wait", hook)
    pid = main_pid(target, hand, "web/wait")

    await kill_supervisor(hand)
    async with await anyio.open_file(gate, "w") as file:
        await file.write("go\n")
    await gone(pid)
    seen = await hand.until("web/wait", lambda seen: seen.exit is not None)

    assert seen.exit is not None
    assert (seen.exit.code, "go" in seen.exit.tail) == (7, True)


async def test_a_service_that_died_unwatched_is_started_again_once(hand: Hand, target: ProcessProvider) -> None:
    await hand.web()
    pid = main_pid(target, hand, "web/container")

    await kill_supervisor(hand)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    seen = await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)

    assert seen.restarts == 1
    assert len(copies(hand, "web/container")) == 1


async def test_two_supervisors_of_one_instance_exclude_each_other(hand: Hand, target: ProcessProvider) -> None:
    await hand.web()
    before = supervisors(hand)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(target.supervisors.start, hand.instance)

    # The losers end as soon as they have said so.
    await eventually(lambda: supervisors(hand) == before)


async def test_killed_at_random_moments_it_doubles_and_loses_nothing(hand: Hand, target: ProcessProvider) -> None:
    service = hand.harness.web(await hand.ground())
    hook = hand.harness.count(await hand.base())
    dice = random.Random(7)
    hooks = 0

    async def kill_soon() -> None:
        await anyio.sleep(dice.uniform(0, 0.15))
        for pid in supervisors(hand):
            os.kill(pid, signal.SIGKILL)

    for round_ in range(8):
        key = f"key.{round_ + 1}"
        async with anyio.create_task_group() as group:
            group.start_soon(kill_soon)
            await hand.ensure("web/container", service, key)
            await hand.ensure("web/count", hook, key)
            hooks += 1
        assert len(supervisors(hand)) <= 1
        await hand.until("web/container", lambda seen: seen.running)
        await hand.until("web/count", lambda seen: seen.exit is not None)
        assert len([pid for pid in copies(hand, "web/container") if "socket" in command_lines().get(pid, "")]) == 1
        assert await hand.harness.runs(hand.instance) == hooks
        async with anyio.create_task_group() as group:
            group.start_soon(kill_soon)
            await hand.provider.remove(hand.call("web/container", key))
            await hand.provider.remove(hand.call("web/count", key))
        assert (await hand.look("web/container")).presence is Presence.ABSENT
        assert copies(hand, "web/container") == []


async def test_killed_at_random_moments_of_a_purge_nothing_stays(hand: Hand, target: ProcessProvider) -> None:
    dice = random.Random(11)

    async def kill_soon(one: Hand) -> None:
        await anyio.sleep(dice.uniform(0, 0.4))
        for pid in supervisors(one):
            os.kill(pid, signal.SIGKILL)

    for _ in range(6):
        one = Hand(hand.harness)
        async with anyio.create_task_group() as group:
            group.start_soon(kill_soon, one)
            await one.web()
        async with anyio.create_task_group() as group:
            group.start_soon(kill_soon, one)
            await one.provider.remove(one.call("instance/base", "key.1"))
        assert (await one.look("instance/base")).presence is Presence.ABSENT
        assert await hand.harness.residue(one.instance) == []
        assert traces(one.instance) == NOTHING


LATE = """
import anyio, sys
from pathlib import Path
from spectrum.core.errors import StaleFence
from spectrum.core.ids import InstanceId
from spectrum.core.product.resources import Volume
from spectrum.providers.process import ProcessProvider
from spectrum.providers.protocol import Call

async def main():
    provider = ProcessProvider(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        await provider.ensure(Call(InstanceId(sys.argv[2]), "late/volume", "late.1", 10, 5000), Volume("late"))
    except StaleFence:
        print("refused", flush=True)

anyio.run(main)
"""


async def test_a_call_of_a_stopped_worker_is_refused_when_it_wakes(hand: Hand, target: ProcessProvider) -> None:
    await hand.ground()
    worker = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        [sys.executable, "-c", LATE, target.folder, hand.instance],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    worker.send_signal(signal.SIGSTOP)
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()

    hand.fence += 1
    await hand.look("late/volume")
    worker.send_signal(signal.SIGCONT)
    said, _ = await anyio.to_thread.run_sync(worker.communicate, None, DEADLINE)

    assert said == "refused\n"
    assert (await hand.look("late/volume")).presence is Presence.ABSENT


async def test_a_newer_fence_waits_for_what_an_older_one_began(hand: Hand, target: ProcessProvider) -> None:
    facts = await hand.ground()
    trap = script("trap 'sleep 1; exit 0' TERM; echo up; while :; do sleep 0.1; done", hand, facts)
    await hand.ensure("web/container", trap)
    await hand.until("web/container", lambda seen: "up" in seen.tail or seen.health is SlotHealth.HEALTHY)
    order: list[str] = []

    async def old() -> None:
        await hand.provider.remove(hand.call("web/container", "key.1"))
        order.append("old")

    async def new() -> None:
        seen = await hand.provider.observe(hand.call("data/volume", fence=hand.fence + 1, token=0))
        order.append("new")
        assert seen.presence is Presence.PRESENT

    async with anyio.create_task_group() as group:
        group.start_soon(old)
        await eventually(lambda: journal_says_removing(target, hand))
        group.start_soon(new)

    assert order == ["old", "new"]
    seen = await hand.provider.observe(hand.call("web/container", fence=hand.fence + 1, token=0))
    assert seen.presence is Presence.ABSENT
    with pytest.raises(StaleFence):
        await hand.look("web/container")


def journal_says_removing(target: ProcessProvider, hand: Hand) -> bool:
    journal = target.supervisors.journals()[hand.instance]
    return bool(journal["slots"].get("web/container", {}).get("removing"))


async def test_a_removal_that_could_not_be_finished_is_unknown_until_it_is(hand: Hand, target: ProcessProvider) -> None:
    service = await hand.web()
    units = target.folder / "supervisors" / hand.instance / "units"
    lock = units / "web~container.lock"
    lock.unlink()
    (lock / "in the way").mkdir(parents=True)

    with pytest.raises(Fault, match="target-failed"):
        await hand.provider.remove(hand.call("web/container", "key.1"))
    assert (await hand.look("web/container")).presence is Presence.UNKNOWN
    assert copies(hand, "web/container") == []
    (lock / "in the way").rmdir()
    lock.rmdir()

    seen = await hand.ensure("web/container", service, key="key.2")

    assert (seen.presence, seen.key, seen.running) == (Presence.PRESENT, "key.2", True)


async def test_grandchildren_that_left_their_session_are_ended_too(hand: Hand, target: ProcessProvider) -> None:
    facts = await hand.ground()
    service = script("(setsid sh -c 'setsid sleep 1000 & exec sleep 1001' &) ; sleep 1002", hand, facts)
    await hand.ensure("web/container", service)
    await eventually(lambda: len(copies(hand, "web/container")) >= 4)

    await hand.provider.remove(hand.call("web/container", "key.1"))

    assert copies(hand, "web/container") == []


async def test_a_service_that_ignores_its_stop_signal_is_killed_after_its_grace(hand: Hand) -> None:
    facts = await hand.ground()
    deaf = script("trap '' TERM; echo up; while :; do sleep 0.1; done", hand, facts, stop_grace=0.3)
    await hand.ensure("web/container", deaf)

    await hand.provider.remove(hand.call("web/container", "key.1"))

    assert copies(hand, "web/container") == []


async def test_on_failure_restarts_as_often_as_it_may_and_keeps_the_last_words(hand: Hand) -> None:
    facts = await hand.ground()
    broken = script("echo no luck >&2; exit 9", hand, facts, restart=RestartPolicy.ON_FAILURE, restart_attempts=2)
    await hand.ensure("web/container", broken)

    seen = await hand.until(
        "web/container", lambda seen: seen.restarts == 2 and seen.exit is not None and not seen.running
    )
    ended = await hand.until("web/container", lambda seen: seen.tail.count("no luck") == 3)

    assert seen.exit is not None
    assert (seen.exit.code, seen.health) == (9, SlotHealth.UNHEALTHY)
    assert ended.restarts == 2


async def test_a_service_that_ended_is_started_again_by_the_same_key(hand: Hand, target: ProcessProvider) -> None:
    facts = await hand.ground()
    service = script("echo once; exit 0", hand, facts, restart=RestartPolicy.NO)
    await hand.ensure("web/container", service)
    await hand.until("web/container", lambda seen: seen.exit is not None and not seen.running)

    await hand.ensure("web/container", service)

    seen = await hand.until("web/container", lambda seen: seen.tail.count("once") == 2)
    assert (seen.key, seen.restarts) == ("key.1", 0)


async def test_a_hook_that_takes_too_long_is_ended_and_says_so(hand: Hand) -> None:
    facts = await hand.ground()
    hook = Hook("slow", hand.harness.web(facts), ("sleep", "1000"), timeout=0.3)
    await hand.ensure("web/slow", hook)

    seen = await hand.until("web/slow", lambda seen: seen.exit is not None)

    assert seen.exit is not None
    assert seen.exit.code == 124
    assert any("timeout" in line for line in seen.exit.tail)


async def test_a_hook_reads_its_input_and_leaves_its_output_for_the_worker(hand: Hand, target: ProcessProvider) -> None:
    facts = await hand.ground()
    given = target.folder.parent / "given"
    given.write_bytes(b"\x00\xffdump")
    hook = Hook(
        "copy", hand.harness.web(facts), ("sh", "-c", "cat; echo told >&2"), 30, stdout="copy", stdin=str(given)
    )
    await hand.ensure("web/copy", hook)

    seen = await hand.until("web/copy", lambda seen: seen.exit is not None)

    assert seen.exit is not None
    assert (seen.exit.code, "told" in seen.exit.tail) == (0, True)
    assert await anyio.Path(seen.exit.stdout_path).read_bytes() == b"\x00\xffdump"


async def test_a_stolen_port_is_told_and_never_counts_as_health(hand: Hand) -> None:
    facts = await hand.ground()
    service = replace(hand.harness.web(facts), health=None)
    with socket.create_server(("127.0.0.1", facts.ports["web/80"])):
        if os.geteuid() == 0:
            with pytest.raises(
                Fault, match=rf"port-taken: port {facts.ports['web/80']} is held by process {os.getpid()} "
            ):
                await hand.ensure("web/container", service)
    quiet = replace(service, command=("sh", "-c", "sleep 1000"))
    await hand.ensure("web/container", quiet, key="key.2")
    with socket.create_server(("127.0.0.1", facts.ports["web/80"])):
        seen = await hand.until(
            "web/container", lambda seen: any(condition.reason == "port_taken" for condition in seen.conditions)
        )

    assert seen.health is not SlotHealth.HEALTHY


async def test_secrets_stand_in_0400_files_and_neither_in_the_journal_nor_on_a_command_line(
    hand: Hand, target: ProcessProvider
) -> None:
    facts = await hand.ground()
    secret = File("/run/secrets/password", "hunter2-of-the-test", secret=True)
    service = replace(
        script("cat $HOME/run/secrets/password > /dev/null; sleep 1000", hand, facts),
        files=(secret, File("/etc/plain.conf", "plain")),
        environment={"TOKEN": "hunter3-of-the-test"},
    )
    await hand.ensure("web/container", service)

    path = Path(facts.roots["web"]) / "run/secrets/password"
    state = target.folder / "supervisors" / hand.instance
    holders = [file for file in state.rglob("*") if file.is_file() and "hunter" in file.read_text(errors="replace")]
    folders = [folder.stat().st_mode & 0o777 for folder in (target.folder / "instances" / hand.instance, path.parent)]

    assert path.read_text() == "hunter2-of-the-test"
    assert path.stat().st_mode & 0o777 == 0o400
    assert folders == [0o700, 0o700]
    assert [(file.name, file.stat().st_mode & 0o777) for file in holders] == [("spec.json", 0o400)]
    assert "hunter" not in "".join(command_lines().values())


async def test_as_root_an_instance_has_an_account_of_its_own(hand: Hand, target: ProcessProvider) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    facts = await hand.ground()
    await hand.ensure("web/container", script("id -un; id -Gn; exec sleep 1000", hand, facts))
    pid = main_pid(target, hand, "web/container")
    text = await anyio.Path(f"/proc/{pid}/status").read_text()
    status = dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE))

    assert status["Uid"].split()[0] not in ("0", str(os.geteuid()))
    assert len(set(status["Uid"].split())) == 1
    assert status["NoNewPrivs"] == "1"
    assert sorted([path.name async for path in anyio.Path(f"/proc/{pid}/fd").iterdir()]) == ["0", "1", "2"]


async def test_limits_hold_or_a_condition_says_that_they_do_not(hand: Hand, target: ProcessProvider) -> None:
    facts = await hand.ground()
    limits = Limits(memory=64 * 1024 * 1024, cpus=0.5, pids=20)
    await hand.ensure("web/container", script("sleep 1000", hand, facts, limits=limits))
    seen = await hand.look("web/container")

    if any(condition.type == "limits_enforced" for condition in seen.conditions):
        return
    groups = await anyio.Path(f"/proc/{main_pid(target, hand, 'web/container')}/cgroup").read_text()
    assert re.search(rf"spectrum-{hand.instance}\.\w+/web$", groups, re.MULTILINE)
    found = anyio.Path("/sys/fs/cgroup").glob(f"**/spectrum-{hand.instance}.*/web/pids.max")
    assert "20\n" in [await path.read_text() async for path in found]


async def test_shutdown_stops_everything_and_revive_brings_the_same_back(hand: Hand, target: ProcessProvider) -> None:
    await hand.web()
    await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)

    assert await target.shutdown() == (hand.instance,)
    assert traces(hand.instance).processes == frozenset()
    assert not (await hand.look("web/container")).running
    await target.supervisors.ended(hand.instance, DEADLINE)

    assert await target.revive() == (hand.instance,)
    seen = await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)
    assert (seen.key, seen.restarts) == ("key.1", 0)
    assert await target.revive() == ()


def waiting_hook(hand: Hand, facts: Facts, folder: Path) -> Hook:
    """It counts its runs in the volume, and ends once somebody writes to the gate. Told to end, it says that all is well."""
    os.mkfifo(folder / "gate")
    (folder / "gate").chmod(0o666)
    text = f"trap 'exit 0' TERM; echo ran >> {facts.roots['web']}/data/runs; read line < {folder / 'gate'}; echo $line"
    return Hook("wait", hand.harness.web(facts), ("sh", "-c", text), timeout=60)


async def open_gate(folder: Path) -> None:
    with anyio.fail_after(DEADLINE):
        async with await anyio.open_file(folder / "gate", "w") as file:
            await file.write("go\n")


@pytest.mark.parametrize("killed", [False, True], ids=["", "and the supervisor is killed meanwhile"])
async def test_a_hook_that_a_shutdown_broke_off_has_not_ended_and_is_run_anew(
    hand: Hand, target: ProcessProvider, killed: bool
) -> None:
    folder = target.folder.parent
    hook = waiting_hook(hand, await hand.ground(), folder)
    await hand.ensure("web/wait", hook)
    runs = target.folder / "instances" / hand.instance / "volumes" / "data" / "runs"
    await eventually(lambda: runs.exists() and runs.read_text() == "ran\n")

    journal = target.folder / "supervisors" / hand.instance / "journal.json"
    async with anyio.create_task_group() as group:
        group.start_soon(target.shutdown)
        await eventually(lambda: '"interrupted":true' in journal.read_text())
        if killed:
            await kill_supervisor(hand)
    down = await hand.look("web/wait")
    await target.supervisors.ended(hand.instance, DEADLINE)
    assert (down.key, down.running, down.exit) == ("key.1", False, None)

    assert await target.revive() == (hand.instance,)
    await open_gate(folder)
    seen = await hand.until("web/wait", lambda seen: seen.exit is not None)
    assert seen.exit is not None
    assert (seen.exit.code, "go" in seen.exit.tail) == (0, True)
    assert await hand.harness.runs(hand.instance) == 2


async def test_a_hook_that_is_run_anew_has_its_whole_time_again(hand: Hand, target: ProcessProvider) -> None:
    folder = target.folder.parent
    await hand.ensure("web/wait", waiting_hook(hand, await hand.ground(), folder))
    journal = target.folder / "supervisors" / hand.instance / "journal.json"

    def began() -> float:
        return float(json.loads(journal.read_text())["slots"]["web/wait"]["began"])

    first = began()
    await target.shutdown()
    await target.revive()
    await eventually(lambda: began() > first)
    await open_gate(folder)


async def test_a_hook_that_outlives_a_shutdown_of_which_the_supervisor_was_killed_is_run_anew(
    hand: Hand, target: ProcessProvider
) -> None:
    facts = await hand.ground()
    told = target.folder / "instances" / hand.instance / "volumes" / "data" / "told"
    end = told.with_name("end")
    text = (
        f"cd {facts.roots['web']}/data; echo ran >> runs; trap 'echo told > told' TERM; "
        "[ $(wc -l < runs) = 1 ] || exit 0; while [ ! -e end ]; do sleep 0.05; done; exit 3"
    )
    service = replace(hand.harness.web(facts), stop_grace=DEADLINE)
    await hand.ensure("web/wait", Hook("wait", service, ("sh", "-c", text), timeout=60))
    runs = told.with_name("runs")
    await eventually(lambda: runs.exists() and runs.read_text() == "ran\n")

    async with anyio.create_task_group() as group:
        group.start_soon(target.shutdown)
        await eventually(told.exists)
        group.cancel_scope.cancel()
    await kill_supervisor(hand)
    assert await target.revive() == (hand.instance,)
    end.touch()

    seen = await hand.until("web/wait", lambda seen: seen.exit is not None)
    assert seen.exit is not None
    assert seen.exit.code == 0
    assert runs.read_text() == "ran\nran\n"


async def test_what_was_started_after_a_shutdown_of_a_stopped_instance_is_found_again(
    hand: Hand, target: ProcessProvider
) -> None:
    await hand.ground()
    assert await target.shutdown() == (hand.instance,)
    await target.supervisors.ended(hand.instance, DEADLINE)
    await target.revive()

    await hand.web()
    await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)
    pid = main_pid(target, hand, "web/container")
    await kill_supervisor(hand)

    await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)
    assert main_pid(target, hand, "web/container") == pid


async def test_what_a_broken_off_shutdown_still_stops_is_revived_all_the_same(
    hand: Hand, target: ProcessProvider
) -> None:
    facts = await hand.ground()
    told = target.folder / "instances" / hand.instance / "volumes" / "data" / "told"
    text = f"cd {told.parent}; trap '[ -e told ] || {{ touch told; read line < gate; }}; exit 0' TERM; while :; do sleep 0.05; done"
    os.mkfifo(told.with_name("gate"))
    told.with_name("gate").chmod(0o666)
    await hand.ensure("web/container", replace(script(text, hand, facts), stop_grace=DEADLINE))

    async with anyio.create_task_group() as group:
        group.start_soon(target.shutdown)
        await eventually(told.exists)
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(target.revive)
        await open_gate(told.parent)

    assert (await hand.until("web/container", lambda seen: seen.running)).key == "key.1"


async def test_an_instance_that_can_not_be_brought_back_or_stopped_keeps_no_other_from_it(
    hand: Hand, target: ProcessProvider
) -> None:
    broken = Hand(hand.harness)
    for each in (broken, hand):
        await each.web()
        await kill_supervisor(each)
    journal = target.folder / "supervisors" / broken.instance / "journal.json"
    whole = journal.read_text()
    journal.write_text(whole.replace('"account"', '"was_account"'))
    try:
        assert await target.revive() == (hand.instance,)
        with pytest.raises(Fault, match=broken.instance):
            await target.shutdown()
        assert not (await hand.look("web/container")).running
    finally:
        journal.write_text(whole)


async def test_a_lost_supervisor_is_revived_without_touching_what_runs(hand: Hand, target: ProcessProvider) -> None:
    await hand.web()
    pid = main_pid(target, hand, "web/container")
    await kill_supervisor(hand)

    assert await target.revive() == (hand.instance,)

    assert len(supervisors(hand)) == 1
    assert main_pid(target, hand, "web/container") == pid


async def test_a_socket_that_a_dying_program_still_holds_is_no_living_supervisor(
    hand: Hand, target: ProcessProvider
) -> None:
    target.supervisors.prepare()
    folder = os.open(target.folder / "sockets", os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(f"/proc/self/fd/{folder}/{hand.instance}")
        os.close(folder)
        held.listen()
        lives = asyncio.create_task(target.supervisors.lives(hand.instance))
        await asyncio.to_thread(select.select, [held], [], [], DEADLINE)
    assert not await lives


async def test_a_purged_instance_leaves_the_host_as_it_was(hand: Hand, target: ProcessProvider) -> None:
    facts = await hand.ground()
    before = traces(hand.instance)
    assert before.ports == {str(facts.ports["web/80"])}
    await hand.ensure("web/container", hand.harness.web(facts))
    await hand.ensure("web/count", hand.harness.count(facts))
    await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)

    await hand.provider.remove(hand.call("instance/base", "key.1"))

    assert await hand.harness.residue(hand.instance) == []
    assert traces(hand.instance) == NOTHING


async def test_what_a_product_gets_wrong_is_invalid_and_named(hand: Hand) -> None:
    facts = await hand.ground()
    service = hand.harness.web(facts)
    wrong = {
        "command-not-found": replace(service, command=("no-such-program",)),
        "no-command": replace(service, command=()),
        "bad-target": replace(service, files=(File("/../../outside", "x"),)),
        "no-such-volume": replace(service, mounts=(replace(service.mounts[0], volume="missing"),)),
    }
    for code, resource in wrong.items():
        with pytest.raises(Fault) as refused:
            await hand.ensure("web/container", resource)

        assert (refused.value.failure.code, refused.value.failure.kind) == (code, "invalid")
        assert (await hand.look("web/container")).presence is Presence.ABSENT

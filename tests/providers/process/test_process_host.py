"""The process target and its neighbours: ordinary users, other targets, ports and folders of the machine."""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from spectrum.core.errors import Fault
from spectrum.core.product.resources import Facts
from spectrum.providers.process import ProcessProvider, interpreters
from spectrum.providers.process.shim import accounts, ports
from spectrum.providers.process.shim.refusals import Refusal
from spectrum.providers.process.supervisors import private_parent
from spectrum.providers.protocol import Presence, SlotHealth
from tests.conformance.hand import Hand
from tests.conformance.harness import process_harness
from tests.providers.process.host import NOTHING, traces

pytestmark = pytest.mark.anyio

NOBODY = 65534
REPOSITORY = Path(__file__).parents[3]
SUPERVISOR = "tests/providers/process/test_process_supervisor.py::test_"
CHOSEN = (
    "process and (late or hook or health or dies or outlive or grandchildren or stolen or revive or leaves or limits)"
)
AS_A_USER = (
    "tests/conformance/test_provider.py",
    SUPERVISOR + "services_outlive_their_supervisor_and_are_found_again",
    SUPERVISOR + "a_call_of_a_stopped_worker_is_refused_when_it_wakes",
    SUPERVISOR + "grandchildren_that_left_their_session_are_ended_too",
    SUPERVISOR + "a_stolen_port_is_told_and_never_counts_as_health",
    SUPERVISOR + "shutdown_stops_everything_and_revive_brings_the_same_back",
    SUPERVISOR + "a_purged_instance_leaves_the_host_as_it_was",
    SUPERVISOR + "limits_hold_or_a_condition_says_that_they_do_not",
)


async def test_everything_holds_for_an_ordinary_user() -> None:
    """The contract again, in a process of a user without any right, and with an interpreter that it may execute."""
    if os.geteuid() != 0:
        pytest.skip("this run is an ordinary user's already")
    packages = Path(sysconfig.get_paths()["purelib"])
    if private_parent(packages) or private_parent(REPOSITORY):
        pytest.skip("other users can't read this clone")
    python = (await interpreters.find(f"=={sys.version_info[0]}.{sys.version_info[1]}.*")).path
    done = await anyio.run_process(
        [
            str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN,
            "--override-ini", "testpaths=", *AS_A_USER,
        ],
        user=NOBODY, group=NOBODY, extra_groups=[NOBODY], cwd=REPOSITORY, check=False, stderr=subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout.decode()[-6000:]


async def test_a_folder_on_the_path_that_may_not_be_entered_hides_no_other_interpreter(tmp_path: Path) -> None:
    packages = Path(sysconfig.get_paths()["purelib"])
    if os.geteuid() == 0 and (private_parent(packages) or private_parent(REPOSITORY)):
        pytest.skip("other users can't read this clone")
    python = (await interpreters.find("")).path
    closed, open_ = tmp_path / "closed", tmp_path / "open"
    for folder in (closed, open_):
        folder.mkdir()
        (folder / "python3").symlink_to(python)
    (open_ / "python3.99").symlink_to(closed / "python3")
    for folder in (*tmp_path.parents[:2], tmp_path):
        folder.chmod(0o755)
    closed.chmod(0)
    user = NOBODY if os.geteuid() == 0 else None
    asked = "import asyncio; from spectrum.providers.process.interpreters import find; asyncio.run(find('>=4'))"

    done = await anyio.run_process(
        [str(python), "-c", asked], cwd=REPOSITORY, check=False, stderr=subprocess.STDOUT,
        env={"PATH": f"{closed}:{open_}", "PYTHONPATH": f"{packages}:src", "PYTHONDONTWRITEBYTECODE": "1"},
        user=user, group=user, extra_groups=None if user is None else [user],
    )  # fmt: skip
    closed.chmod(0o700)

    assert "no Python on this machine fits '>=4'" in done.stdout.decode()


async def test_two_targets_give_one_instance_id_a_life_each() -> None:
    async with process_harness() as first, process_harness() as second:
        one = Hand(first)
        two = Hand(second, instance=one.instance)
        found: list[Facts] = []

        async def start(hand: Hand) -> None:
            service = hand.harness.web(await hand.ground())
            await hand.ensure("web/container", service)
            await hand.until("web/container", lambda seen: seen.health is SlotHealth.HEALTHY)
            facts = (await hand.look("instance/base")).facts
            assert facts is not None
            found.append(facts)

        async with anyio.create_task_group() as group:
            group.start_soon(start, one)
            group.start_soon(start, two)
        await one.provider.remove(one.call("instance/base", "key.1"))

        assert found[0].ports["web/80"] != found[1].ports["web/80"]
        assert (await two.look("web/container")).health is SlotHealth.HEALTHY
        await two.provider.remove(two.call("instance/base", "key.1"))
        assert await first.residue(one.instance) == await second.residue(one.instance) == []
        assert traces(one.instance) == NOTHING


async def test_digests_are_keyed_with_a_secret_of_the_target_that_nobody_else_reads() -> None:
    async with process_harness() as first, process_harness() as second:
        seen = [await Hand(each).ensure("instance/base", each.base) for each in (first, first, second)]
        digests = [each.spec_digest for each in seen]
        assert isinstance(first.provider, ProcessProvider)
        key = first.provider.folder / "digest.key"

        assert digests[0] == digests[1] != digests[2]
        assert (key.stat().st_mode & 0o777, key.stat().st_uid) == (0o600, os.geteuid())


async def test_two_workers_on_one_target_share_its_supervisors(hand: Hand, target: ProcessProvider) -> None:
    other = ProcessProvider(target.folder)
    facts = await hand.ground()

    async with anyio.create_task_group() as group:
        for provider in (target, other):
            for _ in range(3):
                group.start_soon(
                    provider.ensure, hand.call("web/container", "key.1", token=500), hand.harness.web(facts)
                )

    assert len([item for item in await other.inventory() if item.slot == "web/container"]) == 1
    assert (await hand.look("web/container")).running


def test_ports_lie_outside_the_ephemeral_range_and_never_repeat(tmp_path: Path) -> None:
    (tmp_path / "supervisors" / "ins_a").mkdir(parents=True)
    registry = ports.Registry(str(tmp_path), "ins_a", str(tmp_path / "registry"))
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())

    claimed = [registry.claim(f"web/{number}") for number in range(40)]

    assert len(set(claimed)) == 40
    assert not [port for port in claimed if low <= port <= high]


def test_services_whose_search_begins_at_one_port_get_one_each(tmp_path: Path) -> None:
    (tmp_path / "supervisors" / "ins_a").mkdir(parents=True)
    one = ports.Registry(str(tmp_path), "ins_a", str(tmp_path / "registry"))
    port = one.claim("web/80")
    one.release(port)

    assert one.again(port, "db/5432")
    assert one.claim("web/80") != port


def test_a_claim_survives_until_it_is_released_and_is_not_taken_by_others(tmp_path: Path) -> None:
    for name in ("ins_a", "ins_b"):
        (tmp_path / "supervisors" / name).mkdir(parents=True)
    registry = str(tmp_path / "registry")
    first = ports.Registry(str(tmp_path), "ins_a", registry)
    second = ports.Registry(str(tmp_path), "ins_b", registry)
    port = first.claim("hint")

    assert not second.again(port, "hint")
    assert first.again(port, "hint")
    second.release(port)
    assert not second.again(port, "hint")
    first.release(port)
    assert second.again(port, "hint")


def test_a_claim_whose_home_was_deleted_is_taken_over(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    dead = ports.Registry(str(tmp_path / "deleted"), "ins_a", registry)
    port = dead.claim("hint")
    (tmp_path / "home" / "supervisors" / "ins_b").mkdir(parents=True)
    alive = ports.Registry(str(tmp_path / "home"), "ins_b", registry)

    assert alive.again(port, "hint")
    assert json.loads(str((tmp_path / "registry" / str(port)).readlink()))["instance"] == "ins_b"


def test_a_port_that_somebody_uses_is_not_claimed(tmp_path: Path) -> None:
    registry = ports.Registry(str(tmp_path), "ins_a", str(tmp_path / "registry"))
    port = registry.claim("hint")
    registry.release(port)

    with socket.create_server(("127.0.0.1", port)):
        assert registry.claim("hint") != port

    assert not (tmp_path / "registry" / str(port)).is_symlink()


def test_a_registry_that_is_a_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "registry").touch()

    with pytest.raises(Refusal, match="make it a folder with mode 1777"):
        ports.Registry(str(tmp_path), "ins_a", str(tmp_path / "registry")).claim("hint")


async def test_a_folder_that_accounts_cannot_reach_is_refused_with_a_remedy(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's instances run as that user")
    private = tmp_path / "private"
    private.mkdir(mode=0o700)

    with pytest.raises(Fault, match="chmod o\\+x"):
        await ProcessProvider(private / "target").stock((), ())


@pytest.mark.parametrize("url", ["docker:///x", "process://host/x", "process:x", "/x"])
def test_a_url_that_is_not_a_folder_is_refused(url: str) -> None:
    with pytest.raises(Fault, match="process:///folder"):
        ProcessProvider.open(url)


@pytest.mark.parametrize("slot", ["web", "../x/y", "web/", "/web", "a/b/c", ".web/x"])
async def test_a_slot_that_could_leave_its_folder_is_refused(slot: str, hand: Hand) -> None:
    with pytest.raises(Fault, match="bad-slot"):
        await hand.look(slot)


async def test_calls_of_a_deep_folder_reach_its_supervisor(hand: Hand, target: ProcessProvider) -> None:
    deep = ProcessProvider(target.folder.parent / ("deep" * 20) / ("er" * 30) / "target")
    one = Hand(hand.harness)

    seen = await deep.observe(one.call("instance/base", token=0))

    assert seen.presence is Presence.ABSENT
    await deep.supervisors.ended(one.instance, 30)


def test_an_account_is_made_beside_others_that_hold_the_passwd_file_and_removed_without_a_trace() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    names = [f"spi-test{os.urandom(3).hex()}" for _ in range(6)]

    def there() -> set[str]:
        return {entry.pw_name for entry in pwd.getpwall()} | {entry.gr_name for entry in grp.getgrall()}

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda name: accounts.create(name, f"SPECTRUM {name}", "/nonexistent"), names))
        again = list(pool.map(lambda name: accounts.create(name, f"SPECTRUM {name}", "/nonexistent"), names))
    uids = [account and account.uid for account in made]
    assert len(set(uids)) == 6
    assert uids == [account and account.uid for account in again]
    assert set(names) <= there()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: accounts.remove(name, f"SPECTRUM {name}"), names))
    assert not set(names) & there()


def test_an_account_of_somebody_else_is_neither_taken_nor_removed() -> None:
    assert accounts.find("nobody", "SPECTRUM ins_x /srv") is None
    if os.geteuid() == 0:
        assert accounts.create("nobody", "SPECTRUM ins_x /srv", "/nonexistent") is None

    accounts.remove("nobody", "SPECTRUM ins_x /srv")

    assert pwd.getpwnam("nobody")

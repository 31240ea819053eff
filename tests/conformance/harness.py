"""What the provider suite needs from each provider: the provider, resources that it can run, and hands that disturb them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from spectrum.core.ids import InstanceId
from spectrum.core.product.resources import (
    Base,
    Facts,
    HealthCheck,
    Hook,
    Mount,
    PortRequest,
    RestartPolicy,
    Service,
    Volume,
)
from spectrum.providers.process import ProcessProvider, interpreters
from spectrum.providers.protocol import Call, Provider


@dataclass(frozen=True)
class Harness:
    """One provider under test. `web` is a service with a health check that is restarted when it fails; `count` a hook
    that leaves one line of output and exit code 3 per run, and counts its runs in the volume.

    `sicken` makes the health check of `web` fail from now on; `kill` ends its process from outside; `runs` answers how
    often the hook has run; `residue` what of the instance is left on the target, the fence record aside.
    """

    provider: Provider
    base: Base
    volume: Volume
    web: Callable[[Facts], Service]
    count: Callable[[Facts], Hook]
    sicken: Callable[[InstanceId], Awaitable[None]]
    kill: Callable[[InstanceId], Awaitable[None]]
    runs: Callable[[InstanceId], Awaitable[int]]
    residue: Callable[[InstanceId], Awaitable[list[str]]]


PORT = PortRequest("web", 80, public=True)
BASE = Base("acme", ports=(PORT,), services=("web",))
DATA = Volume("data")

SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    client, _ = listener.accept()
    client.sendall(b"here")
    client.close()
"""


def web(facts: Facts, python: str) -> Service:
    root = facts.roots["web"]
    return Service(
        "web",
        (python, "-I", "-S", "-c", SERVER, str(facts.ports["web/80"])),
        environment={"GREETING": "hello"},
        mounts=(Mount("data", "/data"),),
        ports=(PORT,),
        restart=RestartPolicy.ALWAYS,
        health=HealthCheck(("sh", "-c", f"test ! -e {root}/sick"), interval=0.2, timeout=5, retries=2),
        stop_grace=5,
    )


def count(facts: Facts, python: str) -> Hook:
    command = ("sh", "-c", f"echo ran >> {facts.roots['web']}/data/runs; echo counted; exit 3")
    return Hook("count", web(facts, python), command, timeout=30)


@asynccontextmanager
async def reachable_folder() -> AsyncIterator[Path]:
    """A folder that accounts of instances can reach; those of pytest are private."""
    folder = Path(tempfile.mkdtemp(prefix="spectrum-test-", dir="/tmp"))
    await anyio.Path(folder).chmod(0o711)
    try:
        yield folder
    finally:
        await _remove(folder)


async def _remove(folder: Path) -> None:
    """A supervisor that has nothing to do any more may still be writing its last lines."""
    with anyio.fail_after(30):
        while await anyio.Path(folder).exists():
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
            await anyio.sleep(0.05)


async def purge(provider: ProcessProvider) -> None:
    for instance in {item.instance for item in await provider.inventory()}:
        await provider.remove(Call(instance, "instance/base", "", 2**50, 2**50))
    for lock in (provider.folder / "fences").glob("*.lock"):
        await provider.supervisors.ended(lock.stem, 30)


@asynccontextmanager
async def process_harness() -> AsyncIterator[Harness]:
    python = str((await interpreters.find("")).path)
    async with reachable_folder() as folder:
        provider = ProcessProvider.open(f"process://{folder}/target")
        target = provider.folder

        async def sicken(instance: InstanceId) -> None:
            (target / "instances" / instance / "roots" / "web" / "sick").touch()

        async def kill(instance: InstanceId) -> None:
            main = target / "supervisors" / instance / "units" / "web~container" / "main"
            os.kill(int(main.read_text().split()[0]), signal.SIGKILL)

        async def runs(instance: InstanceId) -> int:
            return len((target / "instances" / instance / "volumes" / "data" / "runs").read_text().splitlines())

        async def residue(instance: InstanceId) -> list[str]:
            await provider.supervisors.ended(instance, 30)
            return [str(path) for path in target.rglob(f"*{instance}*") if path.parent != target / "fences"]

        yield Harness(
            provider,
            BASE,
            DATA,
            lambda facts: web(facts, python),
            lambda facts: count(facts, python),
            sicken,
            kill,
            runs,
            residue,
        )
        await purge(provider)


HARNESSES: dict[str, Callable[[], AbstractAsyncContextManager[Harness]]] = {
    "process": process_harness,
}

"""The ground that is no twin: the process provider, its supervisors, files, accounts and ports, behind the faults of the harness.

The world's time is virtual, and stands still while the machine does what a call asks for. What goes on by itself there, such as a
hook that runs or a service that is about to be healthy, is waited for by whoever sees it a second time.
"""

from __future__ import annotations

import binascii
import contextlib
import os
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from sim.system import SimRenderer
from sim.twins.faults import Faults
from sim.twins.provider import Act, MemoryProvider, MemoryTarget
from sim.twins.things import Script, Thing, now
from spectrum.core.errors import ErrorClass, Fault, StaleFence
from spectrum.core.ids import InstanceId
from spectrum.core.jobs.model import Spec
from spectrum.core.product.resources import (
    Base,
    Facts,
    File,
    HealthCheck,
    Hook,
    Mount,
    PortRequest,
    RestartPolicy,
    Service,
    Volume,
)
from spectrum.operations.context import Answer
from spectrum.operations.steps import BASE
from spectrum.providers.process import ProcessProvider, interpreters
from spectrum.providers.protocol import Call, Observed, Presence, Resource, SlotHealth, Strength
from spectrum.worker.context import Holder
from tests.conformance.harness import purge
from tests.providers.process.host import NOTHING, command_lines, environments, traces
from tests.sagas.stage import INSTANCE, Ground

T = TypeVar("T")

PATIENCE = 30.0  # seconds until what is in motion is taken to stand still
LOOK_SECONDS = 0.02
SERVER = Path(__file__).parents[1] / "products" / "hello" / "server.py"
PORTS = (PortRequest("db", 80, public=False), PortRequest("web", 80, public=True))


# ---- the target


@dataclass(slots=True, kw_only=True)
class ProcessTarget(MemoryTarget):
    """A process target in the place of the twin: `things` and `ledger` say what its own inventory says."""

    provider: ProcessProvider
    portal: BlockingPortal
    _seen_moving: dict[str, object] = field(default_factory=dict)

    def connect(self) -> MemoryProvider:
        return Connection(self)

    def have(self, call: Call, done: Callable[[], Awaitable[T]]) -> T:
        """What the machine answers. Whatever has changed on it meanwhile was the doing of this call."""
        self._record(Act.ARRIVED, call)
        try:
            return self.portal.call(done)
        except StaleFence:
            self._record(Act.REFUSED, call)
            raise
        finally:
            self._take_stock(call)

    def _take_stock(self, call: Call) -> None:
        items = {(item.slot, item.key): item for item in self.portal.call(self.provider.inventory)}
        for thing in [each for each in self.things.values() if (each.call.slot, each.call.key) not in items]:
            self._take_away(thing, Act.REMOVED, call)
        known = {(thing.call.slot, thing.call.key) for thing in self.things.values()}
        for slot, key in items.keys() - known:
            made = Call(call.instance, slot, key, call.fence, items[slot, key].token)
            self._count += 1
            # What it is, the machine knows; here it is enough that it is there.
            self.things[self._count] = Thing(self._count, made, Volume(slot), now(), Script())
            self._record(Act.MADE, call)

    async def moved(self, name: str, look: Callable[[], Awaitable[tuple[Observed, ...]]]) -> tuple[Observed, ...]:
        """What there is; where the same was in motion at the last look of this name, what there is once it has moved."""
        before = self._seen_moving.get(name)
        with anyio.move_on_after(PATIENCE):
            while (moving := _moving(seen := await look())) and moving == before:  # noqa: ASYNC110 - a target has no events
                await anyio.sleep(LOOK_SECONDS)
        self._seen_moving[name] = moving
        return seen


def _moving(seen: tuple[Observed, ...]) -> list[tuple[str, str]]:
    starting = [each for each in seen if each.running and each.health is SlotHealth.STARTING]
    hooks = [each for each in seen if each.running and each.health is SlotHealth.UNKNOWN and each.exit is None]
    return [(each.slot, each.key) for each in (*starting, *hooks)]


class Connection(MemoryProvider):
    """One worker's connection to the process target."""

    kind = "process"
    target: ProcessTarget

    async def observe(self, call: Call) -> Observed:
        blind = self.target.faults.strikes("provider.observe undecidable")

        async def look() -> tuple[Observed, ...]:
            return (await self.target.provider.observe(call),)

        name = f"{call.slot} under {call.fence}"
        (seen,) = await self._call("observe", lambda: self._have(call, lambda: self.target.moved(name, look)))
        return Observed(call.slot, Presence.UNKNOWN) if blind else seen

    async def survey(self, instance: InstanceId, fence: int) -> tuple[Observed, ...]:
        def look() -> Awaitable[tuple[Observed, ...]]:
            return self.target.provider.survey(instance, fence)

        call, name = Call(instance, "", "", fence), f"all under {fence}"
        return await self._call("survey", lambda: self._have(call, lambda: self.target.moved(name, look)))

    async def ensure(self, call: Call, resource: Resource, replaces: frozenset[str] = frozenset()) -> Observed:
        provider = self.target.provider
        return await self._call("ensure", lambda: self._have(call, lambda: provider.ensure(call, resource, replaces)))

    async def remove(self, call: Call) -> Observed:
        return await self._call("remove", lambda: self._have(call, lambda: self.target.provider.remove(call)))

    def _have(self, call: Call, done: Callable[[], Awaitable[T]]) -> T:
        return self.target.have(call, done)


# ---- the product


class HelloTwice(SimRenderer):
    """The sagas' product, of the server of `hello`: `db` on a volume, `web` that says who it is, a hook that takes a moment."""

    def __init__(self, python: str) -> None:
        self._python = python

    async def resource(self, holder: Holder, slot: str, spec: Spec) -> Resource:
        name, role = slot.split("/")
        match role:
            case "base":
                return Base(holder.instance.name, PORTS, ("db", "web"))
            case "volume":
                return Volume(name)
            case "container":
                return self._service(name, await _facts(holder), holder.instance.id)
            case _:
                service = self._service(name, await _facts(holder), holder.instance.id)
                return Hook(role, service, ("sh", "-c", "sleep 0.1; echo migrated"), 60.0)

    async def ask(self, holder: Holder, spec: Spec, endpoint: str) -> Answer:
        return _ask((await _facts(holder)).addresses["web/80"], holder.instance.id)

    def _service(self, name: str, facts: Facts, identity: str) -> Service:
        root, port = facts.roots[name], str(facts.ports[f"{name}/80"])
        files = {"/server.py": SERVER.read_text(), "/www/identity": identity, "/www/healthz": "ok\n"}
        return Service(
            name,
            (self._python, "-I", "-S", f"{root}/server.py", facts.binds[name], port, f"{root}/www"),
            files=tuple(File(target, content) for target, content in files.items()),
            mounts=(Mount("data", "/data"),) if name == "db" else (),
            ports=tuple(each for each in PORTS if each.service == name),
            restart=RestartPolicy.ALWAYS,
            health=HealthCheck(("test", "-e", f"{root}/www/healthz"), interval=60.0, start_period=30.0),
            stop_grace=5.0,
        )


def _ask(address: str, identity: str) -> Answer:
    """Whether it is the instance that answers there. The world's time stands still meanwhile."""
    try:
        with urllib.request.urlopen(f"http://{address}/identity", timeout=5) as response:
            said, status = response.read().decode(), response.status
    except OSError as error:
        return Answer(0, problem=f"{address} does not answer: {error}")
    return Answer(status) if said == identity else Answer(0, problem=f"{said!r} answers there")


async def _facts(holder: Holder) -> Facts:
    base = await holder.provider.observe(Call(holder.instance.id, BASE, "", holder.job.fence))
    if base.facts is None:
        raise Fault(ErrorClass.CONFLICT, "no-base", "The instance has no base on its target.")
    return base.facts


# ---- the machine


@dataclass
class Machine:
    """This machine, with a target folder of its own for one saga."""

    folder: Path
    portal: BlockingPortal
    python: str
    targets: list[ProcessTarget] = field(default_factory=list)

    def ground(self) -> Ground:
        return Ground(self._place, HelloTwice(self.python))

    def _place(self, faults: Faults, strength: Strength) -> MemoryTarget:
        provider = ProcessProvider(self.folder / "target")
        self.targets.append(ProcessTarget(faults, strength, provider=provider, portal=self.portal))
        return self.targets[-1]

    def require_as_told(self) -> None:
        """What runs is what the target says that it holds; and once that is purged, this machine is as it was."""
        (target,) = self.targets
        held = {thing.call.slot for thing in target.things.values()}
        assert self._running() == {slot for slot in held if slot.endswith("/container")}
        if not held:
            self._require_nothing(target.provider)
        self.portal.call(purge, target.provider)
        self._require_nothing(target.provider)

    def _require_nothing(self, provider: ProcessProvider) -> None:
        self.portal.call(provider.supervisors.ended, INSTANCE, PATIENCE)
        assert traces(self._mark, str(self.folder)) == NOTHING
        left = [path for path in provider.folder.rglob(f"*{INSTANCE}*") if path.parent.name != "fences"]
        assert left == []

    def _running(self) -> set[str]:
        """The slots that processes of this machine are marked with."""
        mark = re.compile(rf"INSTANCE_UNIT={re.escape(self._mark)}/([^\0]+)")
        return {found[1] for pid in command_lines() if (found := mark.search(environments(pid)))}

    @property
    def _mark(self) -> str:
        """The instance on this target: its id is the same in every saga."""
        return f"{INSTANCE}.{binascii.crc32(os.fsencode(self.folder / 'target')):08x}"


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    # Accounts of instances can't reach the folders of pytest.
    folder = Path(tempfile.mkdtemp(prefix="spectrum-saga-", dir="/tmp"))
    folder.chmod(0o711)
    with start_blocking_portal("asyncio") as portal:
        made = Machine(folder, portal, str(portal.call(interpreters.find, "").path))
        try:
            yield made
        finally:
            for target in made.targets:
                portal.call(purge, target.provider)
            shutil.rmtree(folder)

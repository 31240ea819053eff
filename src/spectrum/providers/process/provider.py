"""The provider contract on plain processes: it asks the instance's own supervisor, which alone checks and acts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog

from spectrum.core.errors import ErrorClass, Fault, StaleFence
from spectrum.core.ids import InstanceId
from spectrum.core.product.resources import Artifact, Hook, Service
from spectrum.providers.process.artifacts import ArtifactStore
from spectrum.providers.process.supervisors import Supervisors
from spectrum.providers.process.wire import log_line_from_json, observed_from_json, resource_to_json
from spectrum.providers.protocol import Call, Item, LogLine, Observed, Resource, Strength, digest_of

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")
OBSERVE_SECONDS = 120.0  # an observation waits for a call that acts on its slot, a graceful stop for instance
ACT_SECONDS = 900.0
AT_ONCE = 8  # instances that are started or stopped side by side

_log = structlog.get_logger(__name__)


class ProcessProvider:
    """One target: a folder. Atomic: fence, token and act are one under the supervisor's lock.

    As root every instance gets a system account of its own; else it runs as the user, and its base says so in a condition.
    """

    kind = "process"
    strength = Strength.ATOMIC
    settle = 2.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.supervisors = Supervisors(self.folder)
        self.artifacts = ArtifactStore(self.folder / "artifacts")

    @classmethod
    def open(cls, url: str) -> ProcessProvider:
        """From `process:///folder`. Raises Fault (invalid) for anything else."""
        parts = urlsplit(url)
        if parts.scheme != "process" or parts.netloc or not parts.path.startswith("/"):
            raise Fault(ErrorClass.INVALID, "bad-target-url", f"{url!r} is not of the form process:///folder")
        return cls(Path(unquote(parts.path)))

    async def stock(self, artifacts: tuple[Artifact, ...], images: tuple[str, ...]) -> None:
        """Images mean nothing here: a process needs artifacts."""
        self.supervisors.prepare()
        for artifact in artifacts:
            await self.artifacts.stock(artifact)

    async def observe(self, call: Call) -> Observed:
        order = {"do": "observe", "slot": _slot(call.slot), "fence": call.fence}
        return observed_from_json(await self._ask(call.instance, order, OBSERVE_SECONDS))

    async def survey(self, instance: InstanceId, fence: int) -> tuple[Observed, ...]:
        seen = await self._ask(instance, {"do": "survey", "fence": fence}, OBSERVE_SECONDS)
        return tuple(observed_from_json(slot) for slot in seen)

    async def ensure(self, call: Call, resource: Resource, replaces: frozenset[str] = frozenset()) -> Observed:
        kind, members = resource_to_json(resource, await self._artifacts(resource))
        order = {
            "do": "ensure",
            "kind": kind,
            "resource": members,
            "digest": digest_of(resource, self.supervisors.key()),
            "replaces": sorted(replaces),
            **_right(call),
        }
        return observed_from_json(await self._ask(call.instance, order, ACT_SECONDS))

    async def _artifacts(self, resource: Resource) -> dict[str, tuple[str, ...]]:
        """Digest and PATH folders of what the service runs on; made here where the target lost it."""
        match resource:
            case Service():
                service = resource
            case Hook():
                service = resource.service
            case _:
                return {}
        found = {}
        for artifact in service.artifacts:
            root = await self.artifacts.stock(artifact)
            found[root.name] = self.artifacts.path_folders(artifact, root)
        return found

    async def remove(self, call: Call) -> Observed:
        return observed_from_json(await self._ask(call.instance, {"do": "remove", **_right(call)}, ACT_SECONDS))

    async def inventory(self) -> tuple[Item, ...]:
        journals = await asyncio.to_thread(self.supervisors.journals)
        items = []
        for name, journal in journals.items():
            instance = InstanceId(name)
            slots = journal.get("slots") or {"instance/base": {"key": "", "token": 0}}
            items += [Item(instance, slot, record["key"], record["token"]) for slot, record in slots.items()]
        return tuple(items)

    async def logs(
        self, instance: InstanceId, service: str | None, since: datetime | None, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """Nothing for an instance that has nothing here. Lines of a hook carry `service/hook`; a service's include its hooks'."""
        if not (self.folder / "supervisors" / _instance(instance) / "journal.json").exists():
            return
        await self.supervisors.reach(instance)
        order = {
            "do": "logs",
            "service": service or "",
            "since": since.timestamp() if since is not None else 0.0,
            "tail": tail,
            "follow": follow,
        }
        async with self.supervisors.connect(instance) as (reader, writer):
            writer.write(json.dumps(order).encode() + b"\n")
            while (line := await reader.readline()) not in (b"", b"{}\n"):
                yield log_line_from_json(json.loads(line))

    async def close(self) -> None:
        """Nothing is held open between calls."""

    async def revive(self) -> tuple[InstanceId, ...]:
        """Start the supervisors that are missing, after a reboot or `shutdown`, and with them all that is wanted running.

        Answers the instances that it started. One that can't be is left out, and keeps no other from it (P19).
        """
        gate = asyncio.Semaphore(AT_ONCE)
        journals = await asyncio.to_thread(self.supervisors.journals)
        down = {name for name, journal in journals.items() if journal.get("down")}

        async def one(name: str) -> InstanceId | None:
            async with gate:
                # The supervisor of one that is down may live because the shutdown was broken off, and goes on with it.
                if name not in down and await self.supervisors.lives(name):
                    return None
                try:
                    await self._ask(InstanceId(name), {"do": "revive"}, OBSERVE_SECONDS)
                except (Fault, StaleFence) as problem:
                    _log.warning("instance not revived", instance_id=name, problem=str(problem))
                    return None
                return InstanceId(name)

        started = await asyncio.gather(*(one(name) for name in sorted(_with_units(journals) | down)))
        return tuple(name for name in started if name is not None)

    async def shutdown(self) -> tuple[InstanceId, ...]:
        """Stop every instance gracefully, keep its data and what is wanted of it, and end its supervisor; `revive` undoes it.

        Answers the instances that it stopped. Raises what kept it from stopping one, after all others were stopped.
        """
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> InstanceId:
            async with gate:
                await self._ask(InstanceId(name), {"do": "shut_down"}, ACT_SECONDS)
                await self.supervisors.ended(name, OBSERVE_SECONDS)
                return InstanceId(name)

        journals = await asyncio.to_thread(self.supervisors.journals)
        living = {name for name in journals if await self.supervisors.lives(name)}
        names = sorted(_with_units(journals) | living)
        ended = await asyncio.gather(*(one(name) for name in names), return_exceptions=True)
        for each in ended:
            if isinstance(each, BaseException):
                raise each
        return tuple(InstanceId(name) for name in names)

    async def sweep_artifacts(self) -> tuple[str, ...]:
        """Remove artifacts that no instance's journal names and that were not asked for lately. Answers what was removed."""
        journals = await asyncio.to_thread(self.supervisors.journals)
        records = [record for journal in journals.values() for record in journal.get("slots", {}).values()]
        return await self.artifacts.sweep({digest for record in records for digest in record.get("artifacts", ())})

    async def _ask(self, instance: InstanceId, order: dict[str, Any], timeout: float) -> Any:
        name = _instance(instance)
        self.supervisors.prepare()
        return await self.supervisors.call(name, order, timeout)


def _with_units(journals: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Instances of which something is wanted running."""
    return {
        name
        for name, journal in journals.items()
        if any(record.get("ended") is False for record in journal.get("slots", {}).values())
    }


def _right(call: Call) -> dict[str, Any]:
    return {"slot": _slot(call.slot), "key": call.key, "fence": call.fence, "token": call.token}


def _instance(instance: str) -> str:
    if not SAFE_NAME.fullmatch(instance):
        raise Fault(ErrorClass.INVALID, "bad-instance", f"{instance!r} is not an instance id")
    return instance


def _slot(slot: str) -> str:
    service, separator, role = slot.partition("/")
    if not separator or not SAFE_NAME.fullmatch(service) or not SAFE_NAME.fullmatch(role):
        raise Fault(ErrorClass.INVALID, "bad-slot", f"{slot!r} is not of the form service/role")
    return slot

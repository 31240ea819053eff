"""From a release to the resources of one instance: documents are fetched once, secrets at use, and rendering itself is pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from spectrum.core.errors import ErrorClass, Fault
from spectrum.core.jobs.model import Spec
from spectrum.core.observation import Observed, Presence, SlotHealth
from spectrum.core.product.facts import Instance as Named
from spectrum.core.product.release import Release, TargetKind
from spectrum.core.product.render import (
    Rendered,
    artifacts_of,
    render,
    render_base,
    render_volumes,
)
from spectrum.operations.context import Answer
from spectrum.operations.steps import BASE
from spectrum.providers.protocol import Call, Provider, Resource
from spectrum.transports.protocol import JobRef, Link
from spectrum.worker.context import Holder

KEPT_RELEASES = 64
ASK_SECONDS = 5.0


@dataclass
class ReleaseRenderer:
    """Renders what the control plane knows of an instance (implements `worker.context.Renderer`)."""

    link: Link
    http: httpx2.AsyncClient
    _releases: OrderedDict[str, Release] = field(default_factory=OrderedDict)

    async def resource(self, holder: Holder, slot: str, spec: Spec) -> Resource:
        release, kind = await self._release(holder, spec), _kind(holder)
        name, _, role = slot.partition("/")
        if slot == BASE:
            return render_base(release, kind, _named(holder))
        if role == "volume":
            return render_volumes(release, kind)[name]
        rendered = await self._rendered(holder, spec, release)
        return rendered.services[name] if role == "container" else rendered.hooks[role]

    async def stock(self, holder: Holder, spec: Spec, provider: Provider) -> None:
        release = await self._release(holder, spec)
        await provider.stock(artifacts_of(release, _kind(holder)), release.images)

    async def ask(self, holder: Holder, spec: Spec, endpoint: str) -> Answer:
        rendered = await self._rendered(holder, spec, await self._release(holder, spec))
        found = next(each for each in rendered.endpoints if each.name == endpoint)
        return await answer_of(self.http, found.health_url)

    async def describe(self, holder: Holder, spec: Spec, seen: Mapping[str, Observed]) -> Mapping[str, Any]:
        rendered = await self._rendered(holder, spec, await self._release(holder, spec))
        endpoints = [{"name": e.name, "url": e.url, "primary": e.primary} for e in rendered.endpoints]
        values = {output.name: {"value": output.value, "audience": output.audience} for output in rendered.outputs}
        services = [service_state(name, seen.get(f"{name}/container")) for name in sorted(rendered.services)]
        return {"outputs": {"values": values, "endpoints": endpoints}, "services": services}

    async def secrets(self, holder: Holder) -> tuple[str, ...]:
        return tuple((await self.link.secrets(holder.incarnation, _ref(holder))).values())

    # ---- what rendering needs

    async def _rendered(self, holder: Holder, spec: Spec, release: Release) -> Rendered:
        base = await holder.provider.observe(Call(holder.instance.id, BASE, "", holder.job.fence))
        if base.facts is None:
            raise Fault(ErrorClass.CONFLICT, "no-base", "The instance has no base on its target.")
        secrets = await self.link.secrets(holder.incarnation, _ref(holder))
        parameters = {**spec.parameters, **secrets}
        return render(release, spec.plan, parameters, base.facts, _kind(holder), _named(holder))

    async def _release(self, holder: Holder, spec: Spec) -> Release:
        if (kept := self._releases.get(spec.release_id)) is not None:
            self._releases.move_to_end(spec.release_id)
            return kept
        document = await self.link.release_document(holder.incarnation, _ref(holder), spec.release_id)
        release = self._releases[spec.release_id] = Release(document)
        if len(self._releases) > KEPT_RELEASES:
            self._releases.popitem(last=False)
        return release


async def answer_of(http: httpx2.AsyncClient, url: str) -> Answer:
    """What a GET is answered. The body is not read: it may be of any length, and that of one instance is memory of all (P19)."""
    try:
        async with http.stream("GET", url, timeout=ASK_SECONDS, follow_redirects=False) as response:
            return Answer(response.status_code)
    except httpx2.HTTPError as error:
        return Answer(0, problem=f"{url} does not answer ({str(error) or type(error).__name__})")


def _kind(holder: Holder) -> TargetKind:
    return TargetKind(holder.provider.kind)


def _named(holder: Holder) -> Named:
    return Named(holder.instance.name, holder.instance.id)


def _ref(holder: Holder) -> JobRef:
    return JobRef(holder.job.organization_id, holder.instance.id, holder.job.id, holder.job.fence)


def service_state(name: str, seen: Observed | None) -> Mapping[str, Any]:
    """A service as the instance's record shows it (INTERFACES §2)."""
    if seen is None or seen.presence is not Presence.PRESENT:
        return {"name": name, "state": "stopped", "health": "unknown", "restarts": 0, "ports": {}}
    completed = seen.ended and seen.exit is not None and seen.exit.code == 0
    ended = "completed" if completed else "exited" if seen.exit is not None else "starting"
    state = "running" if seen.running else ended
    health = "unknown" if seen.health is SlotHealth.STARTING or state == "completed" else seen.health.value
    return {
        "name": name,
        "state": state,
        "health": health,
        "restarts": seen.restarts,
        "ports": {port.rpartition("/")[2]: given for port, given in seen.ports.items()},
    }

"""The context of one attempt: what a step asks for becomes provider calls under the step's key, fence and token."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from opentelemetry.trace import SpanKind

from spectrum import tracing
from spectrum.core.jobs.model import Instance, Job, Spec, Step
from spectrum.core.observation import Observed
from spectrum.operations.context import Answer, GivenUp
from spectrum.ports import Clock
from spectrum.providers.protocol import Call, Provider, Resource
from spectrum.transports.protocol import Incarnation


class Renderer(Protocol):
    """Turns a release into the resources of one instance (pure inside; fetches documents and secrets at use)."""

    async def resource(self, holder: Holder, slot: str, spec: Spec) -> Resource:
        """What the slot is to hold under this spec."""

    async def stock(self, holder: Holder, spec: Spec, provider: Provider) -> None:
        """Make ready on the target what the release needs."""

    async def ask(self, holder: Holder, spec: Spec, endpoint: str) -> Answer:
        """Ask a public endpoint at its health path."""

    async def secrets(self, holder: Holder) -> tuple[str, ...]:
        """The values of the instance's secrets, to be kept out of what is told of it."""

    async def describe(self, holder: Holder, spec: Spec, seen: Mapping[str, Observed]) -> Mapping[str, Any]:
        """Endpoints, outputs and services for the instance's record."""


class Holder(Protocol):
    """The holder of a job, as an attempt sees it."""

    job: Job
    instance: Instance
    provider: Provider
    renderer: Renderer
    clock: Clock
    absent: frozenset[tuple[str, str]]

    @property
    def incarnation(self) -> Incarnation:
        """The incarnation whose lease holds the job."""

    @property
    def giving_up(self) -> bool:
        """The job is to be cancelled, or is lost."""

    async def right(self) -> None:
        """Return once a new effect may be begun: the lease can't have lapsed (DESIGN §3.6)."""


@dataclass(frozen=True)
class StepContext:
    """One attempt at one step (implements `operations.context.Context`)."""

    holder: Holder
    step: Step

    @property
    def job(self) -> Job:
        return self.holder.job

    @property
    def instance(self) -> Instance:
        return self.holder.instance

    @property
    def spec(self) -> Spec:
        """What the job works towards."""
        return self.job.spec or self.instance.accepted or self.instance.requested

    async def stock(self) -> None:
        await self.holder.right()
        with self._calling("stock"):
            await self.holder.renderer.stock(self.holder, self.spec, self.holder.provider)

    async def ensure(self) -> Observed:
        return await self._ensure(self.step.effect_key or "", self.spec)

    async def remove(self) -> Observed:
        await self.holder.right()
        with self._calling("remove"):
            return await self.holder.provider.remove(self._call(self.step.effect_key or ""))

    async def restore(self) -> Observed:
        before = self.job.baseline.get(self._slot)
        if before is None:
            return await self.remove()
        return await self._ensure(before, self.instance.accepted or self.spec)

    async def look(self, slot: str) -> Observed:
        with self._calling("observe"):
            return await self.holder.provider.observe(Call(self.instance.id, slot, "", self.job.fence))

    async def survey(self) -> Mapping[str, Observed]:
        with self._calling("survey"):
            seen = await self.holder.provider.survey(self.instance.id, self.job.fence)
        return {each.slot: each for each in seen}

    async def ask(self, endpoint: str) -> Answer:
        return await self.holder.renderer.ask(self.holder, self.spec, endpoint)

    async def describe(self) -> Mapping[str, Any]:
        return await self.holder.renderer.describe(self.holder, self.spec, await self.survey())

    async def pause(self, seconds: float) -> None:
        if self.holder.giving_up:
            raise GivenUp
        await self.holder.clock.sleep(seconds)
        if self.holder.giving_up:
            raise GivenUp

    @property
    def _slot(self) -> str:
        if self.step.slot is None:
            raise ValueError(f"step {self.step.name} has no slot")
        return self.step.slot

    def _call(self, key: str) -> Call:
        return Call(self.instance.id, self._slot, key, self.job.fence, self.step.token)

    async def _ensure(self, key: str, spec: Spec) -> Observed:
        resource = await self.holder.renderer.resource(self.holder, self._slot, spec)
        replaces = {absent for slot, absent in self.holder.absent if slot == self._slot} - {key}
        await self.holder.right()
        with self._calling("ensure"):
            return await self.holder.provider.ensure(self._call(key), resource, frozenset(replaces))

    def _calling(self, what: str) -> AbstractContextManager[tracing.Noted]:
        about = {"spectrum.target": self.holder.provider.kind}
        if self.step.slot is not None:
            about["spectrum.slot"] = self.step.slot
        return tracing.span(f"target {what}", kind=SpanKind.CLIENT, about=about)

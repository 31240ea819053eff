"""The holder of a job, as a provider sees it: calls on one instance, with a fence and ever growing tokens."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import anyio

from spectrum.core.ids import InstanceId, make
from spectrum.core.product.resources import Facts, Service
from spectrum.providers.protocol import Call, Observed, Provider, Resource
from tests.conformance.harness import Harness

DEADLINE = 30.0  # seconds; nothing here takes long unless it never happens


@dataclass
class Hand:
    """One instance, seen by a holder: calls with its fence and ever growing tokens."""

    harness: Harness
    instance: InstanceId = field(default_factory=lambda: InstanceId(make("ins", datetime.now(UTC), os.urandom(10))))
    fence: int = 10
    tokens: itertools.count[int] = field(default_factory=lambda: itertools.count(11))

    @property
    def provider(self) -> Provider:
        return self.harness.provider

    def call(self, slot: str, key: str = "", fence: int | None = None, token: int | None = None) -> Call:
        fence = self.fence if fence is None else fence
        return Call(self.instance, slot, key, fence, next(self.tokens) if token is None else token)

    async def look(self, slot: str) -> Observed:
        return await self.provider.observe(self.call(slot, token=0))

    async def ensure(self, slot: str, resource: Resource, key: str = "key.1") -> Observed:
        return await self.provider.ensure(self.call(slot, key), resource)

    async def base(self) -> Facts:
        facts = (await self.ensure("instance/base", self.harness.base)).facts
        assert facts is not None
        return facts

    async def ground(self) -> Facts:
        facts = await self.base()
        await self.ensure("data/volume", self.harness.volume)
        return facts

    async def web(self) -> Service:
        service = self.harness.web(await self.ground())
        await self.ensure("web/container", service)
        return service

    async def until(self, slot: str, wanted: Callable[[Observed], bool]) -> Observed:
        with anyio.fail_after(DEADLINE):
            while not wanted(seen := await self.look(slot)):  # noqa: ASYNC110 - a provider has no events to wait for
                await anyio.sleep(0.02)
        return seen

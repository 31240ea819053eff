"""Which instance is looked at when: due looks go out with a worker's poll, their findings come back as commands (DESIGN §3.16)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from spectrum.control.engine import Engine
from spectrum.core.errors import Problem
from spectrum.core.ids import InstanceId, OrganizationId, PoolId
from spectrum.core.jobs.commands import Done, Observe
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import look_up, visiting
from spectrum.ports import Entropy
from spectrum.transports.protocol import Look, Sighting

BATCH = 32  # instances in one answer to a poll
SELDOM = 30  # intervals between two looks at a stopped instance: a look may have to start what answers it
JITTER = 0.1  # of the interval, either way: what became due together drifts apart

_DUE = query("watches_due")
_NEXT = query("watches_next")
_OVER = query("watches_over")
_LOOKS = query("looks")
_OF_POOL = query("instances_of_pool")


@dataclass
class Watch:
    """Spreads looks: each instance about once an interval (seconds), by one worker of its pool."""

    system: Pool
    engine_pool: Pool
    engine: Engine
    entropy: Entropy
    interval: float

    async def due(self, pool_id: PoolId, room: int, now: datetime) -> tuple[Look, ...]:
        """Looks that are due, `room` at most. They are nobody else's for about an interval, whatever becomes of them here."""
        if room <= 0:
            return ()
        spread = 1.0 + JITTER * (2.0 * self.entropy.uniform() - 1.0)
        again = now + timedelta(seconds=self.interval * spread)
        taken = await look_up(self.system, _DUE, pool_id, now, min(room, BATCH), again)
        if not taken:
            return ()
        ids = sorted(row["instance_id"] for row in taken)
        async with visiting(self.engine_pool, sorted({row["organization_id"] for row in taken})) as connection:
            found = await connection.fetch(_LOOKS, ids, now - timedelta(seconds=SELDOM * self.interval))
        if len(found) < len(ids):
            await self._forget_purged(ids)
        return tuple(Look(row["id"], row["url"], row["counter"], row["generation"], now) for row in found)

    async def _forget_purged(self, ids: Sequence[str]) -> None:
        await look_up(self.system, _OVER, ids)

    async def pause(self, pool_id: PoolId, now: datetime) -> float:
        """Seconds until a look of the pool is due; a little longer, so that not everybody comes at once."""
        [[moment]] = await look_up(self.system, _NEXT, pool_id)
        left = (moment - now).total_seconds() if moment is not None else self.interval
        return float(max(0.0, left) + JITTER * self.interval * self.entropy.uniform())

    async def seen(self, pool_id: PoolId, actor: str, sightings: Sequence[Sighting]) -> int:
        """Take over what looks found; how many of them still told something new.

        Raises Problem `forbidden` for an instance that is not of the pool, and `unavailable`.
        """
        owners = await self._owners(pool_id, {each.look.instance_id for each in sightings})
        commands = [observe(each, owners[each.look.instance_id], actor) for each in sightings]
        answers = await asyncio.gather(*(self.engine.execute(each) for each in commands), return_exceptions=True)
        for answer in answers:
            # An instance that is gone by now holds up no other (P19); what nobody expected is told.
            if isinstance(answer, BaseException) and not (isinstance(answer, Problem) and answer.slug == "not-found"):
                raise answer
        return sum(isinstance(answer, Done) and answer.changed for answer in answers)

    async def _owners(self, pool_id: PoolId, wanted: set[InstanceId]) -> dict[InstanceId, OrganizationId]:
        rows = await look_up(self.system, _OF_POOL, sorted(wanted), pool_id)
        owners = {row["id"]: row["organization_id"] for row in rows}
        if strangers := sorted(wanted - owners.keys()):
            raise Problem("forbidden", f"Instance {strangers[0]} is not one of your pool's.")
        return owners


def observe(sighting: Sighting, owner: OrganizationId, actor: str) -> Observe:
    """The command that takes a sighting over."""
    look = sighting.look
    return Observe(
        id=f"observe/{look.instance_id}/{look.asked_at.isoformat()}",
        instance_id=look.instance_id,
        organization_id=owner,
        actor=actor,
        fence=look.fence,
        generation=look.generation,
        asked_at=look.asked_at,
        answered=sighting.answered,
        services=sighting.services,
        conditions=sighting.conditions,
    )

"""A relay in a process of its own, to be killed: `python -m tests.kafka.relaying DATABASE_URL BROKER TOPIC TERM_SECONDS`."""

from __future__ import annotations

import asyncio
import sys

from spectrum.control.relay import relay
from spectrum.db.leading import Leading
from spectrum.db.log_reader import LogReader
from spectrum.db.pools import Role, open_pool
from spectrum.ports import SystemClock, SystemEntropy, Tasks
from spectrum.transports.kafka.facts import Facts
from tests.kafka.conftest import settings_of

BATCH = 20  # a process that lives for a second has many


async def run(url: str, address: str, topic: str, term_seconds: float) -> None:
    pool = await open_pool(url, Role.SYSTEM, "test relay")
    entropy = SystemEntropy()
    leading = Leading(pool, "relay", entropy.token(8).hex(), term_seconds, 0.0)
    outlet = Facts(settings_of(address), topic)
    reader = LogReader(pool, leading, "relay")
    await relay(reader, outlet, SystemClock(), entropy, Tasks(), period=0.05, batch=BATCH).run()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))

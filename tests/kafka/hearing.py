"""A worker's hearing in a process of its own, to be killed: `python -m tests.kafka.hearing BROKER TOPIC MEMBER` says `hears`."""

from __future__ import annotations

import asyncio
import sys

from spectrum.transports.kafka.hints import KafkaHints
from tests.kafka.conftest import settings_of


async def run(address: str, topic: str, member: str) -> None:
    hints, heard = KafkaHints(settings_of(address), member), asyncio.Event()
    hints.listen(topic, heard.set)
    while not hints.listening:
        await heard.wait()
        heard.clear()
    print("hears", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:4]))

"""Waiting for what a database will say, without sleeping: asking again is what takes the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE = 30.0


async def until(asked: Callable[[], Awaitable[object]]) -> None:
    """Ask until the answer is true. Raises `TimeoutError` when patience ends."""
    async with asyncio.timeout(PATIENCE):
        while not await asked():
            pass

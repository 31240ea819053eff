"""Waiting for what comes to be elsewhere, loudly where it doesn't: what no event tells is asked again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0  # seconds
PAUSE = 0.01  # seconds between two looks


async def until(asked: Callable[[], Awaitable[object]]) -> None:
    """Ask a database until the answer is true: asking it is what takes the time. Raises `TimeoutError` when patience ends."""
    async with asyncio.timeout(PATIENCE):
        while not await asked():
            pass


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once it holds: what other processes do is no event here. Raises `TimeoutError` when patience ends."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(PAUSE)


def wait_until(condition: Callable[[], T | None], seconds: float = 20.0) -> T:
    """What the condition answers once that is true. Fails once the time is over."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(PAUSE)
    return found

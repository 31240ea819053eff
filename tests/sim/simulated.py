"""Runs the body of a test inside a simulated world."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from sim.run import Outcome, run
from sim.world import World

Body = Callable[[World], Coroutine[Any, Any, None]]


def simulate(body: Body, seed: int = 1, rates: Mapping[str, float] | None = None) -> Outcome:
    """Run the body with faults at these rates and no others; a failed assertion in it fails the test."""
    return run(body, seed, rates=rates, others=0.0)

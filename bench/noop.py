"""The real server and worker with two operations more: jobs whose steps do nothing, so that the engine alone is measured.

`python -m bench.noop server BOOTSTRAP` and `python -m bench.noop worker SAMPLES` run the production programs unchanged. Their
catalog has a second version of `create` and of `restart`, which new jobs get, and the worker a target on which nothing is. The
worker writes down how long each of its reports took, from before it was sent until its answer had been read.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from spectrum.core.ids import InstanceId
from spectrum.core.jobs.table import Lifecycle
from spectrum.core.observation import Item, LogLine, Observed, Presence
from spectrum.core.plan import Catalog, Given, Node, Operation, Plan
from spectrum.core.product.resources import Artifact
from spectrum.operations import CATALOG
from spectrum.operations.context import Action, Context
from spectrum.providers.protocol import Call, Resource, Strength
from spectrum.transports.poll import PollLink

STEPS = 6
CAPACITY = 512  # jobs side by side on the worker: a step that does nothing takes no room
SAMPLE = struct.Struct("dd")  # the wall clock when a report was answered, and the seconds that it took

NOBODY = Observed("", Presence.ABSENT)


async def _nothing(context: Context) -> Mapping[str, Any]:
    return {}


def _chain(length: int) -> Callable[[Given], Plan]:
    """A plan of steps without an effect, each after the one before it."""
    names = [f"step-{number}" for number in range(1, length)] + ["verify"]
    before = [(), *((name,) for name in names)]
    nodes = tuple(Node(name, "nothing", needs=needs) for name, needs in zip(names, before, strict=False))
    return lambda given: Plan(nodes, job_seconds=600.0, unwind_seconds=600.0)


def _operation(name: str, length: int, allowed: Lifecycle) -> Operation:
    return Operation(
        name=name,
        version=2,
        allowed=frozenset({allowed}),
        plan=_chain(length),
        actions={"nothing": Action(do=_nothing)},
        success=lambda instance, job: Lifecycle.RUNNING,
    )


OPERATIONS = (
    _operation("create", 1, Lifecycle.CREATING),
    _operation("restart", STEPS, Lifecycle.RUNNING),
)


def add_to(catalog: Catalog) -> None:
    """Let new jobs do nothing."""
    found = cast(dict[tuple[str, int], Operation], catalog)
    found.update({(operation.name, operation.version): operation for operation in OPERATIONS})


class Nowhere:
    """A target on which nothing is (implements `providers.protocol.Provider`)."""

    kind = "process"
    strength = Strength.ATOMIC
    settle = 0.0

    async def stock(self, artifacts: tuple[Artifact, ...], images: tuple[str, ...]) -> None:
        return None

    async def observe(self, call: Call) -> Observed:
        return NOBODY

    async def survey(self, instance: InstanceId, fence: int) -> tuple[Observed, ...]:
        return ()

    async def ensure(self, call: Call, resource: Resource, replaces: frozenset[str] = frozenset()) -> Observed:
        return NOBODY

    async def remove(self, call: Call) -> Observed:
        return NOBODY

    async def inventory(self) -> tuple[Item, ...]:
        return ()

    async def revive(self) -> tuple[InstanceId, ...]:
        return ()

    async def logs(
        self, instance: InstanceId, service: str | None, since: datetime | None, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        nothing: tuple[LogLine, ...] = ()
        for line in nothing:
            yield line

    async def close(self) -> None:
        return None


def _timed(report: Callable[..., Awaitable[Any]], samples: int) -> Callable[..., Awaitable[Any]]:
    """`report`, with the time that each call took appended to the open file `samples`."""

    @functools.wraps(report)
    async def timed(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        answer = await report(*given, **named)
        os.write(samples, SAMPLE.pack(time.time(), time.perf_counter() - began))
        return answer

    return timed


def serve(bootstrap: str) -> None:
    """Be the control plane."""
    from spectrum import server

    server.run(bootstrap=bootstrap)


def work(samples: Path) -> None:
    """Be the worker."""
    from spectrum.worker import main
    from spectrum.worker.loop import Worker

    opened = os.open(samples, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    setattr(main, "open_provider", lambda url: Nowhere())  # noqa: B010 - the real one starts processes
    setattr(main, "Worker", functools.partial(Worker, capacity=CAPACITY))  # noqa: B010
    setattr(PollLink, "report", _timed(PollLink.report, opened))  # noqa: B010
    main.run(("process:///srv/nowhere",))


if __name__ == "__main__":
    add_to(CATALOG)
    match sys.argv[1:]:
        case ["server", bootstrap]:
            serve(bootstrap)
        case ["worker", samples]:
            work(Path(samples))
        case _:
            sys.exit(__doc__)

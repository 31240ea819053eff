"""Six steps on Restate: a server of its own with its log on disk, which calls the steps' service over HTTP/2."""

from __future__ import annotations

import asyncio
import os

import httpx
import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config

from bench.peers.rounds import STEPS, Steps, play

steps = Steps()
service = restate.Service("bench")


@service.handler()
async def six(context: restate.Context, job: str) -> None:
    for number in range(STEPS):
        await context.run_typed(f"step-{number}", steps.done, job=job, number=number)


async def main() -> None:
    port, ingress, admin = (os.environ[f"BENCH_{name}"] for name in ("PORT", "INGRESS", "ADMIN"))
    config, ended = Config(), asyncio.Event()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = config.errorlog = None
    serving = asyncio.create_task(serve(restate.app([service]), config, shutdown_trigger=ended.wait))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=60.0, limits=limits) as http:
        deployment = {"uri": f"http://127.0.0.1:{port}", "force": True}
        (await http.post(f"{admin}/deployments", json=deployment)).raise_for_status()

        async def run(job: str) -> None:
            (await http.post(f"{ingress}/bench/six", json=job)).raise_for_status()

        levels = [int(level) for level in os.environ["BENCH_LEVELS"].split(",")]
        await play(run, steps, levels, float(os.environ["BENCH_WARM"]), float(os.environ["BENCH_SECONDS"]))
    ended.set()
    await serving


if __name__ == "__main__":
    asyncio.run(main())

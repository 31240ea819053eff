"""Six steps on DBOS: a library in the caller's own process, each step a row in PostgreSQL."""

from __future__ import annotations

import asyncio
import os

from dbos import DBOS, SetWorkflowID

from bench.peers.rounds import STEPS, Steps, play

steps = Steps()


@DBOS.step()
async def nothing(job: str, number: int) -> int:
    return steps.done(job, number)


@DBOS.workflow()
async def six(job: str) -> None:
    for number in range(STEPS):
        await nothing(job, number)


async def run(job: str) -> None:
    with SetWorkflowID(job):
        handle = await DBOS.start_workflow_async(six, job)
    await handle.get_result()


async def main() -> None:
    DBOS(config={"name": "bench", "system_database_url": os.environ["BENCH_DATABASE_URL"], "log_level": "ERROR"})
    DBOS.launch()
    levels = [int(level) for level in os.environ["BENCH_LEVELS"].split(",")]
    await play(run, steps, levels, float(os.environ["BENCH_WARM"]), float(os.environ["BENCH_SECONDS"]))
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())

"""Six steps on Temporal's dev server: activities of one worker, the history in a SQLite file."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bench.peers.rounds import STEPS, Steps, play

QUEUE = "bench"
steps = Steps()


@activity.defn
async def nothing(job: str, number: int) -> int:
    return steps.done(job, number)


@workflow.defn
class Six:
    @workflow.run
    async def run(self, job: str) -> None:
        for number in range(STEPS):
            await workflow.execute_activity(nothing, args=[job, number], start_to_close_timeout=timedelta(seconds=60))


async def main() -> None:
    client = await Client.connect(os.environ["BENCH_SERVER"])
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=[Six],
        activities=[nothing],
        max_concurrent_activities=512,
        max_concurrent_workflow_tasks=512,
        workflow_runner=UnsandboxedWorkflowRunner(),
    )

    async def run(job: str) -> None:
        await client.execute_workflow(Six.run, job, id=job, task_queue=QUEUE)

    async with worker:
        levels = [int(level) for level in os.environ["BENCH_LEVELS"].split(",")]
        await play(run, steps, levels, float(os.environ["BENCH_WARM"]), float(os.environ["BENCH_SECONDS"]))


if __name__ == "__main__":
    asyncio.run(main())

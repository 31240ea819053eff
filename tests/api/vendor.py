"""A vendor with products and a target, and the hands of a worker that says of steps what a test wants it to say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectrum.control.dispatch import Caller as WorkerCaller
from spectrum.core.errors import Actor, ErrorClass, Failure
from spectrum.core.ids import OrganizationId, PoolId, WorkerId
from spectrum.core.jobs.commands import Holding, Intent, Outcome, Report, Result, Verdict
from spectrum.core.jobs.model import Job, Lease, Step
from spectrum.core.jobs.table import UNWOUND, JobState, Phase
from spectrum.core.plan import ready, unwindable
from spectrum.operations import CATALOG
from tests.api.support import Answered, Api, Caller
from tests.db.rows import NOW, bytes32, make_id

ROOT = Path(__file__).parents[2]
HELLO = ROOT / "tests/products/hello"
KINTO = ROOT / "examples/kinto"
URL = "http://127.0.0.1:21045/"

SEEN: dict[str, Any] = {
    "health": "healthy",
    "outputs": {
        "values": {
            "url": {"value": URL, "audience": "customer"},
            "storage": {"value": "127.0.0.1:21044", "audience": "operator"},
        },
        "endpoints": [{"name": "web", "url": URL, "primary": True}],
    },
    "services": [{"name": "web", "state": "running", "health": "healthy", "restarts": 0, "ports": {"8080": 21045}}],
    "conditions": [{"type": "limits_enforced", "status": "false", "reason": "no_cgroup", "message": "No cgroup."}],
}
"""What the verify step of a running instance tells."""


def failing(kind: ErrorClass = ErrorClass.INVALID) -> Failure:
    return Failure(kind, "exit-1", "The service ended.", Actor.VENDOR, detail="inside", evidence=("no such file",))


@dataclass
class Hands:
    """A worker's: claims jobs, and tells of each step that it is done, unless `fails` says otherwise."""

    api: Api
    caller: WorkerCaller
    lease: Lease
    fails: dict[str, Failure] = field(default_factory=dict)
    claims: int = 0
    numbers: dict[tuple[str, int], int] = field(default_factory=dict)

    async def serve(self) -> None:
        """Work on whatever comes."""
        while True:
            with self.api.plane.wakeups.listening(self.caller.pool_id) as woken:
                if not (claimed := await self._claim()):
                    await woken
            for held in claimed:
                await self.finish(held)

    async def take(self) -> Holding:
        """Claim the one job that is there."""
        (held,) = await self._claim()
        return held

    async def _claim(self) -> list[Holding]:
        self.claims += 1
        return await self.api.plane.dispatch.claim(
            self.caller, self.lease.id, self.lease.incarnation, self.claims, 1, holds_others=False
        )

    async def work(self) -> Job:
        """Claim the one job that is there and bring it to its end."""
        return await self.finish(await self.take())

    async def finish(self, held: Holding) -> Job:
        while not held.gone:
            held = await self.step(held)
        return held.job

    async def step(self, held: Holding) -> Holding:
        """One report: what became of the steps under way, and the intents of the next ones."""
        job = held.job
        outcomes = tuple(self._outcome(step) for step in job.steps if step.outstanding)
        ended = {outcome.step for outcome in outcomes}
        match job.state:
            case JobState.CANCELLING:
                return await self.report(held, outcomes=outcomes, verdict=Verdict.ACKNOWLEDGED)
            case JobState.UNWINDING if all(step.state in UNWOUND for step in job.steps):
                return await self.report(held, verdict=Verdict.UNWOUND)
            case JobState.UNWINDING:
                intents = tuple(Intent(step.name, Phase.UNDO) for step in unwindable(job.steps, ended))
            case _:
                intents = tuple(Intent(step.name, Phase.DO) for step in ready(job.steps, ended))
        return await self.report(held, outcomes=outcomes, intents=intents)

    async def report(self, held: Holding, **what: Any) -> Holding:
        place = (held.job.id, held.job.fence)
        self.numbers[place] = self.numbers.get(place, 0) + 1
        report = Report(
            id=f"{place}/{self.numbers[place]}",
            instance_id=held.instance.id,
            organization_id=held.job.organization_id,
            actor=self.caller.actor,
            job_id=held.job.id,
            lease_id=self.lease.id,
            pool_id=self.caller.pool_id,
            fence=held.job.fence,
            number=self.numbers[place],
            **what,
        )
        return await self.api.plane.dispatch.report(report)

    def _outcome(self, step: Step) -> Outcome:
        if step.phase is Phase.DO and (failure := self.fails.get(step.name)):
            return Outcome(step.name, step.phase, step.token, Result.ERROR, failure)
        output = SEEN if step.action == "verify-running" else {}
        return Outcome(step.name, step.phase, step.token, Result.DONE, output=output)


@dataclass
class Vendor:
    """An organization that has published hello, has a target and a worker for it."""

    api: Api
    admin: Caller
    hands: Hands

    async def create(self, name: str = "acme", **spec: Any) -> Answered:
        made = await self.admin.post("/v1/instances", {"name": name, "product": "hello", **spec})
        assert made.status == 202, made.body
        return made

    async def running(self, name: str = "acme", **spec: Any) -> dict[str, Any]:
        """A new instance that has come to run."""
        await self.create(name, **spec)
        await self.hands.work()
        return await self.instance(name)

    async def instance(self, name: str = "acme") -> dict[str, Any]:
        found: dict[str, Any] = (await self.admin.get(f"/v1/instances/{name}")).body
        return found

    async def act(self, verb: str, name: str = "acme") -> dict[str, Any]:
        """Ask for it, see it done, and return the instance as it is then."""
        path = f"/v1/instances/{name}"
        asked = await (self.admin.delete(path) if verb == "delete" else self.admin.post(f"{path}:{verb}"))
        assert asked.status == 202, asked.body
        ended = await self.hands.work()
        assert ended.state is JobState.SUCCEEDED, ended.failure
        return await self.instance(asked.body["subject"]["id"])

    async def count(self, table: str) -> int:
        rows = await self.api.as_admin(f"SELECT count(*) AS n FROM {table}")
        return int(rows[0]["n"])


def texts(folder: Path) -> dict[str, str]:
    return {each.name: each.read_text() for each in folder.iterdir() if each.is_file()}


async def publish(caller: Caller, folder: Path) -> Answered:
    files = texts(folder)
    made = await caller.post(f"/v1/products/{folder.name}/releases", {"file": "compose.yaml", "files": files})
    assert made.status in (200, 201), made.body
    return made


@asynccontextmanager
async def vendor(api: Api, organization: str = "acme") -> AsyncIterator[Vendor]:
    admin = await api.administrator(organization)
    await publish(admin, HELLO)
    target = await admin.post("/v1/targets", {"name": "local", "url": f"process:///srv/{organization}"})
    assert target.status == 201
    yield Vendor(api, admin, await hands(api, target.body["id"]))


async def hands(api: Api, target: str) -> Hands:
    """A worker that can reach the target."""
    (place,) = await api.as_admin("SELECT organization_id, pool_id FROM targets WHERE id = $1", target)
    worker = WorkerId(make_id("wrk"))
    await api.as_admin(
        "INSERT INTO workers (id, organization_id, pool_id, name, signing_public_key, sealing_public_key, protocol_version,"
        " enrolled_at) VALUES ($1, $2, $3, 'hands', $4, $5, 1, $6)",
        worker,
        place["organization_id"],
        place["pool_id"],
        bytes32(),
        bytes32(),
        NOW,
    )
    operations: dict[str, frozenset[int]] = {name: frozenset({1}) for name, _ in CATALOG}
    caller = WorkerCaller(worker, OrganizationId(place["organization_id"]), PoolId(place["pool_id"]), operations)
    return Hands(api, caller, await api.plane.dispatch.start(caller, "boot"))

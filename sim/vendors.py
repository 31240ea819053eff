"""Who asks things of the system: vendors, and somebody who has no right to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sim.hosts import Host
from sim.system import ORGANIZATION, POOL, RELEASE, TARGET, System, send
from sim.world import World
from spectrum.core.errors import Problem
from spectrum.core.ids import InstanceId, JobId, LeaseId, PlacementId, PoolId
from spectrum.core.jobs.commands import Answer, Cancel, Command, Release, Repeated, Report, Submit, Verdict
from spectrum.core.jobs.model import Instance, Job, Spec
from spectrum.core.jobs.store import Asked, Keyed
from spectrum.core.jobs.table import Lifecycle, WaitsFor
from spectrum.ports import new_id
from spectrum.transports.protocol import LinkDown

RESTING = (*("stop", "start", "restart") * 3, "delete", "undelete", "resolve")
ELSEWHERE = PoolId("pol_00000000-0000-7000-8000-000000000099")
NO_LEASE = LeaseId("lea_00000000-0000-7000-8000-000000000099")


def begin(system: System, vendors: int = 3, rest: float = 15.0) -> None:
    """Let vendors ask things of instances of theirs, every `rest` seconds at most, and somebody meddle with their jobs."""
    loop = system.world.loop
    for number in range(1, vendors + 1):
        loop.host(f"vendor-{number}", Vendor(system.world, system, f"customer-{number}", rest).run).start()
    loop.host("intruder", Intruder(system.world, system).run).start()


@dataclass
class Vendor:
    """Somebody who creates an instance and goes on asking things of it. Asks again under the same id until it is answered."""

    world: World
    system: System
    name: str
    rest: float = 15.0

    async def run(self, host: Host) -> None:
        instance_id = await self._create(host)
        while not self.world.faults.healed:
            await host.clock.sleep(self.rest * host.entropy.uniform())
            if self._lifecycle(instance_id) is Lifecycle.PURGED:
                instance_id = await self._create(host)
            elif host.entropy.uniform() < 0.25:
                await self._cancel(host, instance_id)
            else:
                await self._submit(host, instance_id, self._choose(host, instance_id))

    async def _create(self, host: Host) -> InstanceId:
        instance_id = InstanceId(new_id("ins", host.clock.now(), host.entropy))
        await self._submit(host, instance_id, "create")
        return instance_id

    def _choose(self, host: Host, instance_id: InstanceId) -> str:
        """Mostly something that may be asked for now."""
        lifecycle = self._lifecycle(instance_id)
        sensible = tuple(name for name in RESTING if lifecycle in self.system.catalog[name, 1].allowed)
        options = sensible if sensible and host.entropy.uniform() < 0.8 else RESTING
        return self.world.faults.one_of(f"{self.name} asks", options)

    def _lifecycle(self, instance_id: InstanceId) -> Lifecycle | None:
        instance = self.system.database.instances.get(instance_id)
        return instance.lifecycle if instance else None

    async def _submit(self, host: Host, instance_id: InstanceId, operation: str) -> None:
        spec = Spec("hello", "1", RELEASE, "small")
        key = host.entropy.token(8).hex()
        self.system.answers[key] = []
        while True:
            # As the API does it: every request gets a job id of its own, the key makes them one job.
            job_id = JobId(new_id("job", host.clock.now(), host.entropy))
            submit = Submit(
                id=job_id,
                instance_id=instance_id,
                organization_id=ORGANIZATION,
                actor=f"vendor:{self.name}",
                job_id=job_id,
                operation=operation,
                operation_version=1,
                spec=spec if operation in ("create", "start", "stop") else None,
                new=_new_instance(instance_id, self.name, host, spec) if operation == "create" else None,
                parameters={"retention_seconds": 30.0},
                queue_seconds=self.system.queue_seconds,
            )
            keyed = Keyed(ORGANIZATION, "POST", f"/v1/instances/{self.name}", key, operation, _respond)
            asked = Asked(submit, keyed, name=self.name if operation == "create" else None)
            answer = await self._ask(asked)
            if answer is not None and not (isinstance(answer, Problem) and answer.slug == "unavailable"):
                self.system.answers[key].append(answer)
                if host.entropy.uniform() < 0.9:
                    break
            await host.clock.sleep(1.0)
        if host.entropy.uniform() < 0.1 and isinstance(answer, Repeated):
            other = replace(asked, keyed=replace(keyed, request_digest=f"{operation}, but otherwise"))
            self.system.reused.append((key, await self._ask(other)))

    async def _cancel(self, host: Host, instance_id: InstanceId) -> None:
        jobs = [j for j in self.system.database.jobs.values() if j.instance_id == instance_id]
        if host.entropy.uniform() < 0.5:
            jobs = [job for job in jobs if not job.state.terminal]
        if jobs:
            job = jobs[int(host.entropy.uniform() * len(jobs))]
            cancel = Cancel(
                id=f"cancel/{job.id}",
                instance_id=instance_id,
                organization_id=ORGANIZATION,
                actor=f"vendor:{self.name}",
                job_id=job.id,
            )
            await self._ask(Asked(cancel))

    async def _ask(self, asked: Asked) -> Any:
        """What it was answered; None where no answer came."""
        address = self.world.faults.one_of("vendor address", self.system.addresses)
        try:
            return await send(self.system.wire, address, ("execute", asked))
        except LinkDown:
            return None


@dataclass
class Intruder:
    """A worker of another pool, or of an older life, that speaks of jobs which it does not hold (P4, P11)."""

    world: World
    system: System

    async def run(self, host: Host) -> None:
        while not self.world.faults.healed:
            await host.clock.sleep(4.0 + 20.0 * host.entropy.uniform())
            jobs = [job for job in self.system.open_jobs if job.owner is not None]
            if jobs:
                await self._meddle(host, jobs[int(host.entropy.uniform() * len(jobs))])

    async def _meddle(self, host: Host, job: Job) -> None:
        """Everything is right but one thing: the pool, the lease, or the fence."""
        owner = job.owner
        assert owner is not None
        which = int(host.entropy.uniform() * 3)
        common: dict[str, Any] = {
            "id": f"meddled/{host.entropy.token(4).hex()}",
            "instance_id": job.instance_id,
            "organization_id": ORGANIZATION,
            "actor": "worker:intruder",
            "job_id": job.id,
            "pool_id": ELSEWHERE if which == 0 else job.pool_id,
            "lease_id": NO_LEASE if which == 1 else owner.lease_id,
            "fence": job.fence - 1 if which == 2 else job.fence,
        }
        last = job.last_report
        number = last.number + 1 if last.fence == common["fence"] else 1
        command: Command = (
            Release(**common, why=WaitsFor.WORKER)
            if host.entropy.uniform() < 0.5
            else Report(**common, number=number, verdict=Verdict.ACKNOWLEDGED)
        )
        address = self.world.faults.one_of("intruder address", self.system.addresses)
        try:
            await send(self.system.wire, address, ("execute", Asked(command)))
        except LinkDown:
            return


def _respond(answer: Answer) -> Repeated:
    job_id = answer.job.id if answer.job else ""
    return Repeated(202, f"/v1/jobs/{job_id}", {"id": job_id})


def _new_instance(instance_id: InstanceId, name: str, host: Host, spec: Spec) -> Instance:
    return Instance(
        id=instance_id,
        organization_id=ORGANIZATION,
        name=name,
        target_id=TARGET,
        pool_id=POOL,
        placement_id=PlacementId(new_id("plc", host.clock.now(), host.entropy)),
        requested=spec,
    )

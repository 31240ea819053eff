"""Every transaction that writes: what a control plane does of its own accord or for a caller, and the scenes it matters in."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sim.interleave.copies import LEASE_SECONDS, Copy, RoundOver
from sim.interleave.scenes import (
    JOIN_TOKEN,
    OPERATIONS,
    PRODUCT,
    ROOM,
    SPARE_TOKEN,
    Scene,
    applicant,
    failed,
    mutation,
    next_report,
    signed,
)
from spectrum.control.leader import Leader
from spectrum.control.rates import Rates
from spectrum.control.specs import Order
from spectrum.control.streams import LogsWish, _Reading
from spectrum.core.access import TOKEN_ENTROPY, make_token
from spectrum.core.errors import ErrorClass
from spectrum.core.ids import LeaseId, RequestId
from spectrum.core.jobs.commands import Release, Tick
from spectrum.core.jobs.table import WaitsFor
from spectrum.core.rates import Rate
from spectrum.core.signing import Signer
from spectrum.db.bootstrap import SigningKey, settle_epoch
from spectrum.db.pools import Role
from spectrum.transports import wire
from spectrum.transports.protocol import Chunk, JobRef, Sighting

Run = Callable[[Copy, Scene], Awaitable[Any]]


@dataclass(frozen=True)
class Transaction:
    """One entry. `keyed`: asked again under its key it gives the same answer. `whole`: it is one transaction, or behaves as one
    to everybody else, so that two of them end as one after the other would.
    """

    name: str
    scenes: tuple[str, ...]
    run: Run
    keyed: bool = False
    whole: bool = True


CATALOGUE: dict[str, Transaction] = {}


def transaction(*scenes: str, keyed: bool = False, whole: bool = True) -> Callable[[Run], Run]:
    """Enter a function into the catalogue under its own name."""

    def enter(run: Run) -> Run:
        name = getattr(run, "__name__", "").replace("_", " ")
        CATALOGUE[name] = Transaction(name, scenes, run, keyed, whole)
        return run

    return enter


_WRITES = re.compile(
    r"\b(INSERT INTO|UPDATE|DELETE FROM|FOR NO KEY UPDATE|FOR UPDATE|FOR SHARE|advisory_xact_lock"
    r"|make_partitions)\b"
)
EXEMPT = {
    "notices_tell": "a NOTIFY in a transaction of its own touches no row; it is not seen before its commit",
}


def writing(queries: Iterable[tuple[str, str]]) -> set[str]:
    """The names of those queries that write or lock, but for the exempt ones."""
    return {name for name, text in queries if _WRITES.search(text.partition("*/")[2])} - EXEMPT.keys()


# ---- what people ask for


@transaction("empty", "idle", keyed=True)
async def create(copy: Copy, scene: Scene) -> Any:
    """Two of them want the same name."""
    return await copy.instances.create(mutation(copy, scene, "/v1/instances"), "beta", Order("hello", target="local"))


@transaction("empty", "idle", keyed=True)
async def create_under_one_key(copy: Copy, scene: Scene) -> Any:
    asked = mutation(copy, scene, "/v1/instances", "shared")
    return await copy.instances.create(asked, "gamma", Order("hello", target="spare"))


@transaction("idle", "queued", keyed=True)
async def stop(copy: Copy, scene: Scene) -> Any:
    return await _act(copy, scene, "stop")


@transaction("idle", "queued", "held", keyed=True)
async def restart(copy: Copy, scene: Scene) -> Any:
    return await _act(copy, scene, "restart")


@transaction("idle", "queued", "held", "unwinding", keyed=True)
async def delete(copy: Copy, scene: Scene) -> Any:
    return await _act(copy, scene, "delete")


@transaction("deleted", keyed=True)
async def undelete(copy: Copy, scene: Scene) -> Any:
    return await _act(copy, scene, "undelete")


@transaction("deleted", keyed=True)
async def purge(copy: Copy, scene: Scene) -> Any:
    return await _act(copy, scene, "purge")


@transaction("idle", "queued", keyed=True)
async def resolve(copy: Copy, scene: Scene) -> Any:
    return await _act(copy, scene, "resolve")


@transaction("ready", "held", "queued", "purging", keyed=True, whole=False)
async def cancel(copy: Copy, scene: Scene) -> Any:
    """Its answer shows attempts as they were when the job was looked up."""
    return await copy.jobs.cancel(mutation(copy, scene, "/v1/cancel"), scene.job)


async def _act(copy: Copy, scene: Scene, verb: str) -> Any:
    return await copy.instances.act(mutation(copy, scene, f"/v1/{verb}"), verb, scene.instance, None)


# ---- what workers say of jobs


@transaction("ready", "idle", "late", whole=False)
async def claim(copy: Copy, scene: Scene) -> Any:
    """The worker's next claim. What somebody else holds is passed over."""
    assert scene.caller and scene.lease
    number, lease = scene.claims + 1, scene.lease
    return await copy.dispatch.claim(scene.caller, lease.id, lease.incarnation, number, 4, holds_others=False)


@transaction("ready", "late", whole=False)
async def claim_by_another(copy: Copy, scene: Scene) -> Any:
    assert scene.other_caller and scene.other_lease
    lease = scene.other_lease
    return await copy.dispatch.claim(scene.other_caller, lease.id, lease.incarnation, 1, 4, holds_others=False)


@transaction("held", "ending", "queued", "unwinding", "purging")
async def report(copy: Copy, scene: Scene) -> Any:
    return await copy.dispatch.report(next_report(scene))


@transaction("held", "queued")
async def report_an_error(copy: Copy, scene: Scene) -> Any:
    return await copy.dispatch.report(next_report(scene, failed(ErrorClass.DEPENDENCY)))


@transaction("held", "unwinding")
async def report_failure(copy: Copy, scene: Scene) -> Any:
    return await copy.dispatch.report(next_report(scene, failed(ErrorClass.FATAL)))


@transaction("held", "queued", "unwinding")
async def release(copy: Copy, scene: Scene) -> Any:
    said = next_report(scene)
    return await copy.dispatch.release(
        Release(
            id=f"{said.job_id}/{said.fence}/release",
            instance_id=said.instance_id,
            organization_id=said.organization_id,
            actor=said.actor,
            job_id=said.job_id,
            lease_id=said.lease_id,
            pool_id=said.pool_id,
            fence=said.fence,
            why=WaitsFor.WORKER,
        )
    )


# ---- the lease lane


@transaction("held", "idle", "queued", whole=False)
async def start(copy: Copy, scene: Scene) -> Any:
    """A newer incarnation: what the older one held is lost."""
    return await copy.desk.serve("start", _call(copy, scene, "start", wire.Start("boot 2", OPERATIONS)), None)


@transaction("held", "ready", "queued", whole=False)
async def heartbeat(copy: Copy, scene: Scene) -> Any:
    assert scene.lease and scene.held
    held = ((scene.held.job.id, scene.held.job.fence),)
    return await _serve(copy, scene, "heartbeat", wire.Heartbeat(scene.lease.incarnation, 7, scene.claims, held))


@transaction("held", "queued", "ending", whole=False)
async def heartbeat_without_its_job(copy: Copy, scene: Scene) -> Any:
    """The grant never arrived: the job is taken back."""
    assert scene.lease
    return await _serve(copy, scene, "heartbeat", wire.Heartbeat(scene.lease.incarnation, 8, scene.claims, ()))


@transaction("held", "idle", "queued", keyed=True)
async def revoke_worker(copy: Copy, scene: Scene) -> Any:
    assert scene.caller
    return await copy.workers.revoke_worker(mutation(copy, scene, "/v1/workers:revoke"), scene.caller.worker_id)


@transaction("held", "idle", keyed=True)
async def drain_worker(copy: Copy, scene: Scene) -> Any:
    assert scene.caller
    return await copy.workers.drain_worker(mutation(copy, scene, "/v1/workers:drain"), scene.caller.worker_id)


# ---- other calls of workers


@transaction("idle", "purged", whole=False)
async def poll(copy: Copy, scene: Scene) -> Any:
    return await _serve(copy, scene, "poll", wire.Poll(0.0, ROOM))


@transaction("idle", "queued", whole=False)
async def observations(copy: Copy, scene: Scene) -> Any:
    assert scene.look
    services = ({"name": "web", "state": "running", "health": "healthy", "restarts": 0, "ports": {}},)
    return await _serve(copy, scene, "observations", wire.Observations((Sighting(scene.look, True, services),)))


@transaction("idle", "held", whole=False)
async def stream(copy: Copy, scene: Scene) -> Any:
    """The next piece of what somebody reads."""
    chunk = Chunk(RequestId(scene.taken_request), 2, ({"text": "more"},))
    return await _serve(copy, scene, "streams", chunk)


@transaction("held", "purging", whole=False)
async def secrets(copy: Copy, scene: Scene) -> Any:
    return await _serve(copy, scene, "secrets", _reference(scene))


@transaction("held", whole=False)
async def secrets_of_a_job_it_lacks(copy: Copy, scene: Scene) -> Any:
    return await _serve(copy, scene, "secrets", replace(_reference(scene), fence=1))


async def _serve(copy: Copy, scene: Scene, what: str, shape: Any) -> Any:
    assert scene.lease
    return await copy.desk.serve(what, _call(copy, scene, what, shape), LeaseId(scene.lease.id))


def _call(copy: Copy, scene: Scene, what: str, shape: Any) -> Any:
    """Signed anew each time, as a worker does."""
    return signed(copy, scene, f"{wire.PREFIX}/{what}", shape, copy.next_number())


def _reference(scene: Scene) -> JobRef:
    assert scene.held
    job = scene.held.job
    return JobRef(job.organization_id, job.instance_id, job.id, job.fence)


# ---- readers of streams


@transaction("idle", whole=False)
async def ask_for_logs(copy: Copy, scene: Scene) -> Any:
    return await copy.streams._ask(scene.principal, scene.instance, LogsWish())


@transaction("idle", whole=False)
async def read_stream(copy: Copy, scene: Scene) -> Any:
    reading = _Reading(RequestId(scene.taken_request), scene.organization, "local")
    await copy.streams._keep(reading)
    return len(await copy.streams._read(reading, 0))


@transaction("idle", whole=False)
async def close_stream(copy: Copy, scene: Scene) -> Any:
    copy.streams._close(_Reading(RequestId(scene.taken_request), scene.organization, "local"))
    await copy.tasks.settle()


@transaction("idle", whole=False)
async def forget_streams(copy: Copy, scene: Scene) -> Any:
    try:
        await copy.streams.run()
    except RoundOver:
        return None


# ---- what nobody asks for but time


@transaction("late", "deleted", "queued", "held", "idle", whole=False)
async def sweep(copy: Copy, scene: Scene) -> Any:
    return await copy.sweeper.sweep()


@transaction("late", "queued", "idle")
async def tick(copy: Copy, scene: Scene) -> Any:
    who = {"instance_id": scene.instance, "organization_id": scene.organization, "actor": "system:sweeper"}
    return await copy.engine.execute(Tick(id=f"tick/{scene.instance}", **who))  # type: ignore[arg-type]


@transaction("late", "held", whole=False)
async def end_lease(copy: Copy, scene: Scene) -> Any:
    for lapsed in await copy.store.lapsed(LEASE_SECONDS, 10):
        ended = await copy.store.end_lease(lapsed, "lapsed", if_not_renewed_for=LEASE_SECONDS)
        await copy.dispatch.lose_all(ended.owned, "its worker's lease lapsed")


@transaction("idle", "held", "ending", whole=False)
async def sequence(copy: Copy, scene: Scene) -> Any:
    return await _a_term(copy.sequencer)


@transaction("idle", "held", "ending", whole=False)
async def relay(copy: Copy, scene: Scene) -> Any:
    await _a_term(copy.sequencer)
    return await _a_term(copy.relay)


@transaction("empty", "idle", "held", whole=False)
async def seal(copy: Copy, scene: Scene) -> Any:
    return await _a_term(copy.sealer)


async def _a_term(leader: Leader) -> None:
    """All that there is to do for who leads, and the end of its term."""
    term = await leader.leading.take()
    if term is None:
        return
    while await leader.work(term):
        await leader.leading.renew(term)
    await leader.leading.renew(term)
    await leader.leading.resign(term)


@transaction("idle", whole=False)
async def upkeep(copy: Copy, scene: Scene) -> Any:
    return await copy.upkeep.once()


@transaction("idle", whole=False)
async def expire(copy: Copy, scene: Scene) -> Any:
    await copy.housekeeping.expire_ciphertexts()
    return await copy.housekeeping.expire_keys(10)


@transaction("held", "idle", whole=False)
async def begin_an_epoch(copy: Copy, scene: Scene) -> Any:
    """A copy starts, on a database that was restored."""
    async with copy.taken(Role.OWNER) as connection:
        return await settle_epoch(
            connection, new_epoch=True, signing_key=SigningKey("k2", copy.name.encode().ljust(32))
        )


# ---- identity, products, targets


@transaction("empty", keyed=True)
async def create_organization(copy: Copy, scene: Scene) -> Any:
    asked = mutation(copy, scene, "/v1/organizations", platform=True)
    return await copy.identity.create_organization(asked, "umbrella")


@transaction("empty", whole=False)
async def let_in(copy: Copy, scene: Scene) -> Any:
    """What a start does with the bootstrap token."""
    return await copy.identity.bootstrap("umbrella", make_token(b"b" * TOKEN_ENTROPY))


@transaction("empty", keyed=True)
async def create_token(copy: Copy, scene: Scene) -> Any:
    return await copy.identity.create_token(mutation(copy, scene, "/v1/tokens"), "ci", ("read",), None, None)


@transaction("empty", "idle", keyed=True)
async def create_token_under_one_key(copy: Copy, scene: Scene) -> Any:
    return await copy.identity.create_token(mutation(copy, scene, "/v1/tokens", "shared"), "ci", ("read",), None, None)


@transaction("empty", keyed=True)
async def revoke_token(copy: Copy, scene: Scene) -> Any:
    return await copy.identity.revoke_token(mutation(copy, scene, "/v1/tokens:revoke"), scene.token_id)


@transaction("empty", whole=False)
async def authenticate(copy: Copy, scene: Scene) -> Any:
    return await copy.identity.authenticate(SPARE_TOKEN.text)


@transaction("empty", whole=False)
async def take_from_a_tokens_rate(copy: Copy, scene: Scene) -> Any:
    """Each copy takes all that there is."""
    return await Rates(copy.system, Rate(1.0), copy.clock).admit(scene.principal)


@transaction("empty", keyed=True)
async def create_join_token(copy: Copy, scene: Scene) -> Any:
    return await copy.workers.create_join_token(mutation(copy, scene, "/v1/join-tokens"), None, "local")


@transaction("empty")
async def enrol(copy: Copy, scene: Scene) -> Any:
    """Each copy brings a key of its own for the one token."""
    key = Signer.of(Ed25519PrivateKey.from_private_bytes(copy.name.encode().ljust(32)))
    return await copy.workers.enrol(JOIN_TOKEN.text, applicant(key))


@transaction("empty")
async def enrol_one_key(copy: Copy, scene: Scene) -> Any:
    key = Signer.of(Ed25519PrivateKey.from_private_bytes(b"one!" * 8))
    return await copy.workers.enrol(JOIN_TOKEN.text, applicant(key))


@transaction("empty", "idle", keyed=True)
async def add_target(copy: Copy, scene: Scene) -> Any:
    return await copy.targets.add_target(mutation(copy, scene, "/v1/targets"), "new", "docker:///new", None)


@transaction("empty", "idle", keyed=True)
async def remove_target(copy: Copy, scene: Scene) -> Any:
    """No instance is on it, unless one comes meanwhile."""
    return await copy.targets.remove_target(mutation(copy, scene, "/v1/targets:remove"), "spare", False)


@transaction("empty", "idle", keyed=True)
async def publish(copy: Copy, scene: Scene) -> Any:
    files = {"compose.yaml": PRODUCT.replace("VERSION", "2.0.0")}
    return await copy.products.publish(mutation(copy, scene, "/v1/releases"), "hello", "compose.yaml", files)

"""The situations in which pairs meet: one organization with one worker and one instance, made by production code and kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sim.interleave.copies import KEYS, PUBLIC_URL, Copy
from sim.interleave.state import States
from spectrum.control.commands import Mutation
from spectrum.control.dispatch import Caller
from spectrum.control.specs import Order
from spectrum.control.streams import LogsWish
from spectrum.control.workers import Applicant
from spectrum.core import signing
from spectrum.core.access import TOKEN_ENTROPY, Principal, make_join_token, make_token
from spectrum.core.errors import Actor, ErrorClass, Failure
from spectrum.core.ids import PLATFORM, InstanceId, JobId, OrganizationId
from spectrum.core.jobs.commands import Holding, Intent, Outcome, Report, Result, Verdict
from spectrum.core.jobs.model import Lease, Step
from spectrum.core.jobs.table import UNWOUND, JobState, Phase
from spectrum.core.plan import ready, unwindable
from spectrum.core.signing import Call, Signer
from spectrum.operations import CATALOG
from spectrum.transports import wire
from spectrum.transports.protocol import Chunk, Look, Room

PRODUCT = """
name: hello
services:
  web:
    image: busybox:1.37
    command: [httpd, -f, -p, "${INSTANCE_WEB_PORT:-8080}"]
    ports: ["8080"]
    healthcheck: {test: [CMD, "true"], interval: 60s, timeout: 5s, retries: 3}
    volumes: ["data:/var/data"]
volumes: {data: {}}
x-spectrum:
  format: 1
  product: hello
  version: VERSION
  parameters:
    password: {type: string, secret: true, generate: {length: 32, alphabet: alphanumeric}}
  endpoints: {web: {service: web, port: 8080, health: /healthz, primary: true}}
"""
SIGNER = Signer.of(Ed25519PrivateKey.from_private_bytes(b"work" * 8))
OTHER_SIGNER = Signer.of(Ed25519PrivateKey.from_private_bytes(b"othr" * 8))
SEALING = X25519PrivateKey.from_private_bytes(b"seal" * 8).public_key().public_bytes_raw()
OPERATIONS = {name: [version] for name, version in CATALOG}
SEEN = {"health": "healthy", "outputs": {"values": {}, "endpoints": []}, "services": [], "conditions": []}
TOKEN = make_token(b"t" * TOKEN_ENTROPY)
SPARE_TOKEN = make_token(b"s" * TOKEN_ENTROPY)
JOIN_TOKEN = make_join_token(b"j" * TOKEN_ENTROPY, KEYS.signing_key_id)

# The clock can't be moved: what is stored is older then.
_AGE = """
UPDATE cell SET resumed_at = resumed_at - interval '{0}', alive_at = clock_timestamp(), lost_total = '0';
UPDATE leases SET renewed_at = renewed_at - interval '{0}';
UPDATE jobs SET deadline = deadline - interval '{0}', unwind_deadline = unwind_deadline - interval '{0}';
UPDATE steps SET attempt_deadline = attempt_deadline - interval '{0}';
UPDATE watches SET look_at = look_at - interval '{0}';
UPDATE instances SET purge_at = purge_at - interval '{0}';
"""
_LEFTOVERS = """
UPDATE idempotency_keys SET expires_at = created_at WHERE key = 'spare';
UPDATE idempotency_keys SET ciphertext_expires_at = created_at WHERE ciphertext IS NOT NULL;
UPDATE worker_requests SET expires_at = created_at - interval '1 minute' WHERE id = (SELECT max(id) FROM worker_requests);
UPDATE worker_requests SET expires_at = expires_at + interval '1 hour';
UPDATE watches SET look_at = look_at - interval '1 minute';
"""
_NO_ORGANIZATION, _NO_INSTANCE, _NO_JOB = OrganizationId(""), InstanceId(""), JobId("")


@dataclass(frozen=True)
class Scene:
    """What a transaction needs to know of where it is: ids, who holds what, and what its holder would say next."""

    name: str = ""
    organization: OrganizationId = _NO_ORGANIZATION
    token_id: str = ""
    caller: Caller | None = None
    lease: Lease | None = None
    other_caller: Caller | None = None
    other_lease: Lease | None = None
    claims: int = 0
    instance: InstanceId = _NO_INSTANCE
    job: JobId = _NO_JOB
    held: Holding | None = None
    reports: int = 0
    look: Look | None = None
    open_request: str = ""
    taken_request: str = ""
    release: str = ""

    @property
    def principal(self) -> Principal:
        return Principal(f"token:{self.token_id}", self.organization, frozenset({"admin"}))


def mutation(copy: Copy, scene: Scene, path: str, key: str = "", body: Any = None, platform: bool = False) -> Mutation:
    """A request of the organization's administrator, or of the platform's. Its key is the copy's own unless one is given."""
    principal = Principal("token:platform", PLATFORM, frozenset({"admin"})) if platform else scene.principal
    digest = json.dumps(body, sort_keys=True)
    return Mutation(principal, "POST", path, key or f"{copy.name}'s", digest, f"request of {copy.name}")


def signed(copy: Copy, scene: Scene, path: str, shape: Any, number: int) -> Call:
    """A call of the worker's."""
    query = f"lease={scene.lease.id}" if scene.lease else ""
    call = Call(
        "POST", signing.target_uri(PUBLIC_URL, path, query), {"content-type": "application/json"}, wire.encode(shape)
    )
    return replace(call, headers={**call.headers, **signing.sign_call(call, SIGNER, number, copy.clock.now())})


def next_report(scene: Scene, failure: Failure | None = None) -> Report:
    """What the holder of the scene's job says next: outcomes of what is under way, intents of what can begin."""
    assert scene.held and scene.lease and scene.caller
    job = scene.held.job
    outcomes = tuple(_outcome(step, failure) for step in job.steps if step.outstanding)
    ended = {outcome.step for outcome in outcomes if outcome.result is Result.DONE}
    verdict, intents = Verdict.NONE, tuple[Intent, ...]()
    match job.state:
        case JobState.CANCELLING:
            verdict = Verdict.ACKNOWLEDGED
        case JobState.UNWINDING if all(step.state in UNWOUND for step in job.steps):
            verdict = Verdict.UNWOUND
        case JobState.UNWINDING:
            intents = tuple(Intent(step.name, Phase.UNDO) for step in unwindable(job.steps, ended))
        case _ if failure is None:
            intents = tuple(Intent(step.name, Phase.DO) for step in ready(job.steps, ended))
    return Report(
        id=f"{job.id}/{job.fence}/{scene.reports + 1}",
        instance_id=scene.held.instance.id,
        organization_id=scene.organization,
        actor=scene.caller.actor,
        job_id=job.id,
        lease_id=scene.lease.id,
        pool_id=scene.caller.pool_id,
        fence=job.fence,
        number=scene.reports + 1,
        outcomes=outcomes,
        intents=intents,
        verdict=verdict,
    )


def _outcome(step: Step, failure: Failure | None) -> Outcome:
    if failure is not None:
        return Outcome(step.name, step.phase, step.token, Result.ERROR, failure)
    output = SEEN if step.action == "verify-running" else {}
    return Outcome(step.name, step.phase, step.token, Result.DONE, output=output)


def failed(kind: ErrorClass) -> Failure:
    return Failure(kind, "sim", "It failed.", Actor.NOBODY)


@dataclass
class Stage:
    """Makes the scenes, one from the other."""

    copy: Copy
    states: States
    scenes: dict[str, Scene] = field(default_factory=dict)

    async def make(self) -> dict[str, Scene]:
        await self.states.prepare()
        empty = await self._keep("empty", await self._ground())
        scene = await self._keep("ready", await self._create(empty))
        held = await self._keep("held", await self._report(await self._claim(scene)))
        await self._keep("late", held, "2 hours")
        await self._ending("ending", held)
        unwinding = await self._report(await self._back_to("held"), failed(ErrorClass.INVALID))
        await self._keep("unwinding", unwinding)
        idle = await self._finish(await self._back_to("held"))
        idle = await self._keep("idle", await self._streams(idle))
        await self._keep("queued", await self._queue(idle))
        await self._delete(await self._back_to("idle"))
        return {name: _filled(scene, self.scenes["idle"]) for name, scene in self.scenes.items()}

    async def _keep(self, name: str, scene: Scene, age: str = "") -> Scene:
        if age:
            await self.states.admin.execute(_AGE.format(age))
        await self.states.keep(name)
        kept = self.scenes[name] = replace(scene, name=name)
        return kept

    async def _back_to(self, name: str) -> Scene:
        self.copy.conductor.now = await self.states.restore(name)
        return self.scenes[name]

    # ---- the ground

    async def _ground(self) -> Scene:
        copy = self.copy
        organization = await copy.identity.bootstrap("acme", TOKEN)
        await copy.identity.bootstrap("acme", SPARE_TOKEN, "spare")
        principal = await copy.identity.authenticate(TOKEN.text)
        spare = await copy.identity.authenticate(SPARE_TOKEN.text)
        scene = Scene(organization=organization.id, token_id=spare.actor.removeprefix("token:"))
        await copy.targets.add_target(mutation(copy, scene, "/v1/targets"), "local", "docker:///srv", None)
        await copy.targets.add_target(mutation(copy, scene, "/v1/targets", "spare"), "spare", "docker:///spare", None)
        text = PRODUCT.replace("VERSION", "1.0.0")
        await copy.products.publish(
            mutation(copy, scene, "/v1/products"), "hello", "compose.yaml", {"compose.yaml": text}
        )
        await copy.workers.create_join_token(mutation(copy, scene, "/v1/join-tokens"), None, "local")
        await self.states.admin.execute("UPDATE join_tokens SET hash = $1", JOIN_TOKEN.hash)
        caller, lease = await self._worker(SIGNER)
        other_caller, other_lease = await self._worker(OTHER_SIGNER)
        release = await self.states.admin.fetchval("SELECT id FROM releases")
        assert principal.organization == organization.id
        await self.states.admin.execute("UPDATE tokens SET last_used_at = NULL")
        scene = replace(scene, caller=caller, lease=lease, other_caller=other_caller, other_lease=other_lease)
        return replace(scene, release=release)

    async def _worker(self, signer: Signer) -> tuple[Caller, Lease]:
        """A worker with a lease. The join token can be used again."""
        enrolled = await self.copy.workers.enrol(JOIN_TOKEN.text, applicant(signer))
        await self.states.admin.execute("UPDATE join_tokens SET used_at = NULL, used_by_key = NULL, worker_id = NULL")
        operations = {name: frozenset(versions) for name, versions in OPERATIONS.items()}
        caller = Caller(enrolled.worker_id, enrolled.organization_id, enrolled.pool_id, operations)
        return caller, await self.copy.dispatch.start(caller, "boot 1")

    async def _streams(self, scene: Scene) -> Scene:
        copy, admin = self.copy, self.states.admin
        assert scene.caller and scene.lease
        now = await admin.fetchval("SELECT clock_timestamp()")
        await copy.streams._ask(scene.principal, "acme", LogsWish())
        (taken,) = await copy.streams.open(scene.caller.pool_id, scene.caller.worker_id, 1, now)
        await copy.streams.take(scene.caller.worker_id, Chunk(taken.id, 1, ({"text": "hello"},)), 10)
        waiting = await copy.streams._ask(scene.principal, "acme", LogsWish())
        await copy.streams._ask(scene.principal, "acme", LogsWish())
        await admin.execute(_LEFTOVERS)
        (look,) = await copy.watch.due(scene.caller.pool_id, 8, now)
        await admin.execute("UPDATE watches SET look_at = look_at - interval '1 minute'")
        return replace(scene, look=look, open_request=waiting.id, taken_request=taken.id)

    # ---- jobs

    async def _create(self, scene: Scene) -> Scene:
        asked = mutation(self.copy, scene, "/v1/instances")
        reply = await self.copy.instances.create(asked, "acme", Order("hello", target="local"))
        return await self._job(scene, reply.location)

    async def _job(self, scene: Scene, location: str) -> Scene:
        job_id = JobId(location.rpartition("/")[2])
        instance = await self.states.admin.fetchval("SELECT instance_id FROM jobs WHERE id = $1", job_id)
        return replace(scene, job=job_id, instance=instance)

    async def _act(self, scene: Scene, verb: str) -> Scene:
        reply = await self.copy.instances.act(mutation(self.copy, scene, f"/v1/{verb}"), verb, scene.instance, None)
        return await self._job(scene, reply.location)

    async def _claim(self, scene: Scene) -> Scene:
        assert scene.caller and scene.lease
        number, lease = scene.claims + 1, scene.lease
        (held,) = await self.copy.dispatch.claim(
            scene.caller, lease.id, lease.incarnation, number, 1, holds_others=False
        )
        return replace(scene, claims=number, held=held, reports=0)

    async def _report(self, scene: Scene, failure: Failure | None = None) -> Scene:
        held = await self.copy.dispatch.report(next_report(scene, failure))
        return replace(scene, held=held, reports=scene.reports + 1)

    async def _finish(self, scene: Scene) -> Scene:
        while scene.held and not scene.held.gone:
            scene = await self._report(scene)
        return scene

    async def _ending(self, name: str, scene: Scene) -> Scene:
        """One report before the end of the job."""
        assert scene.held
        while sum(step.state != "done" for step in scene.held.job.steps) > 1:
            scene = await self._report(scene)
            assert scene.held
        return await self._keep(name, scene)

    async def _queue(self, scene: Scene) -> Scene:
        scene = await self._report(await self._claim(await self._act(scene, "stop")))
        await self.copy.instances.act(mutation(self.copy, scene, "/v1/restart"), "restart", scene.instance, None)
        return scene

    async def _delete(self, scene: Scene) -> None:
        scene = await self._finish(await self._claim(await self._act(scene, "delete")))
        deleted = await self._keep("deleted", scene, "30 days")
        await self.states.admin.execute("UPDATE leases SET renewed_at = clock_timestamp()")
        purging = await self._report(await self._claim(await self._act(deleted, "purge")))
        purged = await self._finish(await self._ending("purging", purging))
        await self.states.admin.execute("UPDATE watches SET look_at = look_at - interval '1 minute'")
        await self._keep("purged", purged)


def _filled(scene: Scene, other: Scene) -> Scene:
    """What is not there yet is spoken of all the same: as strangers and late-comers do."""
    lacking = {each.name: getattr(other, each.name) for each in fields(Scene) if not getattr(scene, each.name)}
    return replace(scene, **lacking)


def applicant(signer: Signer) -> Applicant:
    return Applicant("w1", bytes.fromhex(signer.key_id), SEALING, 1, OPERATIONS)


ROOM = Room(looks=8, streams=8)

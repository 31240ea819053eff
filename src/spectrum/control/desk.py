"""The desk at which workers are served: each call of the worker protocol, from its shape to its answer (INTERFACES §3)."""

from __future__ import annotations

import base64
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from opentelemetry.trace import SpanKind

from spectrum import tracing
from spectrum.control.calls import Calls
from spectrum.control.changes import Changes
from spectrum.control.dispatch import Caller, Dispatch, release_of, report_of
from spectrum.control.secrets import CellKeys, seal_to
from spectrum.control.streams import Streams, requests_of
from spectrum.control.wakeups import Wakeups, within
from spectrum.control.watch import Watch
from spectrum.control.workers import Applicant, KnownWorker, Workers
from spectrum.core import signing
from spectrum.core.errors import Problem
from spectrum.core.ids import JobId, LeaseId, PoolId, WorkerId
from spectrum.core.jobs.commands import Holding
from spectrum.core.jobs.holding import lease_ended
from spectrum.core.sealing import Context, Sealed
from spectrum.core.signing import Call
from spectrum.db.sql import query
from spectrum.db.visits import visiting
from spectrum.ports import Clock
from spectrum.settings import Tuning
from spectrum.transports import wire
from spectrum.transports.protocol import (
    Chunk,
    Handback,
    Incarnation,
    JobRef,
    News,
    Onward,
    Polled,
    Pulse,
    Requests,
    Room,
)

_log = structlog.get_logger(__name__)

_SECRETS = query("secrets_of_instance")
_DOCUMENT = query("release_document")
_OPERATIONS = query("worker_operations")
_LIVES = query("lease_lives")

REQUESTS_PUT_OFF = 0.5  # seconds at most, while one hint of jobs follows the other
REQUESTS_RECHECK = 2.0  # seconds, after which a poll looks for requests whose wake-up was lost


@dataclass(frozen=True, slots=True)
class Visit:
    """An admitted call: whose it is, under which lease, and its body."""

    worker: KnownWorker
    lease_id: LeaseId
    body: bytes

    def caller(self, operations: Mapping[str, Sequence[int]]) -> Caller:
        runs = {name: frozenset(versions) for name, versions in operations.items()}
        return Caller(self.worker.id, self.worker.organization_id, self.worker.pool_id, runs)


def _told(answer: Holding | Exception) -> wire.Told:
    match answer:
        case Holding():
            return wire.Told(answer)
        case Problem():
            if answer.slug == "forbidden":
                _log.warning("a worker's report was refused", why=answer.detail)
            return wire.Told(refusal=wire.Refusal(answer.slug, answer.detail, dict(answer.extra)))
        case _:
            _log.error("a report failed as it should not", exc_info=answer)
            return wire.Told(refusal=wire.Refusal("internal", "Something broke on our side. Send it again.", {}))


@dataclass
class Desk:
    """Serves signed calls. Answers are signed by who sends them (`api.worker`)."""

    workers: Workers
    changes: Changes
    calls: Calls
    dispatch: Dispatch
    wakeups: Wakeups
    watch: Watch
    streams: Streams
    keys: CellKeys
    clock: Clock
    tuning: Tuning
    public_url: str
    hints: Callable[[PoolId], str] = lambda pool_id: ""  # the topic on which a pool's hints come besides
    _looked: dict[WorkerId, int] = field(default_factory=dict)  # a worker's last look for work: the turn of its pool
    _asked: dict[WorkerId, float] = field(default_factory=dict)  # when requests were last looked for, by worker

    async def serve(self, what: str, call: Call, lease_id: str | None) -> Any:
        """The answer to a call, one of the shapes in `transports.wire`. Raises `Problem`."""
        if what == "enrol":
            return await self._enrol(call)
        if what == "start":
            return await self._start(call)
        handler = self._handlers().get(what)
        if handler is None:
            raise Problem("not-found", f"There is no call {what!r} in the worker protocol.")
        if lease_id is None:
            raise Problem("malformed", f"The call {what} names its lease in the query: ?lease=lea_…")
        worker = await self.calls.admit(call, lease_id)
        return await handler(Visit(worker, LeaseId(lease_id), call.body))

    def _handlers(self) -> dict[str, Any]:
        return {
            "poll": self._poll,
            "claim": self._claim,
            "heartbeat": self._heartbeat,
            "reports": self._reports,
            "release": self._release,
            "observations": self._observations,
            "streams": self._stream,
            "releases": self._document,
            "secrets": self._secrets,
        }

    # ---- coming in

    async def _enrol(self, call: Call) -> wire.Enrolled:
        """The call is signed with the very key that it brings."""
        asked: wire.Enrol = wire.decode(wire.Enrol, call.body)
        if signing.proven_call(call, self.clock.now()).key_id != asked.signing_key:
            raise Problem("signature-invalid", "A worker enrols with a call that is signed with its own key.")
        applicant = Applicant(
            asked.name,
            bytes.fromhex(asked.signing_key),
            bytes.fromhex(asked.sealing_key),
            asked.protocol_version,
            asked.operations,
        )
        enrolled = await self.workers.enrol(asked.token, applicant)
        return wire.Enrolled(enrolled.worker_id, enrolled.pool, self.public_url)

    async def _start(self, call: Call) -> Incarnation:
        worker = await self.calls.admit(call, None)
        asked: wire.Start = wire.decode(wire.Start, call.body)
        caller = Visit(worker, LeaseId(""), call.body).caller(asked.operations)
        lease = await self.dispatch.start(caller, asked.boot)
        async with self.changes.unkeyed(caller.actor, worker.organization_id, as_engine=True) as change:
            await change.connection.execute(_OPERATIONS, worker.id, asked.operations)
        hints = self.hints(worker.pool_id)
        return Incarnation(lease.id, lease.incarnation, self.tuning.lease, self.tuning.heartbeat, hints)

    # ---- jobs

    async def _poll(self, visit: Visit) -> Polled:
        """Answers at once where there was a hint or are requests, else with the first of them, else when time is up.

        A worker that hears hints on another way waits here for requests alone.
        """
        asked: wire.Poll = wire.decode(wire.Poll, visit.body)
        seconds = max(0.0, min(asked.seconds, self.tuning.longest_wait))
        pool_id, began = visit.worker.pool_id, self.clock.monotonic()
        end = began + seconds
        if self._asked.get(visit.worker.id, -math.inf) > began - REQUESTS_PUT_OFF and self._hinted(visit, asked):
            return Polled(work=not self.wakeups.ended)
        topics = (requests_of(pool_id), *((pool_id,) if asked.work else ()))
        while True:
            with self.wakeups.listening(*topics) as woken:
                now = await self._living(visit)
                requests = await self._requests(visit, asked.room, now)
                left = end - self.clock.monotonic()
                ended, hinted = self.wakeups.ended, self._hinted(visit, asked)
                if hinted or requests or left <= 0 or ended:
                    return Polled(hinted and not ended, requests)
                pause = await self.watch.pause(pool_id, now) if asked.room.looks else seconds
                if await within(woken, min(left, pause, REQUESTS_RECHECK)) and asked.work:
                    return Polled(work=not self.wakeups.ended)

    def _hinted(self, visit: Visit, asked: wire.Poll) -> bool:
        """Whether there was a hint since the worker looked for work, so that none is lost between its claim and its poll."""
        if not asked.work:
            return False
        worker = visit.worker
        turn, looked = self.wakeups.turn(worker.pool_id), self._looked.get(worker.id)
        self._looked[worker.id] = turn
        return looked is not None and turn > looked

    async def _requests(self, visit: Visit, room: Room, now: datetime) -> Requests:
        worker = visit.worker
        self._asked[worker.id] = self.clock.monotonic()
        if worker.draining:
            return Requests()
        looks = await self.watch.due(worker.pool_id, room.looks, now)
        return Requests(looks, await self.streams.open(worker.pool_id, worker.id, room.streams, now))

    async def _living(self, visit: Visit) -> datetime:
        """The moment. Raises Problem `not-allowed-now` where the lease is over: what is older is not asked, nor heard."""
        async with visiting(self.changes.engine, [visit.worker.organization_id]) as connection:
            row = await connection.fetchrow(_LIVES, visit.lease_id, visit.worker.id)
        if row is None or not row["lives"]:
            raise lease_ended(visit.lease_id)
        now: datetime = row["now"]
        return now

    async def _observations(self, visit: Visit) -> wire.Empty:
        asked: wire.Observations = wire.decode(wire.Observations, visit.body)
        await self._living(visit)
        actor = visit.caller({}).actor
        async with self._refusals_audited(visit, "observations"):
            await self.watch.seen(visit.worker.pool_id, actor, asked.sightings)
        return wire.Empty()

    async def _stream(self, visit: Visit) -> Onward:
        chunk: Chunk = wire.decode(Chunk, visit.body)
        await self._living(visit)
        async with self._refusals_audited(visit, chunk.request_id):
            return await self.streams.take(visit.worker.id, chunk, len(visit.body))

    @asynccontextmanager
    async def _refusals_audited(self, visit: Visit, subject: str) -> AsyncIterator[None]:
        """A call about what is not the caller's is written down (DESIGN §3.5)."""
        try:
            yield
        except Problem as problem:
            if problem.slug == "forbidden":
                owner = visit.worker.organization_id
                async with self.changes.unkeyed(visit.caller({}).actor, owner, as_engine=True) as change:
                    await change.audit(owner, "call.refused", subject, {"detail": problem.detail})
            raise

    async def _claim(self, visit: Visit) -> Sequence[Holding]:
        asked: wire.ClaimCall = wire.decode(wire.ClaimCall, visit.body)
        want = 0 if visit.worker.draining else max(0, min(asked.want, 256))
        self._looked[visit.worker.id] = self.wakeups.turn(visit.worker.pool_id)
        return await self.dispatch.claim(
            visit.caller(asked.operations),
            visit.lease_id,
            asked.incarnation,
            asked.number,
            want,
            holds_others=asked.holds_others,
        )

    async def _heartbeat(self, visit: Visit) -> Pulse:
        asked: wire.Heartbeat = wire.decode(wire.Heartbeat, visit.body)
        held = [(JobId(job_id), fence) for job_id, fence in asked.held]
        return await self.dispatch.beat(
            visit.caller({}), visit.lease_id, asked.incarnation, asked.number, asked.claim_seen, held
        )

    async def _reports(self, visit: Visit) -> wire.Answers:
        """Reports of several jobs. What is wrong with one is nothing to the others (P19)."""
        asked = wire.apart(visit.body)
        caller = visit.caller({})
        reports = [report_of(caller, visit.lease_id, news) for news in asked if isinstance(news, News)]
        began = self.clock.now()
        heard = await self.dispatch.report_all(reports)
        self._trace(asked, began)
        answers = iter(heard)
        return wire.Answers(tuple(_told(next(answers) if isinstance(news, News) else news) for news in asked))

    def _trace(self, asked: Sequence[News | Problem], began: datetime) -> None:
        """They came together, and are parts of different traces."""
        if not tracing.on():
            return
        ended = self.clock.now()
        for news in asked:
            if isinstance(news, News):
                about = {"spectrum.job_id": news.job_id, "spectrum.report": news.number}
                tracing.tell("take report", news.traceparent, began, ended, kind=SpanKind.SERVER, about=about)

    async def _release(self, visit: Visit) -> wire.Empty:
        back: Handback = wire.decode(Handback, visit.body)
        await self.dispatch.release(release_of(visit.caller({}), visit.lease_id, back))
        return wire.Empty()

    # ---- what a job needs

    async def _document(self, visit: Visit) -> wire.Document:
        asked: wire.ReleaseCall = wire.decode(wire.ReleaseCall, visit.body)
        await self._must_hold(visit, asked.job)
        actor = visit.caller({}).actor
        async with self.changes.unkeyed(actor, asked.job.organization_id, as_engine=True) as change:
            document = await change.connection.fetchval(_DOCUMENT, asked.release_id)
        if document is None:
            raise Problem("not-found", f"There is no release {asked.release_id} in the job's organization.")
        return wire.Document(document)

    async def _secrets(self, visit: Visit) -> wire.Secrets:
        """Opened here, sealed to the worker at once, and written down (DESIGN §3.17)."""
        ref: JobRef = wire.decode(JobRef, visit.body)
        await self._must_hold(visit, ref)
        actor = visit.caller({}).actor
        async with self.changes.unkeyed(actor, ref.organization_id, as_engine=True) as change:
            rows = await change.connection.fetch(_SECRETS, ref.instance_id)
            await change.audit(
                ref.organization_id, "secrets.fetched", ref.instance_id, {"job_id": ref.job_id, "fence": ref.fence}
            )
        return wire.Secrets(ref.instance_id, tuple(self._sealed(visit, ref, row) for row in rows))

    def _sealed(self, visit: Visit, ref: JobRef, row: Any) -> wire.SealedSecret:
        context = Context("secrets", ref.instance_id, row["name"], row["version"])
        secret = self.keys.keyring.open(Sealed(row["key_id"], row["ciphertext"]), context)
        sealed = seal_to(visit.worker.sealing_key, secret, context)
        return wire.SealedSecret(row["name"], row["version"], base64.b64encode(sealed).decode())

    async def _must_hold(self, visit: Visit, ref: JobRef) -> None:
        """Raises Problem `forbidden`, with an audit row, for a job that the caller's living lease does not hold."""
        worker = visit.worker
        if await self.workers.holds(worker.id, visit.lease_id, ref):
            return
        async with self.changes.unkeyed(visit.caller({}).actor, worker.organization_id, as_engine=True) as change:
            await change.audit(worker.organization_id, "call.refused", ref.job_id, {"fence": ref.fence})
        raise Problem("forbidden", f"Your lease does not hold job {ref.job_id} under fence {ref.fence}.")

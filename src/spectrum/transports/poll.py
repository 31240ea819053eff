"""The worker's link over HTTP: signed calls, signed answers, a long poll for work (INTERFACES §3).

A call is signed anew every time it is sent, under the next number of its incarnation. Nothing of an answer is believed before its
signature was checked with the cell's key, which came with the join token.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import httpx2
import structlog

from spectrum.core import signing
from spectrum.core.errors import PROBLEM, STATUS, Problem
from spectrum.core.ids import JobId
from spectrum.core.jobs.commands import Holding
from spectrum.core.sealing import Context
from spectrum.core.signing import Call, Signer
from spectrum.gathering import Gathering
from spectrum.ports import Clock, Spawner
from spectrum.transports import wire
from spectrum.transports.protocol import (
    Chunk,
    Handback,
    Incarnation,
    JobRef,
    LinkDown,
    News,
    Onward,
    Polled,
    Pulse,
    Room,
    Sighting,
)

CALL_SECONDS = 30.0
REFUSALS = 10  # in a row: fewer say only that what arrived was not what was sent
LANES = 2  # calls with reports at the same time: while one is carried out, the next is on its way
REPORTS_BYTES = 2**20  # of one such call; half of what a control plane takes
LATER = frozenset({"unavailable", "rate-limited", "internal"})
_JSON = "application/json"

_log = structlog.get_logger(__name__)


class Opener(Protocol):
    """Opens what was sealed to this worker."""

    def open(self, sealed: bytes, context: Context) -> bytes: ...


@dataclass
class PollLink:
    """Calls of one worker to one control plane (implements `transports.protocol.Link`).

    `public_url` is what is signed, `client` dials whatever its base URL says.
    """

    client: httpx2.AsyncClient
    public_url: str
    signer: Signer
    cell_key: str
    opener: Opener
    clock: Clock
    operations: Mapping[str, Sequence[int]]
    spawner: Spawner
    _number: int = 0
    _offset: timedelta = timedelta(0)
    _refusals: int = 0

    def __post_init__(self) -> None:
        self._reports = Gathering(self._report_all, self.spawner, "reports", LANES, REPORTS_BYTES, _size)

    async def enrol(self, token: str, name: str, signing_key: bytes, sealing_key: bytes) -> wire.Enrolled:
        """Join a pool. The same token with the same key gets the same answer."""
        asked = wire.Enrol(token, name, signing_key.hex(), sealing_key.hex(), 1, self._operations())
        answer = await self._call("enrol", asked)
        enrolled: wire.Enrolled = wire.decode(wire.Enrolled, answer)
        return enrolled

    async def start(self, boot: str) -> Incarnation:
        answer = await self._call("start", wire.Start(boot, self._operations()))
        incarnation: Incarnation = wire.decode(Incarnation, answer)
        return incarnation

    async def poll(self, incarnation: Incarnation, seconds: float, room: Room, *, work: bool = True) -> Polled:
        answer = await self._call("poll", wire.Poll(seconds, room, work), incarnation, seconds + CALL_SECONDS)
        polled: Polled = wire.decode(Polled, answer)
        return polled

    async def claim(self, incarnation: Incarnation, number: int, want: int, holds_others: bool) -> Sequence[Holding]:
        asked = wire.ClaimCall(incarnation.number, number, want, holds_others, self._operations())
        answer = await self._call("claim", asked, incarnation)
        holdings: Sequence[Holding] = wire.decode(Sequence[Holding], answer)
        return holdings

    async def beat(
        self, incarnation: Incarnation, number: int, claim_seen: int, held: Sequence[tuple[JobId, int]]
    ) -> Pulse:
        asked = wire.Heartbeat(incarnation.number, number, claim_seen, tuple(held))
        answer = await self._call("heartbeat", asked, incarnation, incarnation.heartbeat_seconds)
        pulse: Pulse = wire.decode(Pulse, answer)
        return pulse

    async def report(self, incarnation: Incarnation, news: News) -> Holding:
        """Reports that become ready while others are under way travel together; each has an answer of its own."""
        return await self._reports.answer((incarnation, wire.encode(news)))

    async def _report_all(self, waiting: Sequence[tuple[Incarnation, bytes]]) -> list[Holding | Exception]:
        answers: dict[int, Holding | Exception] = {}
        for incarnation in dict.fromkeys(incarnation for incarnation, _ in waiting):
            places = [place for place, (whose, _) in enumerate(waiting) if whose == incarnation]
            told = await self._report_together(incarnation, [waiting[place][1] for place in places])
            answers |= dict(zip(places, told, strict=True))
        return [answers[place] for place in range(len(waiting))]

    async def _report_together(self, incarnation: Incarnation, news: Sequence[bytes]) -> Sequence[Holding | Exception]:
        try:
            body = await self._exchange("reports", wire.together(news), incarnation)
        except (LinkDown, Problem) as error:
            return [error] * len(news)
        answers: Sequence[wire.Told] = wire.decode(wire.Answers, body).answers
        if len(answers) != len(news):
            return [LinkDown(f"reports: {len(news)} were sent, {len(answers)} answered")] * len(news)
        return [answer.holding or _refused(answer.refusal) for answer in answers]

    async def release(self, incarnation: Incarnation, handback: Handback) -> None:
        await self._call("release", handback, incarnation)

    async def observed(self, incarnation: Incarnation, sightings: Sequence[Sighting]) -> None:
        await self._call("observations", wire.Observations(tuple(sightings)), incarnation)

    async def stream(self, incarnation: Incarnation, chunk: Chunk) -> Onward:
        answer = await self._call(f"streams/{chunk.request_id}", chunk, incarnation)
        onward: Onward = wire.decode(Onward, answer)
        return onward

    async def release_document(self, incarnation: Incarnation, asked: JobRef, release_id: str) -> Mapping[str, Any]:
        answer = await self._call("releases", wire.ReleaseCall(asked, release_id), incarnation)
        document: Mapping[str, Any] = wire.decode(wire.Document, answer).document
        return document

    async def secrets(self, incarnation: Incarnation, asked: JobRef) -> Mapping[str, str]:
        found: wire.Secrets = wire.decode(wire.Secrets, await self._call("secrets", asked, incarnation))
        return {each.name: self._open(found.instance_id, each) for each in found.secrets}

    def _open(self, instance_id: str, secret: wire.SealedSecret) -> str:
        context = Context("secrets", instance_id, secret.name, secret.version)
        return self.opener.open(base64.b64decode(secret.sealed), context).decode()

    def _operations(self) -> dict[str, list[int]]:
        return {name: list(versions) for name, versions in self.operations.items()}

    # ---- one call

    async def _call(
        self, what: str, asked: Any, incarnation: Incarnation | None = None, seconds: float = CALL_SECONDS
    ) -> bytes:
        return await self._exchange(what, wire.encode(asked), incarnation, seconds)

    async def _exchange(
        self, what: str, body: bytes, incarnation: Incarnation | None = None, seconds: float = CALL_SECONDS
    ) -> bytes:
        path = f"{wire.PREFIX}/{what}"
        query = f"lease={incarnation.lease_id}" if incarnation else ""
        call = self._signed(path, query, body)
        try:
            response = await self.client.request(
                call.method,
                path + (f"?{query}" if query else ""),
                content=call.body,
                headers=dict(call.headers),
                timeout=seconds,
            )
        except httpx2.HTTPError as error:
            raise LinkDown(f"{what}: {str(error) or type(error).__name__}") from error
        return self._checked(call, response, what)

    def _signed(self, path: str, query: str, body: bytes) -> Call:
        self._number += 1
        call = Call("POST", signing.target_uri(self.public_url, path, query), {"content-type": _JSON}, body)
        fields = signing.sign_call(call, self.signer, self._number, self._server_now())
        return replace(call, headers={**call.headers, **fields})

    def _server_now(self) -> datetime:
        return self.clock.now() + self._offset

    def _checked(self, call: Call, response: httpx2.Response, what: str) -> bytes:
        """The body of an answer that the cell signed for this very call.

        Raises `LinkDown` for everything else, `Problem` for a signed no.
        """
        answered = signing.call_signature(call.headers)
        if answered is None:
            raise LinkDown("the call had no signature")
        headers = signing.fold(response.headers.items())
        try:
            now = signing.verify_answer(
                response.status_code, headers, response.content, answered, signing.public_key(self.cell_key)
            )
        except Problem as problem:
            _log.warning("an answer was not the cell's", call=what, status=response.status_code, why=problem.detail)
            raise LinkDown(f"{what}: the answer is not signed by the cell ({response.status_code})") from None
        self._offset = now - self.clock.now()
        if response.is_success:
            self._refusals = 0
            return response.content
        raise self._problem(response, what)

    def _problem(self, response: httpx2.Response, what: str) -> Exception:
        body = json.loads(response.content)
        slug = str(body.get("type", "")).removeprefix(PROBLEM)
        not_as_signed = slug == "signature-invalid" and "server_time" in body  # else nobody's key, or a revoked one
        self._refusals = self._refusals + 1 if not_as_signed else 0
        detail = str(body.get("detail", response.status_code))
        # Whoever can alter a call on its way must not be able to take a job from its holder, or to end a worker (P13).
        if 0 < self._refusals < REFUSALS:
            return LinkDown(f"{what}: {detail}")
        known = ("type", "title", "status", "detail", "instance", "docs", "request_id", "errors")
        return _no(what, slug, detail, {name: value for name, value in body.items() if name not in known})


def _no(what: str, slug: str, detail: str, extra: Mapping[str, Any]) -> Exception:
    """A signed no: the call may be sent again as it is, or it means what it says."""
    if slug in LATER or slug == "signature-replayed" or slug not in STATUS:
        return LinkDown(f"{what}: {detail}")
    return Problem(slug, detail, extra=extra)


def _refused(refusal: wire.Refusal | None) -> Exception:
    if refusal is None:
        return LinkDown("reports: one has no answer")
    return _no("reports", refusal.slug, refusal.detail, refusal.extra)


def _size(waiting: tuple[Incarnation, bytes]) -> int:
    """Its bytes; the small ones count for more, so that no call has more than it may."""
    return max(len(waiting[1]), REPORTS_BYTES // wire.REPORTS_LIMIT)

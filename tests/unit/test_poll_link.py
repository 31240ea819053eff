"""The worker's link over HTTP: what it makes of an answer that refuses the signature of its call."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import httpx2
import pytest

from sim.signed import CELL, PUBLIC_URL, signer_of
from spectrum.core.errors import PROBLEM, Problem
from spectrum.core.signing import call_signature, sign_answer
from spectrum.ports import SystemClock, Tasks
from spectrum.transports.poll import REFUSALS, PollLink
from spectrum.transports.protocol import LinkDown

NOW = datetime(2026, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.anyio


def link_to_a_cell_that_says(**said: Any) -> PollLink:
    """A link to a cell that refuses every call, in a signed answer."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        body = json.dumps({"type": f"{PROBLEM}signature-invalid", "detail": "It was refused.", **said}).encode()
        answered = call_signature(dict(request.headers))
        assert answered is not None
        return httpx2.Response(401, headers=sign_answer(401, body, answered, CELL, NOW), content=body)

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url=PUBLIC_URL)
    return PollLink(client, PUBLIC_URL, signer_of("a worker"), CELL.key_id, cast(Any, None), SystemClock(), {}, Tasks())


async def test_a_call_that_was_altered_on_its_way_may_be_sent_again() -> None:
    link = link_to_a_cell_that_says(server_time="2026-01-01T00:00:00.000Z")

    for _ in range(REFUSALS - 1):
        with pytest.raises(LinkDown):
            await link.start("a boot")


async def test_a_call_that_is_refused_again_and_again_is_refused_for_good() -> None:
    link = link_to_a_cell_that_says(server_time="2026-01-01T00:00:00.000Z")
    for _ in range(REFUSALS - 1):
        with pytest.raises(LinkDown):
            await link.start("a boot")

    with pytest.raises(Problem, match="signature-invalid"):
        await link.start("a boot")


async def test_a_worker_that_was_revoked_hears_so_at_once() -> None:
    with pytest.raises(Problem, match="signature-invalid"):
        await link_to_a_cell_that_says().start("a boot")

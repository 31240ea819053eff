"""Worker calls over HTTP: signed for the public URL, answered with the cell's signature."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from spectrum.core.errors import Problem
from spectrum.core.signing import Call, Signer, call_signature, fold, sign_call, verify_answer
from tests.api.fakes import BODY_LIMIT, CELL, served
from tests.api.support import PUBLIC_URL

pytestmark = pytest.mark.anyio
WORKER = Signer.of(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
PATH = "/worker/v1/echo?pool=a%20b"


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with served() as (client, _, _):
        yield client


def signed(
    number: int = 1, body: bytes = b"{}", url: str = PUBLIC_URL, late: float = 0, path: str = PATH
) -> dict[str, str]:
    call = Call("POST", url + path, {"content-type": "application/json"}, body)
    return {**call.headers, **sign_call(call, WORKER, number, datetime.now(UTC) - timedelta(seconds=late))}


def check(response: httpx2.Response, headers: dict[str, str]) -> None:
    """Raises Problem unless the cell gave this answer to the call with these headers."""
    covered = call_signature(headers)
    assert covered is not None
    fields = fold(response.headers.items())
    verify_answer(response.status_code, fields, response.content, covered, CELL.key.public_key())


async def test_a_signed_call_is_answered_with_a_signature(http: httpx2.AsyncClient) -> None:
    headers = signed(7)
    response = await http.post(PATH, content=b"{}", headers=headers)
    assert (response.status_code, response.json()) == (200, {"key_id": WORKER.key_id, "number": 7})
    check(response, headers)
    with pytest.raises(Problem):
        check(response, signed(8))


async def test_a_call_is_signed_for_the_public_url_and_not_for_the_address_dialled(http: httpx2.AsyncClient) -> None:
    dialled = {**signed(), "host": "10.0.0.7:9999"}
    assert (await http.post(PATH, content=b"{}", headers=dialled)).status_code == 200
    elsewhere = await http.post(PATH, content=b"{}", headers=signed(url="https://other.example"))
    assert elsewhere.json()["type"].endswith("signature-invalid")


@pytest.mark.parametrize("late", [-3_600, 3_600])
async def test_a_worker_with_a_wrong_clock_learns_the_time_from_a_signed_refusal(
    http: httpx2.AsyncClient, late: float
) -> None:
    headers = signed(late=late)
    response = await http.post(PATH, content=b"{}", headers=headers)
    assert (response.status_code, response.json()["type"]) == (401, "urn:spectrum:problem:signature-replayed")
    assert datetime.fromisoformat(response.json()["server_time"]).tzinfo is not None
    check(response, headers)


async def test_refusals_and_failures_of_every_layer_are_signed(http: httpx2.AsyncClient) -> None:
    large = b"x" * (BODY_LIMIT + 1)
    for path, body, number, status in (
        (PATH, b"{}", 13, 500),
        (PATH, large, 1, 413),
        ("/worker/v1/nonsense", b"{}", 1, 404),
    ):
        headers = signed(number, body, path=path)
        response = await http.post(path, content=body, headers=headers)
        assert response.status_code == status
        check(response, headers)


async def test_an_altered_body_is_refused(http: httpx2.AsyncClient) -> None:
    response = await http.post(PATH, content=b"[]", headers=signed(body=b"{}"))
    assert response.json()["type"].endswith("signature-invalid")


async def test_an_unsigned_call_gets_an_unsigned_refusal(http: httpx2.AsyncClient) -> None:
    response = await http.post(PATH, content=b"{}", headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (401, "urn:spectrum:problem:signature-invalid")
    assert "signature" not in response.headers

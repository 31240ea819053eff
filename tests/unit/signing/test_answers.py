"""Answers signed by the cell: each fits one call, and a worker can tell."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.errors import Problem
from spectrum.core.signing import Call, CallSignature, Signer, call_signature, sign_answer, sign_call, verify_answer

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
CELL = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WORKER = Signer.of(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
BODY = b'{"jobs":[]}'


def call(number: int) -> CallSignature:
    unsigned = Call("POST", "https://cell.example/worker/v1/claim", {"content-type": "application/json"}, b"{}")
    covered = call_signature(sign_call(unsigned, WORKER, number, NOW))
    assert covered is not None
    return covered


def answer(status: int = 200, body: bytes = BODY, number: int = 1) -> dict[str, str]:
    return sign_answer(status, body, call(number), Signer.of(CELL), NOW)


def test_an_answer_is_accepted_for_its_call_and_carries_the_servers_time() -> None:
    assert verify_answer(200, answer(), BODY, call(1), CELL.public_key()) == NOW


def test_the_answer_to_another_call_is_refused() -> None:
    with pytest.raises(Problem, match="signature-invalid"):
        verify_answer(200, answer(number=1), BODY, call(2), CELL.public_key())


def test_an_answer_of_another_cell_is_refused() -> None:
    with pytest.raises(Problem, match="not the cell's key"):
        verify_answer(200, answer(), BODY, call(1), WORKER.key.public_key())


def test_an_answer_with_another_status_is_refused() -> None:
    with pytest.raises(Problem, match="signature-invalid"):
        verify_answer(409, answer(200), BODY, call(1), CELL.public_key())


def test_a_workers_signature_is_no_signature_of_the_cell() -> None:
    unsigned = Call("POST", "https://cell.example/x", {"content-type": "application/json"}, BODY)
    headers = sign_call(unsigned, Signer.of(CELL), 1, NOW)
    with pytest.raises(Problem, match="not signed for this call"):
        verify_answer(200, headers, BODY, call(1), CELL.public_key())


@given(data=st.data())
def test_every_altered_byte_of_an_answer_is_refused(data: st.DataObject) -> None:
    headers, body = answer(), BODY
    part = data.draw(st.sampled_from(["body", *headers]))
    original = body.decode() if part == "body" else headers[part]
    place = data.draw(st.integers(0, len(original) - 1))
    byte = data.draw(st.characters(max_codepoint=255).filter(lambda c: c != original[place]))
    altered = original[:place] + byte + original[place + 1 :]
    if part == "body":
        body = altered.encode("latin-1")
    else:
        headers[part] = altered
    with pytest.raises(Problem, match="signature-invalid"):
        verify_answer(200, headers, body, call(1), CELL.public_key())


def test_a_call_without_a_usable_signature_has_none_to_answer() -> None:
    assert call_signature({}) is None
    assert call_signature({"signature": "spectrum=:AAAA:"}) is None

"""The signatures are RFC 9421's: its own test vector, and a foreign implementation both ways."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier
from http_message_signatures.algorithms import ED25519
from http_message_signatures.resolvers import MappingKeyResolver

from spectrum.core.signing import (
    Call,
    Signer,
    call_signature,
    content_digest,
    fold,
    read_call,
    sign_answer,
    sign_call,
    signature_base,
    verify_answer,
    verify_call,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = Signer.of(KEY)
CELL = Signer.of(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
TARGET = "https://cell.example/worker/v1/claim?pool=a"
COVERED = ("@method", "@target-uri", "content-digest", "content-type")
KEYS = MappingKeyResolver(
    public_keys={signer.key_id: signer.key.public_key() for signer in (SIGNER, CELL)},
    private_keys={signer.key_id: signer.key for signer in (SIGNER, CELL)},
)


@pytest.fixture
def now() -> datetime:
    """The foreign implementation reads the clock, so each test is of its own moment."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass
class Message:
    """What the foreign implementation calls a request."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Response:
    status_code: int
    request: Message
    headers: dict[str, str] = field(default_factory=dict)


def test_the_base_and_the_signature_are_those_of_rfc_9421_b_2_6() -> None:
    key = load_der_private_key(
        base64.b64decode("MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF"), password=None
    )
    assert isinstance(key, Ed25519PrivateKey)
    base = signature_base(
        ('"date"', "Tue, 20 Apr 2021 02:07:55 GMT"),
        ('"@method"', "POST"),
        ('"@path"', "/foo"),
        ('"@authority"', "example.com"),
        ('"content-type"', "application/json"),
        ('"content-length"', "18"),
        (
            '"@signature-params"',
            '("date" "@method" "@path" "@authority" "content-type" "content-length")'
            ';created=1618884473;keyid="test-key-ed25519"',
        ),
    )
    expected = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    assert base64.b64encode(key.sign(base)).decode() == expected


@pytest.mark.parametrize("body", [b"", b'{"hello": "world"}'])
def test_a_foreign_implementation_accepts_our_call(body: bytes, now: datetime) -> None:
    call = Call("POST", TARGET, {"content-type": "application/json"}, body)
    message = Message("POST", TARGET, {**call.headers, **sign_call(call, SIGNER, 3, now)})
    verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=KEYS)
    (result,) = verifier.verify(message, expect_tag="spectrum-worker", require_components=COVERED, body=body)
    assert (result.nonce, result.parameters["keyid"]) == ("3", SIGNER.key_id)


@pytest.mark.parametrize("include_alg", [True, False])
@pytest.mark.parametrize("body", [b"", b'{"hello": "world"}'])
def test_we_accept_the_call_of_a_foreign_implementation(body: bytes, include_alg: bool, now: datetime) -> None:
    message = Message("POST", TARGET, {"Content-Type": "application/json"})
    HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=KEYS).sign(
        message,
        key_id=SIGNER.key_id,
        created=now,
        expires=now + timedelta(seconds=30),
        nonce="12",
        tag="spectrum-worker",
        label="theirs",
        include_alg=include_alg,
        covered_component_ids=COVERED,
        body=body,
    )
    read = read_call(Call("POST", TARGET, fold(message.headers.items()), body), now)
    verify_call(read, KEY.public_key(), now)
    assert read.number == 12


def signed_request(now: datetime) -> tuple[Message, Any]:
    call = Call("POST", TARGET, {"content-type": "application/json"}, b"{}")
    headers = {**call.headers, **sign_call(call, SIGNER, 1, now)}
    return Message("POST", TARGET, headers), call_signature(headers)


def test_a_foreign_implementation_accepts_our_answer(now: datetime) -> None:
    request, covered = signed_request(now)
    answer = Response(200, request, sign_answer(200, b"[]", covered, CELL, now))
    verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=KEYS)
    needed = ("@status", "content-digest", '"signature";req;key="spectrum"')
    (result,) = verifier.verify(answer, expect_tag="spectrum-cell", require_components=needed, body=b"[]")
    assert result.parameters["keyid"] == CELL.key_id


def test_we_accept_the_answer_of_a_foreign_implementation(now: datetime) -> None:
    request, covered = signed_request(now)
    answer = Response(200, request, {"content-digest": content_digest(b"[]")})
    HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=KEYS).sign(
        answer,
        key_id=CELL.key_id,
        created=now,
        tag="spectrum-cell",
        covered_component_ids=("@status", "content-digest", '"signature";req;key="spectrum"'),
        body=b"[]",
        use_existing_digest=True,
    )
    headers = fold(answer.headers.items())
    assert verify_answer(200, headers, b"[]", covered, CELL.key.public_key()) == now


def test_a_digest_by_sha_512_is_understood(now: datetime) -> None:
    body = b'{"hello": "world"}'
    digest = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
    message = Message("POST", TARGET, {"content-type": "application/json", "content-digest": digest})
    HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=KEYS).sign(
        message,
        key_id=SIGNER.key_id,
        created=now,
        expires=now + timedelta(seconds=60),
        nonce="1",
        tag="spectrum-worker",
        covered_component_ids=COVERED,
        use_existing_digest=True,
    )
    call = Call("POST", TARGET, fold(message.headers.items()), body)
    verify_call(read_call(call, now), KEY.public_key(), now)
    with pytest.raises(Exception, match="body is not the one"):
        read_call(replace(call, body=b"{}"), now)

"""Signed worker calls: what is accepted, and that nothing else is."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.errors import Problem
from spectrum.core.signing import (
    Call,
    Signer,
    content_digest,
    fold,
    key_id,
    public_key,
    read_call,
    sign_call,
    signature_base,
    target_uri,
    verify_call,
)

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
SIGNER = Signer.of(KEY)
TARGET = "https://cell.example/worker/v1/claim?pool=a"


def signed(body: bytes = b'{"claim":1}', number: int = 7, now: datetime = NOW, signer: Signer = SIGNER) -> Call:
    call = Call("POST", TARGET, {"content-type": "application/json"}, body)
    return replace(call, headers={**call.headers, **sign_call(call, signer, number, now)})


def check(call: Call, now: datetime = NOW) -> int:
    read = read_call(call, now)
    verify_call(read, KEY.public_key(), now)
    return read.number


def refusal(call: Call, now: datetime = NOW) -> Problem:
    with pytest.raises(Problem) as caught:
        check(call, now)
    return caught.value


@pytest.mark.parametrize("body", [b"", b"{}", bytes(range(256)) * 100])
def test_a_signed_call_is_accepted_and_says_who_and_which_number(body: bytes) -> None:
    read = read_call(signed(body), NOW)
    verify_call(read, KEY.public_key(), NOW)
    assert (read.key_id, read.number) == (SIGNER.key_id, 7)


def test_the_target_is_the_public_url_whatever_address_was_dialled() -> None:
    assert target_uri("https://cell.example/", "/worker/v1/claim", "pool=a") == TARGET
    assert target_uri("https://cell.example", "", "") == "https://cell.example/"


@pytest.mark.parametrize("seconds", [-60, -59, 0, 59, 60])
def test_a_call_is_good_for_sixty_seconds_each_way(seconds: int) -> None:
    assert check(signed(), NOW + timedelta(seconds=seconds)) == 7


@pytest.mark.parametrize("seconds", [-61, 61, 86_400])
def test_a_call_outside_of_its_time_is_told_the_servers_time(seconds: int) -> None:
    now = NOW + timedelta(seconds=seconds)
    problem = refusal(signed(), now)
    assert problem.slug == "signature-replayed"
    assert datetime.fromisoformat(problem.extra["server_time"]) == now


def test_a_call_signed_with_another_key_is_refused() -> None:
    assert refusal(signed(signer=Signer(OTHER_KEY, SIGNER.key_id))).slug == "signature-invalid"


@pytest.mark.parametrize("field", ["content-digest", "content-type", "signature-input", "signature"])
def test_a_call_without_one_of_the_signed_fields_is_refused(field: str) -> None:
    call = signed()
    without = {name: value for name, value in call.headers.items() if name != field}
    assert refusal(replace(call, headers=without)).slug == "signature-invalid"


@pytest.mark.parametrize("field", ["content-digest", "content-type", "signature-input", "signature"])
def test_a_doubled_field_is_refused(field: str) -> None:
    call = signed()
    doubled = fold([*call.headers.items(), (field.upper(), call.headers[field])])
    assert refusal(replace(call, headers=doubled)).slug == "signature-invalid"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (' "content-type")', ")"),  # covers less
        ('"@method" "@target-uri"', '"@target-uri" "@method"'),  # another order
        (";created=", "; created="),  # not canonical
        (";created=", ";created=0"),
        (';tag="spectrum-worker"', ';tag="spectrum-cell"'),
        (';tag="spectrum-worker"', ""),
        (';tag="spectrum-worker"', ';tag="spectrum-worker";tag="spectrum-worker"'),
        (';tag="spectrum-worker"', ';tag="spectrum-worker";alg="hmac-sha256"'),
        (';nonce="7"', ';nonce="07"'),
        (';nonce="7"', ";nonce=7"),
        (';nonce="7"', ';nonce="0"'),
        (';nonce="7"', ';nonce="9007199254740992"'),
        ("spectrum=(", "other=("),
    ],
)
def test_a_signature_of_another_shape_is_refused_even_if_it_is_genuine(old: str, new: str) -> None:
    call = signed()
    field = call.headers["signature-input"].replace(old, new, 1)
    assert field != call.headers["signature-input"]
    base = signature_base(
        ('"@method"', call.method),
        ('"@target-uri"', call.target),
        ('"content-digest"', call.headers["content-digest"]),
        ('"content-type"', call.headers["content-type"]),
        ('"@signature-params"', field.partition("=")[2]),
    )
    signature = f"spectrum=:{base64.b64encode(KEY.sign(base)).decode()}:"
    forged = {**call.headers, "signature-input": field, "signature": signature}
    assert refusal(replace(call, headers=forged)).slug == "signature-invalid"


def test_a_signature_that_lives_too_long_is_refused() -> None:
    call = signed()
    field = call.headers["signature-input"]
    created = int(NOW.timestamp())
    longer = field.replace(f"expires={created + 60}", f"expires={created + 61}")
    assert refusal(replace(call, headers={**call.headers, "signature-input": longer})).slug == "signature-invalid"


@given(data=st.data())
def test_every_altered_byte_of_what_is_covered_is_refused(data: st.DataObject) -> None:
    call = signed()
    part = data.draw(st.sampled_from(["method", "target", "body", "signature-input", "signature", *call.headers]))
    original = {"method": call.method, "target": call.target, "body": call.body.decode()}.get(part) or call.headers[
        part
    ]
    place = data.draw(st.integers(0, len(original) - 1))
    byte = data.draw(st.characters(max_codepoint=255).filter(lambda c: c != original[place]))
    altered = original[:place] + byte + original[place + 1 :]
    match part:
        case "method":
            call = replace(call, method=altered)
        case "target":
            call = replace(call, target=altered)
        case "body":
            call = replace(call, body=altered.encode("latin-1"))
        case _:
            call = replace(call, headers={**call.headers, part: altered})
    assert refusal(call).slug in ("signature-invalid", "signature-replayed")


@given(data=st.data())
def test_every_flipped_bit_of_the_signature_is_refused(data: st.DataObject) -> None:
    call = signed()
    signature = bytearray(base64.b64decode(call.headers["signature"].removeprefix("spectrum=").strip(":")))
    bit = data.draw(st.integers(0, len(signature) * 8 - 1))
    signature[bit // 8] ^= 1 << bit % 8
    forged = f"spectrum=:{base64.b64encode(bytes(signature)).decode()}:"
    assert refusal(replace(call, headers={**call.headers, "signature": forged})).slug == "signature-invalid"


@given(field=st.text(max_size=80), where=st.sampled_from(["signature-input", "signature", "content-digest"]))
def test_nonsense_in_a_signature_field_is_a_refusal_and_nothing_worse(field: str, where: str) -> None:
    call = signed()
    assert refusal(replace(call, headers={**call.headers, where: field})).slug == "signature-invalid"


def test_a_call_that_can_not_be_signed_says_why() -> None:
    bare = Call("POST", TARGET, {}, b"")
    with pytest.raises(ValueError, match="content-type"):
        sign_call(bare, SIGNER, 1, NOW)
    with pytest.raises(ValueError, match="number"):
        sign_call(replace(bare, headers={"content-type": "a/b"}), SIGNER, 0, NOW)
    with pytest.raises(ValueError, match="absolute"):
        sign_call(Call("POST", "/worker/v1/claim", {"content-type": "a/b"}, b""), SIGNER, 1, NOW)


def test_the_digest_is_the_one_of_rfc_9530() -> None:
    assert content_digest(b'{"hello": "world"}') == "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    assert content_digest(b"") == "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"


def test_a_key_id_is_the_key() -> None:
    raw = KEY.public_key().public_bytes_raw()
    assert public_key(key_id(raw)).public_bytes_raw() == raw
    for nonsense in ("", "zz" * 32, raw.hex().upper(), raw.hex()[:-2]):
        with pytest.raises(ValueError, match="64 lower-case"):
            public_key(nonsense)

"""HTTP message signatures (RFC 9421) of worker calls and of the cell's answers, Ed25519 and Content-Digest.

A call is read first (`read_call`: its key id and number are then known, nothing is trusted), then verified against the
key that belongs to that id, then its number is put to the call window of its lease (`CallWindow`). An answer covers the
signature of the call that it answers, so it fits no other call.

Only one shape of signature is understood, the one of INTERFACES §3, in its canonical serialization: whatever is not
exactly that is refused. Nothing here reads a clock: `now` is always an argument, and times are UTC.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from spectrum.core.errors import Problem
from spectrum.core.moments import stamp

TAG_WORKER = "spectrum-worker"
TAG_CELL = "spectrum-cell"
LABEL = "spectrum"
WINDOW_SECONDS = 60
WINDOW_SIZE = 1_024
MAX_NUMBER = 2**53 - 1

_CALL_COMPONENTS = '"@method" "@target-uri" "content-digest" "content-type"'
_CALL_PARAMETERS = frozenset({"created", "expires", "nonce", "keyid", "tag"})
_ANSWER_PARAMETERS = frozenset({"created", "keyid", "tag"})
_MEMBER = re.compile(r"([a-z*][a-z0-9_.*-]{0,63})=(\([^()]*\))((?:;[a-z]+=(?:[0-9]{1,15}|\"[!#-\[\]-~]{1,128}\"))*)")
_PARAMETER = re.compile(r";([a-z]+)=(?:([0-9]{1,15})|\"([!#-\[\]-~]{1,128})\")")
_SIGNATURE = re.compile(r"([a-z*][a-z0-9_.*-]{0,63})=(:[A-Za-z0-9+/]{86}==:)")
_DIGEST = re.compile(r"(sha-256|sha-512)=:([A-Za-z0-9+/]+={0,2}):")
_KEY_ID = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it is signed. `headers`: lower-case names, one value each (`fold`); `target` is the @target-uri."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key and the id under which the other side finds its public half."""

    key: Ed25519PrivateKey
    key_id: str

    @classmethod
    def of(cls, key: Ed25519PrivateKey) -> Signer:
        return cls(key, key_id(key.public_key().public_bytes_raw()))


@dataclass(frozen=True, slots=True)
class ReadCall:
    """What a call says of itself. Believe nothing of it before `verify_call`."""

    key_id: str
    number: int
    created: datetime
    expires: datetime
    base: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class CallSignature:
    """The signature of a call as its answer covers it: the label and the serialized member, `:base64:`."""

    label: str
    member: str


def key_id(public_key: bytes) -> str:
    """The id of a raw Ed25519 public key: its 32 bytes in hex, so that whoever knows the id can verify."""
    return public_key.hex()


def public_key(identifier: str) -> Ed25519PublicKey:
    """The key behind a key id. Raises ValueError where the text is not one."""
    if _KEY_ID.fullmatch(identifier) is None:
        raise ValueError("a key id is 64 lower-case hexadecimal digits")
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(identifier))


def genuine(identifier: str, data: bytes, signature: bytes) -> bool:
    """Whether the owner of the key behind `identifier` signed `data`; no, where that is no key id."""
    try:
        public_key(identifier).verify(signature, data)
    except (ValueError, InvalidSignature):
        return False
    return True


def fold(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One value per lower-case name, repeated fields joined by a comma (RFC 9421 §2.1): a doubled field can't hide."""
    folded: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        trimmed = value.strip(" \t")
        folded[key] = f"{folded[key]}, {trimmed}" if key in folded else trimmed
    return folded


def target_uri(public_url: str, path: str, query: str = "") -> str:
    """The @target-uri of a call: PUBLIC_URL + path + query, whatever address was dialled (INTERFACES §3)."""
    return public_url.rstrip("/") + (path or "/") + (f"?{query}" if query else "")


def content_digest(body: bytes) -> str:
    """The Content-Digest field of a body (RFC 9530); the empty body has one too."""
    return f"sha-256={_binary(hashlib.sha256(body).digest())}"


def sign_call(call: Call, signer: Signer, number: int, now: datetime) -> dict[str, str]:
    """The three header fields that make `call` a signed call, number `number` of its incarnation.

    `now` is the server's time as far as the caller knows it. The call's own Content-Digest is replaced.
    Raises ValueError where the call itself could not be signed (no content-type, number out of range).
    """
    if not 1 <= number <= MAX_NUMBER:
        raise ValueError(f"a call number lies between 1 and 2^53-1, not {number}")
    created = int(now.timestamp())
    digest = content_digest(call.body)
    parameters = (
        f"({_CALL_COMPONENTS});created={created};expires={created + WINDOW_SECONDS}"
        f';nonce="{number}";keyid="{signer.key_id}";tag="{TAG_WORKER}"'
    )
    base = _call_base(call.method, call.target, digest, call.headers.get("content-type", ""), parameters)
    signature = _binary(signer.key.sign(base))
    return {
        "content-digest": digest,
        "signature-input": f"{LABEL}={parameters}",
        "signature": f"{LABEL}={signature}",
    }


def read_call(call: Call, now: datetime) -> ReadCall:
    """Take a call's signature apart, check its digest and its time, and build what the signature must be over.

    Raises Problem `signature-invalid` (it can't be used: do not send it again) or `signature-replayed` (outside of the
    time window: learn the time from the answer and sign anew).
    """
    label, components, parameters, text = _read_input(call.headers, now)
    if components != f"({_CALL_COMPONENTS})":
        raise _invalid(
            f"the signature must cover exactly {_CALL_COMPONENTS}, in this order; it covers {components}", now
        )
    _expect_parameters(parameters, _CALL_PARAMETERS, TAG_WORKER, now)
    signature = _read_signature(call.headers, label, now)
    digest = call.headers.get("content-digest", "")
    _check_digest(digest, call.body, now)
    created, expires, number = _read_times(parameters, now)
    try:
        base = _call_base(call.method, call.target, digest, call.headers.get("content-type", ""), text)
    except ValueError as error:
        raise _invalid(str(error), now) from None
    return ReadCall(str(parameters["keyid"]), number, created, expires, base, _bytes_of(signature))


def verify_call(read: ReadCall, key: Ed25519PublicKey, now: datetime) -> None:
    """Check the signature with the key that belongs to `read.key_id`. Raises Problem `signature-invalid`."""
    try:
        key.verify(read.signature, read.base)
    except InvalidSignature:
        raise _invalid("the signature does not match the call and the key it names", now) from None


def proven_call(call: Call, now: datetime) -> ReadCall:
    """The call, proven to be signed by the key that it names. Whose key that is, and whether its number is new, comes next.

    Raises Problem `signature-invalid` or `signature-replayed`.
    """
    read = read_call(call, now)
    try:
        key = public_key(read.key_id)
    except ValueError as error:
        raise _invalid(f"the key id of the signature is no good: {error}", now) from None
    verify_call(read, key, now)
    return read


def call_signature(headers: Mapping[str, str]) -> CallSignature | None:
    """The call's signature as its answer will cover it; None where there is none that could be covered."""
    match = _SIGNATURE.fullmatch(headers.get("signature", ""))
    return CallSignature(match[1], match[2]) if match else None


def sign_answer(status: int, body: bytes, answered: CallSignature, signer: Signer, now: datetime) -> dict[str, str]:
    """The header fields that make an answer the cell's own, to this call alone (DESIGN §3.4).

    Its `created` carries the server's time.
    """
    digest = content_digest(body)
    parameters = (
        f'({_answer_components(answered)});created={int(now.timestamp())};keyid="{signer.key_id}";tag="{TAG_CELL}"'
    )
    signature = _binary(signer.key.sign(_answer_base(status, digest, answered, parameters)))
    return {
        "content-digest": digest,
        "signature-input": f"{LABEL}={parameters}",
        "signature": f"{LABEL}={signature}",
    }


def verify_answer(
    status: int, headers: Mapping[str, str], body: bytes, answered: CallSignature, key: Ed25519PublicKey
) -> datetime:
    """Check that the cell gave this answer to this call; returns the server's time in it, to the second.

    No clock is asked: what makes the answer fresh is the call's signature in it, which holds a number used once.
    Raises Problem `signature-invalid`: act on nothing in the answer.
    """
    label, components, parameters, text = _read_input(headers, None)
    if components != f"({_answer_components(answered)})":
        raise _invalid("the answer is not signed for this call")
    _expect_parameters(parameters, _ANSWER_PARAMETERS, TAG_CELL, None)
    if parameters["keyid"] != key_id(key.public_bytes_raw()):
        raise _invalid(f"the answer is signed with key {parameters['keyid']}, which is not the cell's key")
    signature = _read_signature(headers, label, None)
    digest = headers.get("content-digest", "")
    _check_digest(digest, body, None)
    try:
        key.verify(_bytes_of(signature), _answer_base(status, digest, answered, text))
    except InvalidSignature:
        raise _invalid("the answer's signature does not match the answer and the cell's key") from None
    return _moment(parameters["created"])


@dataclass(frozen=True, slots=True)
class CallWindow:
    """Which call numbers of an incarnation were used: the highest, and a bit for each of the last 1,024.

    Bit 0 is the highest number itself. A number at or below `highest - 1024` is refused, used or not (RFC 4303 §3.4.3).
    """

    highest: int = 0
    seen: int = 0

    def accept(self, number: int) -> CallWindow | None:
        """The window with `number` used up, or None where it was used already or is too old to tell."""
        if not 1 <= number <= MAX_NUMBER:
            return None
        if number > self.highest:
            shift = min(number - self.highest, WINDOW_SIZE)
            return CallWindow(number, ((self.seen << shift) | 1) & (2**WINDOW_SIZE - 1))
        age = self.highest - number
        if age >= WINDOW_SIZE or self.seen >> age & 1:
            return None
        return CallWindow(self.highest, self.seen | 1 << age)

    def seen_bytes(self) -> bytes:
        """The 128 bytes that a row keeps, big-endian."""
        return self.seen.to_bytes(WINDOW_SIZE // 8, "big")

    @classmethod
    def from_bytes(cls, highest: int, seen: bytes) -> CallWindow:
        return cls(highest, int.from_bytes(seen, "big"))


def replayed(number: int, now: datetime) -> Problem:
    """The Problem for a call whose number the window refused."""
    return Problem(
        "signature-replayed",
        f"Call number {number} was used already, or lies more than {WINDOW_SIZE} below the highest. "
        "Sign the call anew with the next number.",
        extra={"server_time": stamp(now)},
    )


def _call_base(method: str, target: str, digest: str, content_type: str, parameters: str) -> bytes:
    if not content_type:
        raise ValueError("the call has no content-type; a signed call always has one, also with an empty body")
    if not urlsplit(target).netloc:
        raise ValueError(f"the target {target!r} is not an absolute URL")
    return signature_base(
        ('"@method"', method),
        ('"@target-uri"', target),
        ('"content-digest"', digest),
        ('"content-type"', content_type),
        ('"@signature-params"', parameters),
    )


def _answer_components(answered: CallSignature) -> str:
    return f'"@status" "content-digest" "signature";req;key="{answered.label}"'


def _answer_base(status: int, digest: str, answered: CallSignature, parameters: str) -> bytes:
    return signature_base(
        ('"@status"', str(status)),
        ('"content-digest"', digest),
        (f'"signature";req;key="{answered.label}"', answered.member),
        ('"@signature-params"', parameters),
    )


def signature_base(*lines: tuple[str, str]) -> bytes:
    """The signature base (RFC 9421 §2.5). Raises ValueError for line breaks and all outside of ASCII."""
    for name, value in lines:
        if not (value.isascii() and value.replace("\t", " ").isprintable()):
            raise ValueError(f"the value of {name} holds characters that can't be signed")
    return "\n".join(f"{name}: {value}" for name, value in lines).encode("ascii")


def _read_input(headers: Mapping[str, str], now: datetime | None) -> tuple[str, str, dict[str, str | int], str]:
    """Label, components, parameters and the serialized parameters of the one signature that a message has."""
    field = headers.get("signature-input", "")
    match = _MEMBER.fullmatch(field)
    if match is None:
        what = "is not one signature in canonical form" if field else "is missing"
        raise _invalid(f"the header field Signature-Input {what}", now)
    parameters: dict[str, str | int] = {}
    for name, number, string in _PARAMETER.findall(match[3]):
        if name in parameters or (number and number != str(int(number))):
            raise _invalid(f"the signature parameter {name} is given twice or not in canonical form", now)
        parameters[name] = int(number) if number else string
    return match[1], match[2], parameters, match[2] + match[3]


def _expect_parameters(
    parameters: Mapping[str, str | int], wanted: frozenset[str], tag: str, now: datetime | None
) -> None:
    names = set(parameters) - {"alg"}
    if names != wanted or parameters.get("alg", "ed25519") != "ed25519":
        raise _invalid(f"the signature must have the parameters {', '.join(sorted(wanted))} (and Ed25519)", now)
    for name, value in parameters.items():
        if isinstance(value, int) is not (name in ("created", "expires")):
            raise _invalid(f"the signature parameter {name} has the wrong type", now)
    if parameters["tag"] != tag:
        raise _invalid(f'the signature\'s tag must be "{tag}"', now)


def _read_signature(headers: Mapping[str, str], label: str, now: datetime | None) -> str:
    match = _SIGNATURE.fullmatch(headers.get("signature", ""))
    if match is None or match[1] != label or _binary(_bytes_of(match[2])) != match[2]:
        raise _invalid(f'the header field Signature must hold exactly one Ed25519 signature, labelled "{label}"', now)
    return match[2]


def _check_digest(field: str, body: bytes, now: datetime | None) -> None:
    match = _DIGEST.fullmatch(field)
    if match is None:
        raise _invalid("the header field Content-Digest must hold one SHA-256 or SHA-512 digest", now)
    function = hashlib.sha256 if match[1] == "sha-256" else hashlib.sha512
    if f":{match[2]}:" != _binary(function(body).digest()):
        raise _invalid("the body is not the one that Content-Digest describes", now)


def _read_times(parameters: Mapping[str, str | int], now: datetime) -> tuple[datetime, datetime, int]:
    created, expires = _moment(parameters["created"]), _moment(parameters["expires"])
    if not 0 < (expires - created).total_seconds() <= WINDOW_SECONDS:
        raise _invalid(f"a signature expires after it was made and at most {WINDOW_SECONDS} seconds later", now)
    if not (created - now).total_seconds() <= WINDOW_SECONDS or now > expires:
        raise Problem(
            "signature-replayed",
            f"The call was signed for {stamp(created)} to {stamp(expires)}; here it is {stamp(now)}. "
            "Set the offset to the server's time and sign anew.",
            extra={"server_time": stamp(now)},
        )
    nonce = str(parameters["nonce"])
    if _NUMBER.fullmatch(nonce) is None or int(nonce) > MAX_NUMBER:
        raise _invalid("the signature's nonce must be the number of the call, from 1", now)
    return created, expires, int(nonce)


def _invalid(what: str, now: datetime | None = None) -> Problem:
    extra = {} if now is None else {"server_time": stamp(now)}
    return Problem("signature-invalid", f"The signature was refused: {what}.", extra=extra)


def _binary(data: bytes) -> str:
    """A Structured Field byte sequence (RFC 9651 §3.3.5)."""
    return f":{base64.b64encode(data).decode('ascii')}:"


def _bytes_of(member: str) -> bytes:
    try:
        return base64.b64decode(member.strip(":"), validate=True)
    except binascii.Error:
        return b""


def _moment(seconds: str | int) -> datetime:
    return datetime.fromtimestamp(min(int(seconds), 253_402_300_799), UTC)

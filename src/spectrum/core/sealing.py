"""How a secret is kept: envelope encryption at rest, and the context that binds a ciphertext to its place.

A secret is encrypted with a data key of its own, the data key with a master key (AES-256-GCM both times, NIST SP
800-38D). The ciphertext names its master key, so several may be in use while one replaces another; changing the master
key of a secret touches only the wrapped data key. Randomness enters as an argument.

Sealing towards a worker is HPKE (RFC 9180) with X25519; the library that does it draws its own randomness, so it is
done at the edges (`control.secrets.seal_to`, `worker.keys`) over the `Context` defined here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from spectrum.core.errors import SpectrumError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
ENTROPY_BYTES = KEY_BYTES + 2 * NONCE_BYTES
REWRAP_ENTROPY_BYTES = NONCE_BYTES

TO_WORKERS = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
"""What a secret travels to a worker in: base mode, with the context as `info` (RFC 9180)."""

_VERSION = b"\x01"
_WRAPPED = NONCE_BYTES + KEY_BYTES + TAG_BYTES
_HEADER = len(_VERSION) + _WRAPPED


class SealError(SpectrumError):
    """A ciphertext could not be opened: it was altered, belongs elsewhere, or its key is not at hand."""


@dataclass(frozen=True, slots=True)
class Context:
    """The place a secret belongs to. A ciphertext moved to another row, name or version does not open there."""

    table: str
    id: str
    name: str
    version: int = 1

    def encoded(self) -> bytes:
        """Each part with its length in front, so that no two contexts look alike."""
        parts = (part.encode() for part in (self.table, self.id, self.name, str(self.version)))
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ciphertext as a row keeps it. `key_id` names the master key that wraps its data key."""

    key_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Keyring:
    """Master keys by id, 32 bytes each. New secrets are sealed under `active`; the others only open."""

    active: str
    keys: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if self.active not in self.keys:
            raise ValueError(f"the active master key {self.active} is not among the keys")
        for key_id, key in self.keys.items():
            if len(key) != KEY_BYTES:
                raise ValueError(f"the master key {key_id} has {len(key)} bytes instead of {KEY_BYTES}")

    def __repr__(self) -> str:
        return f"Keyring(active={self.active!r}, keys={sorted(self.keys)})"

    def seal(self, secret: bytes, context: Context, entropy: bytes) -> Sealed:
        """Encrypt `secret` for its place. `entropy` is `ENTROPY_BYTES` fresh random bytes, never used twice."""
        _need(entropy, ENTROPY_BYTES)
        data_key, nonce = entropy[:KEY_BYTES], entropy[KEY_BYTES : KEY_BYTES + NONCE_BYTES]
        wrapped = self._wrap(self.active, data_key, context, entropy[KEY_BYTES + NONCE_BYTES : ENTROPY_BYTES])
        return Sealed(
            self.active, _VERSION + wrapped + nonce + AESGCM(data_key).encrypt(nonce, secret, context.encoded())
        )

    def open(self, sealed: Sealed, context: Context) -> bytes:
        """The secret. Raises SealError where the ciphertext does not belong to `context` or its key is missing."""
        data_key = self._unwrap(sealed, context)
        nonce = sealed.data[_HEADER : _HEADER + NONCE_BYTES]
        try:
            return AESGCM(data_key).decrypt(nonce, sealed.data[_HEADER + NONCE_BYTES :], context.encoded())
        except InvalidTag:
            raise _broken(context) from None

    def rewrap(self, sealed: Sealed, context: Context, entropy: bytes) -> Sealed:
        """The same secret under the active master key; the secret itself is not decrypted.

        `entropy` is `REWRAP_ENTROPY_BYTES` fresh random bytes. Raises SealError like `open`.
        """
        if sealed.key_id == self.active:
            return sealed
        _need(entropy, REWRAP_ENTROPY_BYTES)
        wrapped = self._wrap(self.active, self._unwrap(sealed, context), context, entropy[:NONCE_BYTES])
        return Sealed(self.active, _VERSION + wrapped + sealed.data[_HEADER:])

    def _wrap(self, key_id: str, data_key: bytes, context: Context, nonce: bytes) -> bytes:
        return nonce + AESGCM(self.keys[key_id]).encrypt(nonce, data_key, _wrap_context(key_id, context))

    def _unwrap(self, sealed: Sealed, context: Context) -> bytes:
        if sealed.key_id not in self.keys:
            raise SealError(
                f"The master key {sealed.key_id} is not in the key file, but {context.table} {context.id} needs it. "
                "Put back the key file that this database was used with."
            )
        if sealed.data[:1] != _VERSION or len(sealed.data) < _HEADER + NONCE_BYTES + TAG_BYTES:
            raise _broken(context)
        nonce, wrapped = sealed.data[1 : 1 + NONCE_BYTES], sealed.data[1 + NONCE_BYTES : _HEADER]
        try:
            return AESGCM(self.keys[sealed.key_id]).decrypt(nonce, wrapped, _wrap_context(sealed.key_id, context))
        except InvalidTag:
            raise _broken(context) from None


def _wrap_context(key_id: str, context: Context) -> bytes:
    return key_id.encode() + b"\x00" + context.encoded()


def _broken(context: Context) -> SealError:
    return SealError(
        f"The ciphertext of {context.table} {context.id} ({context.name}, version {context.version}) does not open: "
        "it was altered, or moved here from another place."
    )


def _need(entropy: bytes, count: int) -> None:
    if len(entropy) < count:
        raise ValueError(f"{count} random bytes are needed, not {len(entropy)}")

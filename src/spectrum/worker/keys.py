"""The two key pairs of a worker, Ed25519 to sign and X25519 to be sealed to, in a file that never leaves it.

The key file is JSON, readable by its owner alone: `{"format": 1, "sign": "<base64 seed>", "seal": "<base64 key>"}`.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from spectrum.core.sealing import TO_WORKERS, Context, SealError
from spectrum.core.signing import Signer
from spectrum.keyfile import KeyFileError, create_once, read_private
from spectrum.ports import Entropy


@dataclass(frozen=True, slots=True)
class WorkerKeys:
    """The private keys of a worker and what the control plane learns of them."""

    signer: Signer = field(repr=False)
    seal: X25519PrivateKey = field(repr=False)

    @property
    def signing_key(self) -> bytes:
        """The raw public Ed25519 key, 32 bytes."""
        return self.signer.key.public_key().public_bytes_raw()

    @property
    def sealing_key(self) -> bytes:
        """The raw public X25519 key, 32 bytes."""
        return self.seal.public_key().public_bytes_raw()

    def open(self, sealed: bytes, context: Context) -> bytes:
        """A secret that the control plane sealed to this worker for this place. Raises SealError."""
        try:
            return TO_WORKERS.decrypt(sealed, self.seal, info=context.encoded())
        except (InvalidTag, ValueError):
            raise SealError(
                f"The secret {context.name} of {context.id} was not sealed to this worker, or was altered on its way."
            ) from None


def load_or_create(path: Path, entropy: Entropy) -> WorkerKeys:
    """The keys in `path`, which is made with fresh ones (mode 0600) where it is missing. Raises KeyFileError."""
    if not path.exists():
        create_once(path, _fresh(entropy))
    try:
        return _parse(json.loads(read_private(path)))
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise KeyFileError(
            f"The key file {path} is damaged. Remove it and let the worker join again with a new join token."
        ) from None


def _parse(document: dict[str, str]) -> WorkerKeys:
    sign, seal = (base64.b64decode(document[name], validate=True) for name in ("sign", "seal"))
    return WorkerKeys(Signer.of(Ed25519PrivateKey.from_private_bytes(sign)), X25519PrivateKey.from_private_bytes(seal))


def _fresh(entropy: Entropy) -> str:
    keys = {name: base64.b64encode(entropy.token(32)).decode() for name in ("sign", "seal")}
    return json.dumps({"format": 1, **keys}) + "\n"

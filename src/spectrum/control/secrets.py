"""The keys that live outside the database: the master keys that wrap its secrets, and the cell's own signing key.

The key file is JSON, one for all control planes of a cell, readable by its owner alone:

    {"format": 1, "active": "<key id>", "master": {"<key id>": "<base64 of 32 bytes>"}, "cell": "<base64 seed>"}

A new master key is added to `master` and named in `active`; the old one stays until nothing is sealed under it.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from spectrum.core.sealing import KEY_BYTES, TO_WORKERS, Context, Keyring
from spectrum.core.signing import Signer
from spectrum.keyfile import KeyFileError, create_once, read_private
from spectrum.ports import Entropy


@dataclass(frozen=True, slots=True)
class CellKeys:
    """What the key file holds."""

    keyring: Keyring
    signer: Signer = field(repr=False)

    @property
    def signing_key_id(self) -> str:
        """The id of the cell's signing key, which every join token carries."""
        return self.signer.key_id


def load_or_create(path: Path, entropy: Entropy) -> CellKeys:
    """The keys in `path`, which is made with fresh ones (mode 0600) where it is missing.

    Of several processes that start at once, one makes the file and all read the same. Raises KeyFileError.
    """
    if not path.exists():
        create_once(path, _fresh(entropy))
    return _parse(path, read_private(path))


def seal_to(public_key: bytes, secret: bytes, context: Context) -> bytes:
    """Seal a secret to a worker's raw X25519 key: HPKE base mode, HKDF-SHA256, AES-256-GCM (RFC 9180).

    The context goes into `info`, as RFC 9180 §8.1 asks of users of the single-shot interface.
    """
    return TO_WORKERS.encrypt(secret, X25519PublicKey.from_public_bytes(public_key), info=context.encoded())


def _fresh(entropy: Entropy) -> str:
    key_id = f"mk_{entropy.token(8).hex()}"
    document = {
        "format": 1,
        "active": key_id,
        "master": {key_id: base64.b64encode(entropy.token(KEY_BYTES)).decode()},
        "cell": base64.b64encode(entropy.token(KEY_BYTES)).decode(),
    }
    return json.dumps(document, indent=1) + "\n"


def _parse(path: Path, text: str) -> CellKeys:
    try:
        document: dict[str, Any] = json.loads(text)
        if document["format"] != 1:
            raise ValueError(f"format {document['format']} is not known to this version")
        keys = {key_id: base64.b64decode(key, validate=True) for key_id, key in document["master"].items()}
        cell = Ed25519PrivateKey.from_private_bytes(base64.b64decode(document["cell"], validate=True))
        return CellKeys(Keyring(document["active"], keys), Signer.of(cell))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        reason = f"{type(error).__name__}" if not isinstance(error, KeyError) else f"it has no {error}"
        raise KeyFileError(
            f"The key file {path} is damaged ({reason}). Put back a copy; without it no stored secret can be opened."
        ) from None

"""Secrets at rest: what opens, where, and with which key."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.sealing import ENTROPY_BYTES, Context, Keyring, Sealed, SealError

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
RING = Keyring("mk_old", {"mk_old": OLD})
PLACE = Context("secrets", "ins_1", "db_password", 1)
ENTROPY = bytes(range(100, 100 + ENTROPY_BYTES))
SECRET = b"correct horse"


@given(secret=st.binary(max_size=500), entropy=st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES))
def test_a_sealed_secret_opens_in_its_place(secret: bytes, entropy: bytes) -> None:
    assert RING.open(RING.seal(secret, PLACE, entropy), PLACE) == secret


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(PLACE, table="tokens"),
        replace(PLACE, id="ins_2"),
        replace(PLACE, name="other"),
        replace(PLACE, version=2),
        Context("secrets", "ins_1db_password", "", 1),
    ],
)
def test_a_ciphertext_moved_to_another_place_does_not_open(elsewhere: Context) -> None:
    sealed = RING.seal(SECRET, PLACE, ENTROPY)
    with pytest.raises(SealError, match="does not open"):
        RING.open(sealed, elsewhere)


def test_every_altered_byte_of_a_ciphertext_is_noticed() -> None:
    sealed = RING.seal(SECRET, PLACE, ENTROPY)
    for place in range(len(sealed.data)):
        altered = bytearray(sealed.data)
        altered[place] ^= 1
        with pytest.raises(SealError):
            RING.open(Sealed(sealed.key_id, bytes(altered)), PLACE)


def test_a_shortened_ciphertext_is_noticed() -> None:
    sealed = RING.seal(SECRET, PLACE, ENTROPY)
    for length in range(len(sealed.data)):
        with pytest.raises(SealError):
            RING.open(Sealed(sealed.key_id, sealed.data[:length]), PLACE)


def test_the_secret_and_its_keys_are_not_in_the_ciphertext() -> None:
    sealed = RING.seal(SECRET, PLACE, ENTROPY)
    assert SECRET not in sealed.data
    assert ENTROPY[:32] not in sealed.data
    assert OLD.hex() not in repr(RING)


def test_a_new_master_key_takes_over_secret_by_secret() -> None:
    sealed = RING.seal(SECRET, PLACE, ENTROPY)
    both = Keyring("mk_new", {"mk_old": OLD, "mk_new": NEW})
    assert both.open(sealed, PLACE) == SECRET
    moved = both.rewrap(sealed, PLACE, bytes(12))
    assert moved.key_id == "mk_new"
    assert Keyring("mk_new", {"mk_new": NEW}).open(moved, PLACE) == SECRET
    assert both.rewrap(moved, PLACE, bytes(12)) == moved


def test_a_missing_master_key_is_named() -> None:
    sealed = RING.seal(SECRET, PLACE, ENTROPY)
    with pytest.raises(SealError, match="mk_old is not in the key file"):
        Keyring("mk_new", {"mk_new": NEW}).open(sealed, PLACE)


def test_keys_and_entropy_of_the_wrong_size_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes instead of 32"):
        Keyring("a", {"a": bytes(16)})
    with pytest.raises(ValueError, match="not among"):
        Keyring("b", {"a": bytes(32)})
    with pytest.raises(ValueError, match="random bytes"):
        RING.seal(SECRET, PLACE, b"short")

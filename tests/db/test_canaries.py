"""The search for secrets finds them: in output, in rows, in every form."""

from __future__ import annotations

import base64

import asyncpg
import pytest

from spectrum.core.sealing import ENTROPY_BYTES, Context, Keyring
from tests.canaries import Canaries, planted_as_they_are_sealed
from tests.postgres import Database

SECRET = 'wagtail "7" in the reeds'
KEYRING = Keyring("k", {"k": bytes(32)})


@pytest.fixture
def planted() -> Canaries:
    canaries = Canaries()
    with planted_as_they_are_sealed(canaries):
        KEYRING.seal(SECRET.encode(), Context("secrets", "ins_1", "password"), bytes(ENTROPY_BYTES))
        KEYRING.seal(b'{"token": "spk_0123456789abcdef"}', Context("idempotency_keys", "o", "k"), bytes(ENTROPY_BYTES))
    return canaries


def test_what_was_sealed_is_found_in_every_form(planted: Canaries) -> None:
    raw = SECRET.encode()
    for said in (SECRET, raw.hex(), base64.b64encode(raw).decode(), r"{\"a\": \"wagtail \"7\" in the reeds\"}"):
        assert planted.found_in(f"... {said} ..."), said
    assert planted.found_in("holding wagtail, seven in the reeds") == []


def test_a_token_in_a_sealed_answer_is_found_by_itself(planted: Canaries) -> None:
    assert planted.found_in("Authorization: Bearer spk_0123456789abcdef") == ["idempotency_keys k"]


def test_words_that_are_too_short_to_be_secrets_are_not_searched_for() -> None:
    canaries = Canaries()
    canaries.plant("password", "a word")
    assert not canaries


@pytest.mark.anyio
async def test_a_secret_in_a_row_is_found_wherever_the_row_is(database: Database) -> None:
    canaries = Canaries()
    canaries.plant(SECRET, "the password")
    assert await canaries.found_in_database(database.admin_url) == []
    connection = await asyncpg.connect(database.admin_url)
    try:
        await connection.execute("CREATE TABLE notes (said jsonb)")
        await connection.execute("INSERT INTO notes SELECT jsonb_build_object('why', $1::text)", SECRET)
        await connection.execute("UPDATE cell SET system_identifier = encode($1::bytea, 'hex')", SECRET.encode())
    finally:
        await connection.close()
    found = await canaries.found_in_database(database.admin_url)
    assert set(found) == {"cell: the password, in hexadecimal", "notes: the password, as JSON"}

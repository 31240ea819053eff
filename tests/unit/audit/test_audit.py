"""The audit chain and its exports: an honest one verifies, and nothing can be changed, taken away, moved or added unseen."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from spectrum.core import audit
from spectrum.core.audit import Broken, Head, Known, Record, Seal, head_line, header_line, line, seal, sign_head, verify
from spectrum.core.signing import Signer, genuine

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
CELL = Signer.of(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
STRANGER = Signer.of(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
ACME, BETA = "org_01936f2a-0000-7000-8000-000000000001", "org_01936f2a-0000-7000-8000-000000000002"

texts = st.text(st.characters(exclude_categories=["Cs"]))
evidence = st.dictionaries(
    texts, st.none() | st.booleans() | st.integers() | st.floats(0, 1e300) | texts | st.lists(texts)
)


def record(number: int, organization: str = ACME, **detail: Any) -> Record:
    at = NOW + timedelta(seconds=number)
    return Record(f"aud_{number}", organization, at, "token:tok_1", "job.submitted", f"job_{number}", None, detail)


def chain(records: Sequence[Record], signer: Signer = CELL) -> tuple[list[tuple[Record, Seal]], Head]:
    sealed: list[tuple[Record, Seal]] = []
    for each in records:
        sealed.append((each, seal(each, sealed[-1][1] if sealed else None, NOW + timedelta(days=1))))
    head = sign_head(records[-1].organization_id, sealed[-1][1], signer.key_id, signer.key.sign)
    return sealed, head


def export(records: Sequence[Record], after: int = 0, signer: Signer = CELL) -> list[bytes]:
    sealed, head = chain(records, signer)
    lines = [line(each.as_json(place)) for each, place in sealed[after:]]
    return [header_line(records[0].organization_id, after), *lines, head_line(head.as_json())]


TWELVE = [record(n, fence=n, lines=["a", "ü\n"], wait=n / 7) for n in range(1, 13)]
EXPORT = export(TWELVE)


def refusal(lines: Sequence[bytes], **known: Any) -> Broken:
    with pytest.raises(Broken) as caught:
        verify(lines, genuine, **known)
    return caught.value


def test_an_export_verifies_and_says_what_it_holds() -> None:
    found = verify(EXPORT, genuine, CELL.key_id)
    assert (found.organization_id, found.first, found.last, found.key_id) == (ACME, 1, 12, CELL.key_id)
    assert found.hash == json.loads(EXPORT[-2])["seal"]["hash"]
    assert found.sealed_at == "2026-11-24T12:00:00.123Z"


def test_the_form_is_so_simple_that_anybody_can_check_it() -> None:
    """In nothing but what every language has: JSON, SHA-256, Ed25519."""
    import hashlib

    def plain(value: Any) -> bytes:  # canonical JSON, of what has no fractions and no odd names
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()

    lines = export([record(n, text="ü") for n in (1, 2, 3)])
    previous = "0" * 64
    for number, text in enumerate(lines[1:-1], 1):
        document = json.loads(text)
        said = document["seal"].pop("hash")
        assert (document["seal"]["number"], document["seal"]["previous"]) == (number, previous)
        assert hashlib.sha256(plain(document)).hexdigest() == said
        previous = said
    head = json.loads(lines[-1])["head"]
    signature = bytes.fromhex(head.pop("signature"))
    CELL.key.public_key().verify(signature, b"spectrum-audit-head/1\n" + plain(head))
    assert (head["number"], head["hash"]) == (3, previous)


@pytest.mark.parametrize("after", range(13))
def test_an_export_of_the_later_part_verifies_as_that(after: int) -> None:
    found = verify(export(TWELVE, after), genuine)
    assert (found.first, found.last) == (after + 1, 12)


@given(st.lists(evidence, min_size=1, max_size=5))
def test_whatever_the_evidence_is_the_chain_holds_it(details: list[dict[str, Any]]) -> None:
    lines = export([replace(record(n), evidence=detail) for n, detail in enumerate(details, 1)])
    assert verify(lines, genuine).last == len(details)


# A thousand ways to lie ---------------------------------------------------------------------------------------------------

Tamper = Callable[[random.Random, list[bytes]], list[bytes]]


def change_a_byte(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    text = bytearray(b"".join(lines))
    at = rng.randrange(len(text))
    text[at] = rng.choice([byte for byte in range(256) if byte != text[at]])
    return bytes(text).splitlines(keepends=True)


def drop_bytes(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    text = b"".join(lines)
    at = rng.randrange(len(text))
    return (text[:at] + text[at + rng.randint(1, 300) :]).splitlines(keepends=True)


def add_a_byte(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    text = b"".join(lines)
    at = rng.randrange(len(text) + 1)
    return (text[:at] + rng.choice([b" ", b"0", b"\n", b"\r\n", rng.randbytes(1)]) + text[at:]).splitlines(
        keepends=True
    )


def change_a_value(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    """By somebody who knows the form: one member of one line has another value, and the line is canonical again."""
    at = rng.randrange(len(lines))
    document = json.loads(lines[at])
    inside, name = rng.choice(list(members(document)))
    inside[name] = other(rng, inside[name])
    return [*lines[:at], line(document), *lines[at + 1 :]]


def change_a_value_and_its_hash(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    """By somebody who also knows how records are hashed."""
    at = rng.randrange(1, len(lines) - 1)
    document = json.loads(lines[at])
    inside, name = rng.choice([found for found in members(document) if found[1] != "hash" and found[1] != "seal"])
    inside[name] = other(rng, inside[name])
    document["seal"]["hash"] = audit._hash(document).hex()
    return [*lines[:at], line(document), *lines[at + 1 :]]


def take_a_member_away(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    at = rng.randrange(len(lines))
    document = json.loads(lines[at])
    inside, name = rng.choice(list(members(document)))
    del inside[name]
    return [*lines[:at], line(document), *lines[at + 1 :]]


def take_lines_away(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    at = rng.randrange(len(lines))
    return lines[:at] + lines[at + rng.randint(1, 4) :]


def cut_the_end_off(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    text = b"".join(lines)
    return text[: rng.randrange(len(text))].splitlines(keepends=True)


def cut_the_end_off_before_the_head(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    return lines[: rng.randrange(len(lines) - 1)] + lines[-1:]


def cut_the_beginning_off_behind_the_header(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    return lines[:1] + lines[rng.randrange(2, len(lines)) :]


def repeat_lines(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    start = rng.randrange(len(lines))
    copied = lines[start : start + rng.randint(1, 4)]
    at = rng.randrange(len(lines) + 1)
    return lines[:at] + copied + lines[at:]


def shuffle(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    start = rng.randrange(len(lines) - 1)
    part = lines[start : start + rng.randint(2, 6)]
    moved = part
    while moved == part:
        moved = rng.sample(part, len(part))
    return lines[:start] + moved + lines[start + len(part) :]


def move_a_line(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    at, to = rng.sample(range(len(lines)), 2)
    rest = lines[:at] + lines[at + 1 :]
    return [*rest[:to], lines[at], *rest[to:]]


def bring_a_line_from_another_chain(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    """Of another organization, or of the same one with another past: genuine, each by itself."""
    foreign = rng.choice([FOREIGN, REWRITTEN])
    at = rng.randrange(1, len(lines))  # the headers of the two are the same
    return [*lines[:at], foreign[at], *lines[at + 1 :]]


FOREIGN = export([replace(each, organization_id=BETA) for each in TWELVE])
REWRITTEN = export([replace(each, actor="token:tok_2") for each in TWELVE])

TAMPERS: list[Tamper] = [
    change_a_byte,
    drop_bytes,
    add_a_byte,
    change_a_value,
    change_a_value_and_its_hash,
    take_a_member_away,
    take_lines_away,
    cut_the_end_off,
    cut_the_end_off_before_the_head,
    cut_the_beginning_off_behind_the_header,
    repeat_lines,
    shuffle,
    move_a_line,
    bring_a_line_from_another_chain,
]
EACH = 100


def members(document: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Every member of an object and of the objects in it."""
    own = [(document, name) for name in document]
    return own + [found for value in document.values() if isinstance(value, dict) for found in members(value)]


def other(rng: random.Random, value: Any) -> Any:
    """Something else in place of a value, often something near."""
    near: list[Any] = [None, True, 0, -1, 2**60, 0.5, "", "x", [], {}, [value], {"a": value}]
    if isinstance(value, int | float):
        near += [value + 1, value - 1, -value, str(value)] * 3
    if isinstance(value, str) and value:
        near += [value.upper(), value + " ", value[:-1], value[1:] + value[0], value.replace("1", "2")] * 3
    return rng.choice([each for each in near if line({"": each}) != line({"": value})])


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.__name__)
def test_a_thousand_random_changes_to_an_export_are_all_found(tamper: Tamper) -> None:
    """A hundred of each of the kinds above: fourteen hundred in all."""
    for seed in range(EACH):
        rng = random.Random(f"{tamper.__name__}/{seed}")
        forged = tamper(rng, list(EXPORT))
        assert b"".join(forged) != b"".join(EXPORT)
        assert refusal(forged, key_id=CELL.key_id).line <= len(forged) + 1


def test_two_changes_do_not_hide_each_other() -> None:
    for seed in range(500):
        rng = random.Random(seed)
        forged = rng.choice(TAMPERS[3:])(rng, list(EXPORT))
        if len(forged) > 4 and all(map(_is_object, forged)):
            forged = rng.choice([change_a_byte, take_lines_away, move_a_line, repeat_lines])(rng, forged)
        if forged != EXPORT:
            refusal(forged)


def _is_object(text: bytes) -> bool:
    return text.startswith(b"{") and text.endswith(b"}\n")


# What the messages say ---------------------------------------------------------------------------------------------------


def test_a_changed_record_is_named_with_its_line() -> None:
    lines = list(EXPORT)
    document = json.loads(lines[5])
    document["actor"] = "token:tok_other"
    lines[5] = line(document)
    found = refusal(lines)
    assert (found.line, found.message) == (6, "The record aud_5 was changed: its hash is that of something else.")


@pytest.mark.parametrize(
    ("lines", "at", "message"),
    [
        ([], 1, "The head is missing"),
        (EXPORT[:-1], 14, "The head is missing: the end of this export was cut off."),
        ([*EXPORT[:-1], EXPORT[-1][:-1]], 14, "The line is cut off."),
        (EXPORT[1:], 1, "This is not the first line of an audit export"),
        ([*EXPORT[:3], *EXPORT[4:]], 4, "Record 3 is missing: record 4 stands in its place."),
        ([*EXPORT[:4], *EXPORT[3:]], 5, "Record 3 stands where record 4 belongs: moved here, or repeated."),
        ([*EXPORT[:8], EXPORT[-1]], 9, "The chain ends with record 12, this export with record 7."),
        ([*EXPORT, EXPORT[-1]], 15, "Something stands after the head"),
        ([*EXPORT[:4], b"{}\n"], 5, "The record was changed"),
        ([*EXPORT[:4], b"nonsense\n"], 5, "it is no JSON"),
        ([*EXPORT[:4], b'{"evidence":NaN}\n'], 5, "it is no JSON"),
        ([*EXPORT[:4], b"[" * 100_000 + b"\n"], 5, "it is no JSON"),
        ([*EXPORT[:4], EXPORT[4].replace(b",", b", ", 1)], 5, "canonical JSON"),
        ([*EXPORT[:4], EXPORT[4].replace(b'{"action"', b'{"action":"a","action"', 1)], 5, "canonical JSON"),
        ([header_line(ACME, -1)], 1, "An export can't begin after record -1."),
        ([header_line(BETA, 0), *EXPORT[1:]], 2, "The record aud_1 is of another organization than this export."),
        ([*EXPORT[:5], REWRITTEN[5]], 6, "Record 5 was not sealed after the record before it"),
        ([header_line(ACME, 12), FOREIGN[-1]], 2, "The head is of another organization than this export."),
        ([*EXPORT[:-1], REWRITTEN[-1]], 14, "The head is of another chain than record 12 before it."),
        ([*EXPORT[:-1], EXPORT[-1].replace(b"00", b"01", 1)], 14, "The head was changed: its signature does not fit."),
    ],
)
def test_what_is_wrong_is_said_with_its_line(lines: list[bytes], at: int, message: str) -> None:
    found = refusal(lines)
    assert found.line == at
    assert message in found.message


def test_a_record_with_a_fitting_hash_but_without_sense_is_refused() -> None:
    for odd in ("3", True, None, 3.5):
        document = json.loads(EXPORT[3])
        document["seal"]["number"] = odd
        document["seal"]["hash"] = audit._hash(document).hex()
        assert refusal([*EXPORT[:3], line(document)]).line == 4


def test_a_head_that_a_stranger_signed_is_found_by_who_knows_the_key_and_only_then() -> None:
    forged = export([replace(each, actor="token:tok_other") for each in TWELVE], signer=STRANGER)
    assert verify(forged, genuine).key_id == STRANGER.key_id
    found = refusal(forged, key_id=CELL.key_id)
    assert (found.line, STRANGER.key_id in found.message) == (14, True)


def test_an_older_export_is_found_by_who_knows_a_later_record() -> None:
    sealed, _ = chain(TWELVE)
    known = Known(12, sealed[11][1].hash.hex())
    assert verify(EXPORT, genuine, known=known).last == 12
    assert verify(export(TWELVE[:9]), genuine).last == 9
    assert "which ends with 9" in refusal(export(TWELVE[:9]), known=known).message
    assert "which begins after 12" in refusal(export(TWELVE, 12), known=known).message


def test_a_chain_that_was_written_anew_is_found_by_who_knows_one_of_its_records() -> None:
    known = Known(4, json.loads(EXPORT[4])["seal"]["hash"])
    assert (
        refusal(REWRITTEN, known=known).message == "Record 4 is not the one that you know: the chain was written anew."
    )

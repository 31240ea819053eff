"""The sealer on a real PostgreSQL: one chain per organization, without gap or repeat, whatever commits, crashes or races."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from spectrum.control.audit import sealer
from spectrum.core.audit import Broken, Verified, head_line, header_line, line, verify
from spectrum.core.jobs.store import Unavailable
from spectrum.core.signing import Signer, genuine
from spectrum.db.audit import AuditChains, head_of, record_of, seal_of
from spectrum.db.leading import Leading, LeadLost
from spectrum.db.pools import Pool, Role, open_pool
from spectrum.ports import SystemClock, SystemEntropy, Tasks
from tests.db.proxy import forward, proxied
from tests.db.rows import NOW, insert_row, make_id
from tests.postgres import Database
from tests.waiting import until

pytestmark = pytest.mark.anyio

CELL = Signer.of(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
NEXT = Signer.of(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
MESSAGES = 30  # more than sealing needs


@dataclass
class Here:
    """A database with two organizations; `system` is what sealers use."""

    database: Database
    admin: Any
    system: Pool
    acme: str
    beta: str

    async def session(self) -> Any:
        return await asyncpg.connect(self.database.admin_url)

    async def write(self, session: Any, organization: str, evidence: Any = None, **columns: Any) -> str:
        """A record that is not sealed yet; returns its id."""
        row = {
            "id": make_id("aud"),
            "recorded_at": NOW,
            "actor": "tester",
            "action": "job.submitted",
            "subject": "job_1",
        }
        row |= {"organization_id": organization, "evidence": json.dumps(evidence or {})} | columns
        await insert_row(session, "audit", row)
        return str(row["id"])

    def copy(self, name: str, pool: Pool | None = None, signer: Signer = CELL) -> AuditChains:
        system = pool or self.system
        return AuditChains(system, Leading(system, "sealer", name, 3600.0, 0.0), signer)

    async def chain(self, organization: str) -> list[tuple[int | None, str]]:
        rows = await self.admin.fetch(
            "SELECT seal_number, id FROM audit WHERE organization_id = $1 ORDER BY seal_number, id", organization
        )
        return [tuple(row) for row in rows]

    async def exported(self, organization: str) -> list[bytes]:
        sealed = "SELECT * FROM audit WHERE organization_id = $1 AND seal_number IS NOT NULL ORDER BY seal_number"
        rows = await self.system.fetch(sealed, organization)
        head = await self.system.fetchrow("SELECT * FROM audit_heads WHERE organization_id = $1", organization)
        assert head is not None
        lines = [line(record_of(row).as_json(seal_of(row))) for row in rows]
        return [header_line(organization, 0), *lines, head_line(head_of(head).as_json())]

    async def verified(self, organization: str) -> Verified:
        return verify(await self.exported(organization), genuine, CELL.key_id)


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Here]:
    admin = await asyncpg.connect(database.admin_url)
    system = await open_pool(database.urls[Role.SYSTEM], Role.SYSTEM, "test system")
    acme, beta = make_id("org"), make_id("org")
    for identifier, name in ((acme, "acme"), (beta, "beta")):
        await insert_row(admin, "organizations", {"id": identifier, "name": name})
    yield Here(database, admin, system, acme, beta)
    await system.close()
    await admin.close()


async def leading(here: Here, name: str = "a", signer: Signer = CELL) -> tuple[AuditChains, int]:
    chains = here.copy(name, signer=signer)
    term = await chains.leading.take()
    assert term is not None
    return chains, term


async def test_each_organization_has_a_chain_of_its_own_that_verifies(here: Here) -> None:
    for _ in range(3):
        for organization in (here.acme, here.beta):
            await here.write(here.admin, organization)
    chains, term = await leading(here)

    done = await chains.seal(term, 100)

    assert (done.count, done.last) == (6, here.beta)
    for organization in (here.acme, here.beta):
        assert [number for number, _ in await here.chain(organization)] == [1, 2, 3]
        assert (await here.verified(organization)).last == 3
    assert not await chains.waits()


async def test_a_later_batch_goes_on_where_the_chain_ended(here: Here) -> None:
    chains, term = await leading(here)
    ids = []
    for _ in range(4):
        ids.append(await here.write(here.admin, here.acme))
        await chains.seal(term, 100)
    assert await here.chain(here.acme) == list(enumerate(ids, 1))
    assert (await here.verified(here.acme)).last == 4


async def test_a_record_that_commits_late_gets_the_next_number_and_changes_none(here: Here) -> None:
    """Its id is the older one; it is passed over once, not for good."""
    slow = await here.session()
    in_slow = slow.transaction()
    await in_slow.start()
    late = await here.write(slow, here.acme)
    early = await here.write(here.admin, here.acme)
    chains, term = await leading(here)
    await chains.seal(term, 100)
    before = await here.exported(here.acme)
    await in_slow.commit()
    await slow.close()

    await chains.seal(term, 100)

    assert late < early
    assert await here.chain(here.acme) == [(1, early), (2, late)]
    assert (await here.exported(here.acme))[:2] == before[:2]
    assert (await here.verified(here.acme)).last == 2


async def test_what_was_rolled_back_leaves_no_gap(here: Here) -> None:
    session = await here.session()
    undone = session.transaction()
    await undone.start()
    await here.write(session, here.acme)
    await undone.rollback()
    await session.close()
    await here.write(here.admin, here.acme)
    chains, term = await leading(here)
    await chains.seal(term, 100)
    assert [number for number, _ in await here.chain(here.acme)] == [1]


async def test_a_backlog_is_sealed_in_batches_without_gap_or_repeat(here: Here) -> None:
    for _ in range(25):
        await here.write(here.admin, here.acme)
    chains, term = await leading(here)
    rounds = 0
    while (await chains.seal(term, 7)).count:
        rounds += 1
    assert rounds == 4
    assert (await here.verified(here.acme)).last == 25


async def test_an_organization_with_much_to_seal_does_not_keep_others_waiting(here: Here) -> None:
    for _ in range(30):
        await here.write(here.admin, here.acme)
    await here.write(here.admin, here.beta)
    chains, term = await leading(here)
    first = await chains.seal(term, 5)
    second = await chains.seal(term, 5, first.last)
    assert (first.last, second.last, second.count) == (here.acme, here.beta, 1)
    assert (await chains.seal(term, 5, second.last)).last == here.acme


async def test_whatever_jsonb_makes_of_the_evidence_is_what_is_sealed(here: Here) -> None:
    odd = {"ü\U0001f600": "a\u2028\n\x7f", "b": [1.0, 1e-7, 1e30, 2**80, -0.0, 0.1], "€": {"z": None, "a": True}}
    await here.write(here.admin, here.acme, odd, request_id="req_1", recorded_at=NOW + timedelta(microseconds=123_456))
    chains, term = await leading(here)
    await chains.seal(term, 100)
    assert (await here.verified(here.acme)).last == 1


# ---- nobody else writes the chain


async def test_a_sealer_whose_term_is_over_writes_nothing(here: Here) -> None:
    old, old_term = await leading(here, "old")
    await here.write(here.admin, here.acme)
    await here.admin.execute("UPDATE leader_terms SET expires_at = '-infinity'")
    new, new_term = await leading(here, "new")

    with pytest.raises(LeadLost):
        await old.seal(old_term, 100)

    assert new_term > old_term
    assert [number for number, _ in await here.chain(here.acme)] == [None]
    await new.seal(new_term, 100)
    with pytest.raises(LeadLost):
        await old.seal(old_term, 100)
    assert (await here.verified(here.acme)).last == 1


async def test_sealers_that_take_over_from_each_other_all_the_time_make_one_chain(here: Here) -> None:
    tasks = Tasks()
    sealed_by: set[str] = set()

    async def lead(name: str) -> None:
        chains = here.copy(name)
        while True:
            term = await chains.leading.take()
            if term is None:
                continue
            with suppress(LeadLost):
                while True:  # until somebody else's term has begun
                    if (await chains.seal(term, 3)).count:
                        sealed_by.add(name)

    async def write(organization: str) -> None:
        session = await here.session()
        for _ in range(40):
            async with session.transaction():
                await here.write(session, organization)
            await session.execute("UPDATE leader_terms SET expires_at = '-infinity'")
        await session.close()

    for name in ("a", "b"):
        tasks.spawn(lead(name), name)
    await asyncio.gather(write(here.acme), write(here.acme), write(here.beta))
    await until(lambda: here.admin.fetchval("SELECT count(*) = count(seal_number) FROM audit"))
    await tasks.close()

    assert sealed_by == {"a", "b"}
    assert (await here.verified(here.acme)).last == 80
    assert (await here.verified(here.beta)).last == 40


async def test_a_connection_that_is_cut_at_any_message_leaves_a_chain_that_verifies(here: Here) -> None:
    await leading(here)
    written, broken = 0, 0
    async with proxied(here.database.urls[Role.SYSTEM]) as (proxy, url):
        pool = await open_pool(url, Role.SYSTEM, "test proxied")
        chains = here.copy("a", pool)
        for number in range(MESSAGES):
            written += 1
            await here.write(here.admin, here.acme)
            proxy.cut_at(number)
            try:
                await chains.seal(1, 100)
            except Unavailable:
                broken += 1
        proxy.treat = forward
        await chains.seal(1, 100)
        await pool.close()

    assert 5 < broken < MESSAGES
    assert (await here.verified(here.acme)).last == written


async def test_seals_whose_commit_was_not_acknowledged_are_not_given_again(here: Here) -> None:
    await leading(here)
    await here.write(here.admin, here.acme)
    async with proxied(here.database.urls[Role.SYSTEM]) as (proxy, url):
        pool = await open_pool(url, Role.SYSTEM, "test proxied")
        chains = here.copy("a", pool)
        proxy.at_commit(lambda link, said: link.deliver_and_swallow_the_answer(said))
        with pytest.raises(Unavailable):
            await chains.seal(1, 100)
        before = await here.exported(here.acme)
        await here.write(here.admin, here.acme)
        await chains.seal(1, 100)
        await pool.close()

    assert (await here.exported(here.acme))[:2] == before[:2]
    assert (await here.verified(here.acme)).last == 2


async def test_a_sealer_goes_on_after_its_connections_were_ended(here: Here) -> None:
    tasks = Tasks()
    pool = await open_pool(here.database.urls[Role.SYSTEM], Role.SYSTEM, "test sealer")
    leader = sealer(here.copy("a", pool), SystemClock(), SystemEntropy(), period=0.01)
    tasks.spawn(leader.run(), "sealer")
    for count in (1, 2):
        await here.write(here.admin, here.acme)
        await until(lambda: here.admin.fetchval("SELECT count(*) = count(seal_number) FROM audit"))
        assert (await here.verified(here.acme)).last == count
        await here.admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'test sealer'"
        )
    await tasks.close()
    await pool.close()


# ---- what somebody did to the database


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET actor = 'somebody' WHERE seal_number = 3",
        "UPDATE audit SET evidence = '{\"a\": 7}' WHERE seal_number = 3",
        "UPDATE audit SET recorded_at = recorded_at + interval '1 hour' WHERE seal_number = 3",
        "UPDATE audit SET seal_hash = seal_previous WHERE seal_number = 3",
        "UPDATE audit SET seal_number = CASE seal_number WHEN 3 THEN 4 ELSE 3 END WHERE seal_number IN (3, 4)",
        "DELETE FROM audit WHERE seal_number = 1",
        "DELETE FROM audit WHERE seal_number = 3",
        "DELETE FROM audit WHERE seal_number = 5",
        "UPDATE audit_heads SET number = 4, hash = (SELECT seal_hash FROM audit WHERE seal_number = 4)",
    ],
)
async def test_what_is_changed_in_the_database_past_all_rules_shows_in_an_export(here: Here, change: str) -> None:
    for number in range(5):
        await here.write(here.admin, here.acme, {"a": number})
    chains, term = await leading(here)
    await chains.seal(term, 100)
    assert (await here.verified(here.acme)).last == 5
    await here.admin.execute("ALTER TABLE audit DISABLE TRIGGER USER")
    await here.admin.execute(change)

    with pytest.raises(Broken):
        await here.verified(here.acme)


async def test_a_forged_head_is_not_built_upon_and_others_go_on(here: Here) -> None:
    chains, term = await leading(here)
    for organization in (here.acme, here.beta):
        await here.write(here.admin, organization)
    await chains.seal(term, 100)
    await here.admin.execute("UPDATE audit_heads SET number = 7 WHERE organization_id = $1", here.acme)
    for organization in (here.acme, here.beta):
        await here.write(here.admin, organization)

    done = await chains.seal(term, 100)

    assert done.count == 1
    assert (await here.verified(here.beta)).last == 2
    assert [number for number, _ in await here.chain(here.acme)] == [1, None]
    assert (await chains.seal(term, 100)).count == 0


async def test_a_chain_whose_head_was_lost_goes_on_after_its_last_record(here: Here) -> None:
    chains, term = await leading(here)
    await here.write(here.admin, here.acme)
    await chains.seal(term, 100)
    await here.admin.execute("DELETE FROM audit_heads")
    await here.write(here.admin, here.acme)
    await chains.seal(term, 100)
    assert (await here.verified(here.acme)).last == 2


async def test_a_chain_goes_on_under_the_next_key_of_the_cell(here: Here) -> None:
    for signer in (CELL, NEXT):
        await here.write(here.admin, here.acme)
        chains, term = await leading(here, "a", signer)
        await chains.seal(term, 100)
    found = verify(await here.exported(here.acme), genuine)
    assert (found.last, found.key_id) == (2, NEXT.key_id)

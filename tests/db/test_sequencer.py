"""The sequencer on a real PostgreSQL: gapless positions in an order that keeps every subject's, whatever commits when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest

from spectrum.control.sequencer import sequencer
from spectrum.core.jobs.store import Unavailable
from spectrum.db.leading import LeadLost
from spectrum.db.log import EventLog
from spectrum.db.pools import Role, open_pool
from spectrum.ports import SystemClock, SystemEntropy, Tasks
from tests.db.proxy import forward, proxied
from tests.db.rows import NOW
from tests.db.telling import Log, written_log
from tests.postgres import Database
from tests.waiting import until

pytestmark = pytest.mark.anyio

MESSAGES = 30  # more than placing needs
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Log]:
    async with written_log(database) as made:
        yield made


async def leading(here: Log, name: str = "a") -> tuple[EventLog, int]:
    log = here.copy(name)
    term = await log.leading.take()
    assert term is not None
    return log, term


async def test_the_first_start_gives_positions_from_one_on(here: Log) -> None:
    for sequence in (1, 2, 3):
        await here.tell(here.admin, "ins_a", sequence)
    log, term = await leading(here)

    placed = await log.place(term, 100)

    assert (placed.count, placed.more) == (3, False)
    assert await here.log() == [(1, "ins_a", 1), (2, "ins_a", 2), (3, "ins_a", 3)]
    assert not await log.waits()


async def test_a_log_whose_cursor_was_lost_goes_on_after_its_last_position(here: Log) -> None:
    await here.tell(here.admin, "ins_a", 1)
    await here.admin.execute("UPDATE events SET position = 41")
    await here.tell(here.admin, "ins_a", 2)
    log, term = await leading(here)

    await log.place(term, 100)

    assert await here.log() == [(41, "ins_a", 1), (42, "ins_a", 2)]


async def test_sessions_that_commit_in_another_order_than_they_began_keep_each_subjects_order(here: Log) -> None:
    """The second session's transaction id is older than the first's, its event is the later one; a third stays open."""
    first = await here.session()
    log, term = await leading(here)
    second, in_second = await here.begun()
    await second.execute("SELECT pg_current_xact_id()")
    open_one, in_third = await here.begun()
    await here.tell(open_one, "ins_b", 1)
    async with first.transaction():
        await here.tell(first, "ins_a", 1, NOW + timedelta(seconds=5))  # by a clock that was ahead
    await log.place(term, 100)
    await here.tell(second, "ins_a", 2, NOW)
    await in_second.commit()
    await log.place(term, 100)

    assert (await here.log())[:2] == [(1, "ins_a", 1), (2, "ins_a", 2)]

    await in_third.commit()
    await log.place(term, 100)
    assert await here.log() == [(1, "ins_a", 1), (2, "ins_a", 2), (3, "ins_b", 1)]
    for session in (first, second, open_one):
        await session.close()


async def test_a_subject_told_in_one_batch_by_inverted_transactions_keeps_its_order_in_batches_of_one(
    here: Log,
) -> None:
    first = await here.session()
    second, in_second = await here.begun()
    await second.execute("SELECT pg_current_xact_id()")
    async with first.transaction():
        await here.tell(first, "ins_a", 1, NOW + timedelta(seconds=5))
    await here.tell(second, "ins_a", 2, NOW)
    await in_second.commit()
    log, term = await leading(here)

    while (await log.place(term, 1)).more:
        pass

    assert await here.log() == [(1, "ins_a", 1), (2, "ins_a", 2)]
    for session in (first, second):
        await session.close()


async def test_a_transaction_that_stays_open_for_long_holds_up_nobody(here: Log) -> None:
    slow, in_slow = await here.begun()
    await here.tell(slow, "ins_slow", 1)
    log, term = await leading(here)
    for sequence in range(1, 6):
        await here.tell(here.admin, "ins_a", sequence)
        await log.place(term, 100)

    assert [row[:2] for row in await here.log()][:5] == [(n, "ins_a") for n in range(1, 6)]
    assert await log.place(term, 100) == await log.place(term, 100)

    await in_slow.commit()
    await log.place(term, 100)
    assert (await here.log())[-1] == (6, "ins_slow", 1)
    await slow.close()


async def test_what_was_rolled_back_gets_no_position_and_leaves_no_gap(here: Log) -> None:
    session, undone = await here.begun()
    await here.tell(session, "ins_a", 1)
    await undone.rollback()
    await here.tell(here.admin, "ins_b", 1)
    log, term = await leading(here)

    await log.place(term, 100)

    assert await here.log() == [(1, "ins_b", 1)]
    await session.close()


async def test_a_backlog_is_worked_off_in_batches_without_gap_or_repeat(here: Log) -> None:
    for sequence in range(1, 31):
        for subject in ("ins_a", "ins_b"):
            await here.tell(here.admin, subject, sequence, NOW - timedelta(seconds=sequence))
    log, term = await leading(here)
    rounds = 1
    while (await log.place(term, 7)).more:
        rounds += 1

    found = await here.log()
    assert rounds > 2
    assert [row[0] for row in found] == list(range(1, 61))
    for subject in ("ins_a", "ins_b"):
        assert [row[2] for row in found if row[1] == subject] == list(range(1, 31))


async def test_a_leader_whose_term_is_over_writes_nothing(here: Log) -> None:
    old, old_term = await leading(here, "old")
    await here.tell(here.admin, "ins_a", 1)
    await here.admin.execute("UPDATE leader_terms SET expires_at = '-infinity'")
    new, new_term = await leading(here, "new")

    with pytest.raises(LeadLost):
        await old.place(old_term, 100)
    with pytest.raises(LeadLost):
        await old.leading.renew(old_term)

    assert new_term > old_term
    assert await here.log() == [(None, "ins_a", 1)]
    await new.place(new_term, 100)
    assert await here.log() == [(1, "ins_a", 1)]


async def test_nobody_takes_over_from_a_leader_that_renews(here: Log) -> None:
    log, term = await leading(here, "a")
    await log.leading.renew(term)

    assert await here.copy("b").leading.take() is None


async def test_who_takes_over_in_the_middle_of_a_leaders_writing_waits_for_its_end(here: Log) -> None:
    log, term = await leading(here, "a")
    await log.leading.resign(term)
    async with here.system.acquire() as connection, connection.transaction():
        await log.leading.hold(connection, term)
        taking = asyncio.ensure_future(here.copy("b").leading.take())
        await until(lambda: here.admin.fetchval(BLOCKED))
        assert not taking.done()

    assert await taking == term + 1


async def test_a_leader_that_resigned_is_followed_at_once_and_one_under_a_wrong_clock_too(here: Log) -> None:
    log, term = await leading(here, "a")
    await log.leading.resign(term)
    _, second = await leading(here, "b")
    await here.admin.execute("UPDATE leader_terms SET expires_at = clock_timestamp() + interval '1 day'")
    _, third = await leading(here, "c")

    assert term < second < third


async def test_a_connection_that_is_cut_at_any_message_leaves_no_gap_and_no_repeat(here: Log) -> None:
    await leading(here)
    told, broken = 0, 0
    async with proxied(here.database.urls[Role.SYSTEM]) as (proxy, url):
        pool = await open_pool(url, Role.SYSTEM, "test proxied")
        log = here.copy("a", pool)
        for number in range(MESSAGES):
            told += 1
            await here.tell(here.admin, "ins_a", told)
            proxy.cut_at(number)
            try:
                await log.place(1, 100)
            except Unavailable:
                broken += 1
        proxy.treat = forward
        await log.place(1, 100)
        await pool.close()

    assert 5 < broken < MESSAGES
    assert await here.log() == [(n, "ins_a", n) for n in range(1, MESSAGES + 1)]


async def test_positions_whose_commit_was_not_acknowledged_are_not_given_again(here: Log) -> None:
    await leading(here)
    await here.tell(here.admin, "ins_a", 1)
    async with proxied(here.database.urls[Role.SYSTEM]) as (proxy, url):
        pool = await open_pool(url, Role.SYSTEM, "test proxied")
        log = here.copy("a", pool)
        proxy.at_commit(lambda link, said: link.deliver_and_swallow_the_answer(said))
        with pytest.raises(Unavailable):
            await log.place(1, 100)
        await here.tell(here.admin, "ins_a", 2)
        await log.place(1, 100)
        await pool.close()

    assert await here.log() == [(1, "ins_a", 1), (2, "ins_a", 2)]


async def test_a_restored_database_goes_on_after_its_last_position_and_leaves_nothing_out(here: Log) -> None:
    """Transaction ids of the old epoch lie in the future of the new one, and so does the stored snapshot."""
    await here.tell(here.admin, "ins_a", 1)
    log, term = await leading(here)
    await log.place(term, 100)
    await here.tell(here.admin, "ins_a", 2)
    await here.admin.execute("UPDATE events SET xid = '99999999' WHERE position IS NULL")
    await here.admin.execute("UPDATE cursors SET snapshot = '99999000:99999990:'")
    await here.admin.execute("UPDATE cell SET epoch = 2")
    await here.tell(here.admin, "ins_a", 3, epoch=2)

    await log.place(term, 100)

    assert await here.log() == [(1, "ins_a", 1), (2, "ins_a", 2), (3, "ins_a", 3)]
    row = await here.admin.fetchrow("SELECT epoch, position, term FROM cursors WHERE consumer = 'sequencer'")
    assert tuple(row) == (2, 3, term)
    await here.tell(here.admin, "ins_a", 4, epoch=2)
    await log.place(term, 100)
    assert (await here.log())[-1] == (4, "ins_a", 4)


async def test_a_database_restored_by_hand_under_the_same_epoch_leaves_nothing_out_either(here: Log) -> None:
    await here.tell(here.admin, "ins_a", 1)
    log, term = await leading(here)
    await log.place(term, 100)
    await here.tell(here.admin, "ins_a", 2)
    await here.admin.execute("UPDATE cursors SET snapshot = '99999000:99999990:'")

    await log.place(term, 100)

    assert (await here.log())[-1] == (2, "ins_a", 2)


async def test_copies_that_take_over_from_each_other_all_the_time_make_one_gapless_log(here: Log) -> None:
    tasks = Tasks()
    led: set[str] = set()

    async def lead(name: str) -> None:
        log = here.copy(name)
        while True:
            term = await log.leading.take()
            if term is None:
                continue
            led.add(name)
            with suppress(LeadLost):
                while True:  # until somebody else's term has begun
                    await log.place(term, 3)

    async def write(subject: str) -> None:
        session = await here.session()
        for sequence in range(1, 31):
            async with session.transaction():
                await here.tell(session, subject, sequence)
            await session.execute("UPDATE leader_terms SET expires_at = '-infinity'")
        await session.close()

    for name in ("a", "b"):
        tasks.spawn(lead(name), name)
    await asyncio.gather(*(write(f"ins_{n}") for n in range(3)))
    await until(lambda: here.admin.fetchval("SELECT count(*) = 0 FROM events WHERE position IS NULL"))
    await tasks.close()

    found = await here.log()
    assert led == {"a", "b"}
    assert [row[0] for row in found] == list(range(1, 91))
    for n in range(3):
        assert [row[2] for row in found if row[1] == f"ins_{n}"] == list(range(1, 31))


async def test_a_sequencer_goes_on_after_its_connections_were_ended(here: Log) -> None:
    tasks = Tasks()
    leader = sequencer(here.copy("a"), SystemClock(), SystemEntropy(), period=0.01)
    tasks.spawn(leader.run(), "sequencer")
    await here.tell(here.admin, "ins_a", 1)
    await _until_placed(here, 1)
    await here.admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1 AND datname = current_database()",
        Role.SYSTEM,
    )
    await here.tell(here.admin, "ins_a", 2)

    await _until_placed(here, 2)

    assert await here.log() == [(1, "ins_a", 1), (2, "ins_a", 2)]
    await tasks.close()


async def _until_placed(here: Log, count: int) -> None:
    await until(lambda: here.admin.fetchval("SELECT count(position) = $1 FROM events", count))

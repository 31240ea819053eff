"""Reading the log by position on a real PostgreSQL: everything once in order, nothing skipped, and by the one who leads alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from spectrum.core.jobs.store import Unavailable
from spectrum.db.leading import LeadLost
from spectrum.db.log_reader import LogGap, LogReader
from spectrum.db.pools import Role, open_pool
from tests.db.proxy import forward, proxied
from tests.db.telling import Log, written_log
from tests.postgres import Database

pytestmark = pytest.mark.anyio

MESSAGES = 30  # more than moving a cursor needs


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Log]:
    async with written_log(database) as made:
        yield made


async def leading(here: Log, name: str = "a") -> tuple[LogReader, int]:
    reader = here.reader(name)
    term = await reader.leading.take()
    assert term is not None
    return reader, term


async def positions(reader: LogReader, term: int, limit: int = 100) -> list[int]:
    return [row["position"] for row in await reader.next(term, limit)]


async def test_a_new_reader_begins_with_the_oldest_event_and_goes_on_behind_what_it_has_dealt_with(here: Log) -> None:
    await here.grow(first=41, count=5, subjects=2)
    reader, term = await leading(here)

    assert await positions(reader, term, 3) == [41, 42, 43]
    assert await positions(reader, term, 3) == [41, 42, 43]
    await reader.advance(term, 42)
    assert await positions(reader, term) == [43, 44, 45]
    await reader.advance(term, 45)
    assert await positions(reader, term) == []


async def test_what_has_no_position_yet_is_not_read(here: Log) -> None:
    await here.tell(here.admin, "ins_a", 1)
    reader, term = await leading(here)
    assert await positions(reader, term) == []

    log = here.copy("a")
    placing = await log.leading.take()
    assert placing is not None
    await log.place(placing, 10)

    assert await positions(reader, term) == [1]


async def test_what_is_missing_in_the_log_is_not_skipped(here: Log) -> None:
    await here.grow(first=1, count=10, subjects=2)
    reader, term = await leading(here)
    await positions(reader, term, 3)
    await reader.advance(term, 3)
    await here.admin.execute("DELETE FROM events WHERE position IN (6, 7)")

    with pytest.raises(LogGap, match=r"no event at position 6, .* but one at 8\..* in the table cursors to 7\."):
        await reader.next(term, 100)
    assert await positions(reader, term, 2) == [4, 5]


async def test_who_leads_no_more_reads_nothing_and_moves_nothing(here: Log) -> None:
    await here.grow(first=1, count=3, subjects=1)
    old, old_term = await leading(here, "old")
    await positions(old, old_term)
    await here.admin.execute("UPDATE leader_terms SET expires_at = '-infinity'")
    new, new_term = await leading(here, "new")

    with pytest.raises(LeadLost):
        await old.next(old_term, 100)
    with pytest.raises(LeadLost):
        await old.advance(old_term, 3)

    assert await positions(new, new_term) == [1, 2, 3]


async def test_a_connection_that_is_cut_at_any_message_skips_nothing(here: Log) -> None:
    await here.grow(first=1, count=MESSAGES, subjects=3)
    _, term = await leading(here)
    dealt_with: list[int] = []
    broken = 0
    async with proxied(here.database.urls[Role.SYSTEM]) as (proxy, url):
        pool = await open_pool(url, Role.SYSTEM, "test proxied")
        reader = here.reader("a", pool)
        for number in range(MESSAGES):
            proxy.cut_at(number)
            try:
                for position in await positions(reader, term, 2):
                    dealt_with.append(position)
                    await reader.advance(term, position)
            except Unavailable:
                broken += 1
        proxy.treat = forward
        while more := await positions(reader, term):
            dealt_with += more
            await reader.advance(term, more[-1])
        await pool.close()

    assert 5 < broken < MESSAGES
    assert list(dict.fromkeys(dealt_with)) == list(range(1, MESSAGES + 1))

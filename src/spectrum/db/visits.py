"""Transactions on behalf of a caller who waits for an answer: PostgreSQL being away or busy is a Problem, to be tried again.

A mutation whose commit was not acknowledged ends like this too: sent again, its Idempotency-Key tells whether it was done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import asyncpg

from spectrum.core.errors import Problem
from spectrum.db.losses import BUSY, is_loss
from spectrum.db.pools import Connection, Pool, acquired, give_back, scoped, transaction

Row: TypeAlias = "asyncpg.Record"


@asynccontextmanager
async def visiting(pool: Pool, organizations: Iterable[str]) -> AsyncIterator[Connection]:
    """A transaction with the rows of these organizations. Raises Problem `unavailable`."""
    with _answerable():
        async with scoped(pool, organizations) as connection:
            yield connection


@asynccontextmanager
async def looking_up(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction of `spectrum_system`, which finds hashes and ids over all organizations. Raises Problem `unavailable`."""
    with _answerable():
        async with transaction(pool) as connection:
            yield connection


async def look_up(pool: Pool, text: str, *arguments: Any) -> list[Row]:
    """The rows of one statement as `spectrum_system`, a transaction by itself. Raises Problem `unavailable`."""
    with _answerable():
        connection = await acquired(pool)
        try:
            return await connection.fetch(text, *arguments)
        finally:
            await give_back(pool, connection)


async def look_up_row(pool: Pool, text: str, *arguments: Any) -> Row | None:
    """The first row of what `look_up` finds."""
    return next(iter(await look_up(pool, text, *arguments)), None)


@contextmanager
def _answerable() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_loss(error) or isinstance(error, BUSY):
            raise _unavailable() from error
        raise


def _unavailable() -> Problem:
    return Problem("unavailable", "The database does not answer right now: try again in a second.")

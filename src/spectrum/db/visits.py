"""Transactions on behalf of a caller who waits for an answer: PostgreSQL being away or busy is a Problem, to be tried again.

A mutation whose commit was not acknowledged ends like this too: sent again, its Idempotency-Key tells whether it was done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import asyncpg

from spectrum.core.errors import Problem
from spectrum.db.losses import BUSY, is_loss
from spectrum.db.pools import Connection, Pool, scoped, transaction

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

"""Which errors of the driver say that the database is away or busy, and nothing about the statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from spectrum.core.errors import Problem
from spectrum.core.jobs.store import Unavailable

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, starting up, a statement that took too long
    asyncpg.InsufficientResourcesError,  # no more connections, no more disk
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, in the middle of a failover
    asyncpg.InternalClientError,  # the goodbye of a server that was stopped, met on an idle connection
)


class Overtaken(Exception):
    """What the transaction rests on was changed by another since it was read, and is not locked by instance."""


BUSY = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError, Overtaken)
"""What says that the whole transaction may simply be run again."""

# The driver says both by the same class as a mistake of ours.
_CLOSED = ("closed", "closing", "released back to the pool")


def is_loss(error: BaseException) -> bool:
    """Whether the connection or the server is gone, or ended the transaction for a reason of its own."""
    if isinstance(error, AWAY):
        return not isinstance(error, asyncpg.OutdatedSchemaCacheError)
    if not isinstance(error, asyncpg.InterfaceError) or isinstance(error, ValueError):
        return False
    # Closing a transaction whose connection was lost complains about that, and hides the loss itself.
    hidden = error.__context__
    return (hidden is not None and is_loss(hidden)) or any(word in str(error) for word in _CLOSED)


def broke_off(error: BaseException) -> Unavailable:
    return Unavailable(f"the database broke off ({str(error) or type(error).__name__})")


@contextmanager
def answerable() -> Iterator[None]:
    """What the database does of its own accord is `Unavailable`: whoever asked may ask again."""
    try:
        yield
    except Problem as problem:
        if problem.slug == "unavailable":
            raise Unavailable(problem.detail) from problem
        raise
    except Exception as error:
        if is_loss(error) or isinstance(error, BUSY):
            raise broke_off(error) from error
        raise

"""A change outside of the engine: one transaction with its key, its answer, its audit row and its events (DESIGN §3.1, §3.20)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from spectrum.control.commands import Mutation, Reply, key_reused
from spectrum.control.reads import Reads
from spectrum.core.access import Principal
from spectrum.core.events.catalogue import type_of
from spectrum.core.sealing import ENTROPY_BYTES, Context, Keyring, Sealed
from spectrum.db.pools import Connection, Pool
from spectrum.db.sql import query
from spectrum.db.visits import Row, visiting
from spectrum.ports import Entropy, new_id

KEY_LIFE = timedelta(days=30)
SECRET_LIFE = timedelta(hours=1)

_BEGIN = query("change_begin")
_MOMENT = query("change_moment")
_FIND = query("changes_find")
_REMEMBER = query("change_remember")
_AUDIT = query("change_audit")
_EVENT = query("change_event")

_SHOWN = "The secret in this answer was shown when it was made, and is not kept longer than an hour."


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open change: its connection, its moment by PostgreSQL's clock, and who makes it."""

    connection: Connection
    now: datetime
    actor: str
    request_id: str | None
    traceparent: str
    entropy: Entropy

    def new_id(self, prefix: str) -> str:
        return new_id(prefix, self.now, self.entropy)

    async def audit(
        self,
        organization: str,
        action: str,
        subject: str,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        """Write down who did `action` to the thing with the id `subject`."""
        row = (self.new_id("aud"), organization, self.now, self.actor, action, subject, self.request_id)
        await self.connection.execute(_AUDIT, *row, dict(evidence or {}))

    async def event(self, organization: str, kind: str, subject: str, sequence: int, data: Mapping[str, Any]) -> None:
        """Tell a fact of the catalogue, such as `worker.revoked`, the `sequence`-th about the thing with the id `subject`."""
        row = (self.new_id("evt"), organization, subject, sequence, type_of(kind), dict(data))
        await self.connection.execute(_EVENT, *row, self.traceparent or None, self.now)


Work = Callable[[Transaction], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Changes:
    """Runs changes. `pool` is the API's role, and `engine` the engine's, for rows that only that one may write."""

    pool: Pool
    engine: Pool
    keyring: Keyring
    entropy: Entropy
    reads: Reads  # as the API's role

    async def find(self, mutation: Mutation) -> Reply | None:
        """What was answered to this mutation before. Raises Problem `idempotency-key-reused`."""
        return self._stored(await self.reads.ask(mutation.principal.organization, _stored_rows, mutation), mutation)

    async def run(self, mutation: Mutation, work: Work, *others: str, as_engine: bool = False) -> Reply:
        """Do `work` once for the mutation's key and remember what it answers; a repeat gets the same answer.

        The transaction sees the principal's organization and `others`. What `work` raises undoes everything, the key too.
        """
        owner = mutation.principal.organization
        async with visiting(self.engine if as_engine else self.pool, [owner, *others]) as connection:
            now = await connection.fetchval(_BEGIN, "\n".join(_key(mutation)))
            if stored := self._stored((await _stored_rows(connection, owner, [mutation]))[0], mutation):
                return stored
            reply = await work(self._transaction(connection, now, mutation))
            await self._remember(connection, mutation, reply, now)
            return reply

    @asynccontextmanager
    async def unkeyed(
        self, actor: str, *organizations: str, as_engine: bool = False, request_id: str | None = None
    ) -> AsyncIterator[Transaction]:
        """A change that is safe to repeat by its nature, such as an enrolment."""
        async with visiting(self.engine if as_engine else self.pool, organizations) as connection:
            now = await connection.fetchval(_MOMENT)
            yield Transaction(connection, now, actor, request_id, "", self.entropy)

    def _transaction(self, connection: Connection, now: datetime, mutation: Mutation) -> Transaction:
        actor = mutation.principal.actor
        return Transaction(connection, now, actor, mutation.request_id, mutation.traceparent, self.entropy)

    def _stored(self, row: Row | None, mutation: Mutation) -> Reply | None:
        if row is None:
            return None
        if row["request_digest"] != mutation.request_digest:
            raise key_reused(mutation.key)
        return Reply(row["status"], self._body(row, mutation), row["location"] or "", repeated=True)

    def _body(self, row: Row, mutation: Mutation) -> Mapping[str, Any] | None:
        if row["ciphertext_expires_at"] is None:
            body: Mapping[str, Any] | None = row["body"]
            return body
        if row["ciphertext"] is None or not row["still_shown"]:
            return {"secret_shown": True, "detail": _SHOWN}
        opened: Mapping[str, Any] = json.loads(
            self.keyring.open(Sealed(row["key_id"], row["ciphertext"]), _place(mutation))
        )
        return opened

    async def _remember(self, connection: Connection, mutation: Mutation, reply: Reply, now: datetime) -> None:
        body, sealed = reply.body, None
        if reply.secret:
            text = json.dumps(reply.body).encode()
            sealed = self.keyring.seal(text, _place(mutation), self.entropy.token(ENTROPY_BYTES))
            body = None
        await connection.execute(
            _REMEMBER,
            *_key(mutation),
            mutation.request_digest,
            reply.status,
            reply.location or None,
            body,
            sealed.data if sealed else None,
            sealed.key_id if sealed else None,
            now + SECRET_LIFE if sealed else None,
            now,
            now + KEY_LIFE,
        )


async def _stored_rows(connection: Connection, organization: str, asked: Sequence[Mutation]) -> list[Row | None]:
    """What is kept under the key of each."""
    columns = zip(*((each.method, each.path, each.key) for each in asked), strict=True)
    rows = {row["place"]: row for row in await connection.fetch(_FIND, organization, *map(list, columns))}
    return [rows.get(place) for place in range(1, len(asked) + 1)]


def _key(mutation: Mutation) -> tuple[str, str, str, str]:
    return (mutation.principal.organization, mutation.method, mutation.path, mutation.key)


def _place(mutation: Mutation) -> Context:
    organization, *rest = _key(mutation)
    return Context("idempotency_keys", organization, " ".join(rest))


def own(principal: Principal) -> list[str]:
    """The scope of a principal's reading transaction."""
    return [principal.organization]

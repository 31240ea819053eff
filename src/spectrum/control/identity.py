"""Who may call: organizations, and the tokens by which their people and programs are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spectrum.control.changes import Changes, Transaction, own
from spectrum.control.commands import Listing, Mutation, Page, Reply
from spectrum.core.access import (
    TOKEN_ENTROPY,
    Action,
    Principal,
    Subject,
    TokenText,
    check_scopes,
    make_token,
    read_token,
    require,
)
from spectrum.core.errors import Problem, Where
from spectrum.core.ids import PLATFORM, OrganizationId
from spectrum.core.moments import stamp
from spectrum.db.pools import Pool
from spectrum.db.sql import query
from spectrum.db.visits import Row, look_up, visiting
from spectrum.gathering import Gathering
from spectrum.ports import Spawner

_ORGANIZATION_LIST = query("organization_list")
_ORGANIZATION_FIND = query("organization_find")
_ORGANIZATION_CREATE = query("organization_create")
_TOKEN_LIST = query("token_list")
_TOKEN_CREATE = query("token_create")
_TOKEN_REVOKE = query("token_revoke")
_TOKENS_BY_HASH = query("tokens_by_hash")
_TOKENS_USED = query("tokens_used")

LANES = 2  # look-ups at the same time


@dataclass(frozen=True, slots=True)
class Organization:
    """A vendor's account."""

    id: OrganizationId
    name: str
    created_at: datetime

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "created_at": stamp(self.created_at)}


@dataclass(frozen=True, slots=True)
class Token:
    """An API token as it is listed: everything but the token itself."""

    id: str
    organization_id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "organization_id": self.organization_id,
            "prefix": self.prefix,
            "scopes": list(self.scopes),
            "created_by": self.created_by,
            "created_at": stamp(self.created_at),
            "expires_at": stamp(self.expires_at),
            "last_used_at": stamp(self.last_used_at),
            "revoked_at": stamp(self.revoked_at),
            "token": None,
        }


@dataclass
class Identity:
    """Organizations and tokens in PostgreSQL. `system` is the role that looks up hashes over all organizations."""

    changes: Changes
    system: Pool
    spawner: Spawner

    def __post_init__(self) -> None:
        self._tokens: Gathering[bytes, Row | None] = Gathering(self._by_hash, self.spawner, "tokens", LANES)

    async def authenticate(self, token: str) -> Principal:
        """Whose token this is. Raises Problem `unauthenticated`."""
        text = read_token(token)
        if text is None:
            raise Problem("unauthenticated", "This is not a token of SPECTRUM, or it was copied with a mistake.")
        if text.cell_key is not None:
            raise Problem("unauthenticated", "A join token lets a worker in and nobody else. Send an API token, spk_….")
        return _principal(await self._tokens.answer(text.hash))

    async def _by_hash(self, hashes: Sequence[bytes]) -> list[Row | Exception | None]:
        """Who holds each of these tokens. Look-ups that come together are one."""
        rows = {row["hash"]: row for row in await look_up(self.system, _TOKENS_BY_HASH, list(set(hashes)))}
        if stale := [row["id"] for row in rows.values() if row["stale"]]:
            await look_up(self.system, _TOKENS_USED, stale)
        return [rows.get(each) for each in hashes]

    async def bootstrap(self, organization: str, token: TokenText, name: str = "bootstrap") -> Organization:
        """Make sure that the organization exists and that `token` is an administrator's of it; safe to repeat.

        `platform` is the platform's own, whose token makes organizations.
        """
        async with self.changes.unkeyed("system:bootstrap", PLATFORM) as change:
            found = await change.connection.fetchrow(_ORGANIZATION_FIND, organization)
            made = Organization(**found) if found else await _create(change, organization)
        async with self.changes.unkeyed("system:bootstrap", made.id) as change:
            wanted = Token(change.new_id("tok"), made.id, name, token.prefix, ("admin",), change.actor, change.now)
            if await _keep(change, wanted, token):
                await change.audit(made.id, "token.create", wanted.id, {"name": name, "scopes": ["admin"]})
        return made

    # Organizations

    async def organizations(self, principal: Principal, page: Page) -> Listing[Organization]:
        """Those that the principal belongs to; to the platform, all."""
        async with visiting(self.changes.pool, own(principal)) as connection:
            rows = await connection.fetch(_ORGANIZATION_LIST, page.after, page.limit + 1)
        return Listing.of([Organization(**row) for row in rows], page, [row["id"] for row in rows])

    async def organization(self, principal: Principal, name_or_id: str) -> Organization:
        """Raises Problem `not-found`."""
        async with visiting(self.changes.pool, own(principal)) as connection:
            row = await connection.fetchrow(_ORGANIZATION_FIND, name_or_id)
        if row is None:
            raise Problem(
                "not-found",
                f"There is no organization {name_or_id!r} that you belong to. See `spectrum organization list`.",
            )
        return Organization(**row)

    async def create_organization(self, mutation: Mutation, name: str) -> Reply:
        """Raises Problem `not-allowed-now` where the name is taken."""

        async def work(change: Transaction) -> Reply:
            made = await _create(change, name)
            return Reply(201, made.as_json(), f"/v1/organizations/{made.id}")

        return await self.changes.run(mutation, work)

    # Tokens

    async def tokens(self, principal: Principal, page: Page) -> Listing[Token]:
        async with visiting(self.changes.pool, own(principal)) as connection:
            rows = await connection.fetch(_TOKEN_LIST, principal.organization, page.after, page.limit + 1)
        return Listing.of([_token(row) for row in rows], page, [row["id"] for row in rows])

    async def create_token(
        self,
        mutation: Mutation,
        name: str,
        scopes: tuple[str, ...],
        expires_at: datetime | None,
        organization: str | None,
    ) -> Reply:
        """A token for the principal's own organization; the platform's principals may name another one.

        Raises Problem: `forbidden`, `not-found`, `invalid-parameter`.
        """
        owner = mutation.principal.organization
        if organization is not None:
            owner = (await self.organization(mutation.principal, organization)).id
        require(mutation.principal, Action.TOKENS_WRITE, Subject(owner, "token"))
        granted = check_scopes(scopes, mutation.principal)

        async def work(change: Transaction) -> Reply:
            if expires_at is not None and expires_at <= change.now:
                raise Problem(
                    "invalid-parameter", "expires_at lies in the past.", (Where("in the past", "/expires_at"),)
                )
            text = make_token(change.entropy.token(TOKEN_ENTROPY))
            order = tuple(sorted(granted))
            made = Token(change.new_id("tok"), owner, name, text.prefix, order, change.actor, change.now, expires_at)
            await _keep(change, made, text)
            await change.audit(owner, "token.create", made.id, {"name": name, "scopes": list(order)})
            return Reply(201, {**made.as_json(), "token": text.text}, f"/v1/tokens/{made.id}", secret=True)

        return await self.changes.run(mutation, work, *({owner} - {mutation.principal.organization}))

    async def revoke_token(self, mutation: Mutation, token_id: str) -> Reply:
        """Raises Problem `not-found`. Revoking again changes nothing."""
        owner = mutation.principal.organization

        async def work(change: Transaction) -> Reply:
            row = await change.connection.fetchrow(_TOKEN_REVOKE, token_id, owner, change.now)
            if row is None:
                raise Problem(
                    "not-found", f"There is no token {token_id!r} in your organization. See `spectrum token list`."
                )
            await change.audit(owner, "token.revoke", row["id"], {"name": row["name"]})
            return Reply(204)

        return await self.changes.run(mutation, work)


def _principal(row: Row | None) -> Principal:
    if row is None:
        raise Problem(
            "unauthenticated",
            "Nobody knows this token. It may belong to another installation: check the URL, or ask for another token.",
        )
    if row["revoked_at"] is not None or row["deleted_at"] is not None:
        raise Problem("unauthenticated", "This token was revoked. Ask for another one.")
    if row["expires_at"] is not None and row["expires_at"] <= row["now"]:
        raise Problem("unauthenticated", f"This token expired at {stamp(row['expires_at'])}. Ask for another one.")
    return Principal(f"token:{row['id']}", OrganizationId(row["organization_id"]), frozenset(row["scopes"]))


async def _create(change: Transaction, name: str) -> Organization:
    row = await change.connection.fetchrow(_ORGANIZATION_CREATE, change.new_id("org"), name, change.now)
    if row is None:
        raise Problem("not-allowed-now", f"There is already an organization named {name}. Choose another name.")
    made = Organization(**row)
    await change.audit(PLATFORM, "organization.create", made.id, {"name": name})
    return made


async def _keep(change: Transaction, token: Token, text: TokenText) -> bool:
    """Whether the token was not there before."""
    row = (token.id, token.organization_id, token.name, token.prefix, text.hash, list(token.scopes), token.created_by)
    done = await change.connection.execute(_TOKEN_CREATE, *row, token.created_at, token.expires_at)
    return bool(done == "INSERT 0 1")


def _token(row: Row) -> Token:
    return Token(**{**row, "scopes": tuple(row["scopes"])})

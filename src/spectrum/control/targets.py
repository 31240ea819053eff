"""Targets: where instances run, and the pools of workers that reach them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from spectrum.control.changes import Changes, Transaction, own
from spectrum.control.commands import Listing, Mutation, Page, Reply
from spectrum.core.access import Principal
from spectrum.core.errors import Problem, Where
from spectrum.core.ids import PLATFORM
from spectrum.core.moments import stamp
from spectrum.db.pools import Connection
from spectrum.db.sql import query
from spectrum.db.visits import Row, visiting

KINDS = ("docker", "kubernetes", "process")

_POOL_FIND = query("pool_find")
_POOL_MAKE = query("pool_make")
_TARGET_LIST = query("target_list")
_TARGET_FIND = query("target_find")
_TARGET_CREATE = query("target_create")
_TARGET_HOLD = query("target_hold")
_TARGET_INSTANCES = query("target_instances")
_TARGET_REMOVE = query("target_remove")


@dataclass(frozen=True, slots=True)
class Target:
    """A place for instances, as people see it."""

    id: str
    organization_id: str
    name: str
    url: str
    pool: str
    down_since: datetime | None
    gone_at: datetime | None
    created_at: datetime

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "url": self.url,
            "pool": self.pool,
            "shared": self.organization_id == PLATFORM,
            "state": "gone" if self.gone_at else "down" if self.down_since else "up",
            "created_at": stamp(self.created_at),
        }


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets in PostgreSQL."""

    changes: Changes

    async def targets(self, principal: Principal, page: Page) -> Listing[Target]:
        async with visiting(self.changes.pool, own(principal)) as connection:
            rows = await connection.fetch(_TARGET_LIST, page.after, page.limit + 1)
        return Listing.of([Target(**row) for row in rows], page, [row["id"] for row in rows])

    async def target(self, principal: Principal, name_or_id: str) -> Target:
        """Raises Problem `not-found`."""
        async with visiting(self.changes.pool, own(principal)) as connection:
            return _target(await find_target(connection, principal.organization, name_or_id))

    async def add_target(self, mutation: Mutation, name: str, url: str, pool: str | None) -> Reply:
        """A new target; its pool, by default one of its name, is made if it is missing.

        Raises Problem `invalid-parameter` for an address of no known kind, `not-allowed-now` where the name is taken.
        """
        _check_address(url)
        owner = mutation.principal.organization

        async def work(change: Transaction) -> Reply:
            pool_id = await _make_pool(change, owner, pool or name)
            row = (change.new_id("tgt"), owner, name, url, pool_id, change.now)
            target_id = await change.connection.fetchval(_TARGET_CREATE, *row)
            if target_id is None:
                raise Problem("not-allowed-now", f"There is already a target named {name}. Choose another name.")
            await change.audit(owner, "target.add", target_id, {"name": name, "url": url})
            made = _target(await find_target(change.connection, owner, target_id))
            return Reply(201, made.as_json(), f"/v1/targets/{target_id}")

        return await self.changes.run(mutation, work)

    async def remove_target(self, mutation: Mutation, name_or_id: str, gone: bool) -> Reply:
        """Take away a target that no instance is on. Raises Problem `not-found`, `not-allowed-now`, `forbidden`."""
        if gone:
            raise Problem(
                "operation-not-available",
                "This version can't forget the instances of a lost target. Delete them first.",
            )
        owner = mutation.principal.organization

        async def work(change: Transaction) -> Reply:
            found = await find_target(change.connection, owner, name_or_id)
            if found["organization_id"] != owner:
                raise Problem(
                    "forbidden", f"The target {name_or_id} is shared by the platform, which alone removes it."
                )
            if await change.connection.fetchval(_TARGET_HOLD, found["id"], owner) is None:
                raise _not_found(name_or_id)  # somebody else has removed it meanwhile
            instances = await change.connection.fetchval(_TARGET_INSTANCES, found["id"])
            if instances:
                what = f"{instances} instance(s) are on the target {found['name']}"
                raise Problem("not-allowed-now", f"{what}. Delete and purge them first.")
            await change.connection.execute(_TARGET_REMOVE, found["id"], change.now)
            await change.audit(owner, "target.remove", found["id"], {"name": found["name"]})
            return Reply(204)

        return await self.changes.run(mutation, work)


async def find_pool(connection: Connection, organization: str, name: str) -> Row | None:
    """The pool of that name, the organization's own before the platform's."""
    row: Row | None = await connection.fetchrow(_POOL_FIND, organization, name)
    return row


async def find_target(connection: Connection, organization: str, name_or_id: str) -> Row:
    """The row of a target, the organization's own before the platform's. Raises Problem `not-found`."""
    row: Row | None = await connection.fetchrow(_TARGET_FIND, organization, name_or_id)
    if row is None:
        raise _not_found(name_or_id)
    return row


def _not_found(name_or_id: str) -> Problem:
    return Problem("not-found", f"There is no target {name_or_id!r}. See `spectrum target list`.")


async def _make_pool(change: Transaction, owner: str, name: str) -> str:
    await change.connection.execute(_POOL_MAKE, change.new_id("pol"), owner, name, change.now)
    row = await find_pool(change.connection, owner, name)
    if row is None:
        raise Problem("unavailable", "The pool was removed at this very moment: try again.")
    return str(row["id"])


def _check_address(url: str) -> None:
    if urlsplit(url).scheme not in KINDS:
        what = f"the address of a target starts with one of {', '.join(f'{kind}://' for kind in KINDS)}"
        raise Problem("invalid-parameter", f"url: {what}.", (Where(what, "/url"),))


def _target(row: Row) -> Target:
    return Target(**{name: row[name] for name in Target.__dataclass_fields__})

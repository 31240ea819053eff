"""Products: from the texts of a vendor's files to an immutable release."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spectrum.control.changes import Changes, Transaction, own
from spectrum.control.commands import Listing, Mutation, Page, Reply
from spectrum.core.access import Principal
from spectrum.core.errors import Problem, Where
from spectrum.core.moments import stamp
from spectrum.core.product import release as stored
from spectrum.core.product.outline import outline
from spectrum.core.product.publish import Reading, read_product
from spectrum.db.sql import query
from spectrum.db.visits import Row, visiting

_PRODUCT_LIST = query("product_list")
_PRODUCT_MAKE = query("product_make")
_RELEASE_LIST = query("release_list")
_RELEASE_FIND = query("release_find")
_RELEASE_CREATE = query("release_create")


@dataclass(frozen=True, slots=True)
class Product:
    """What a vendor offers."""

    name: str
    latest: str | None
    releases: int
    created_at: datetime

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "latest": self.latest,
            "releases": self.releases,
            "created_at": stamp(self.created_at),
        }


@dataclass(frozen=True, slots=True)
class Release:
    """An immutable version of a product, as it is shown."""

    id: str
    product: str
    version: str
    digest: str
    plans: Mapping[str, Any]
    parameters: Mapping[str, Any]
    published_at: datetime | None
    warnings: tuple[Where, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "product": self.product,
            "version": self.version,
            "digest": self.digest,
            "plans": [
                {"name": name, "default": bool(plan.get("default"))} for name, plan in sorted(self.plans.items())
            ],
            "parameters": dict(self.parameters),
            "warnings": [warning.as_json() for warning in self.warnings],
            "created_at": stamp(self.published_at),
        }


@dataclass(frozen=True, slots=True)
class Products:
    """Products in PostgreSQL."""

    changes: Changes

    async def products(self, principal: Principal, page: Page) -> Listing[Product]:
        async with visiting(self.changes.pool, own(principal)) as connection:
            rows = await connection.fetch(_PRODUCT_LIST, principal.organization, page.after, page.limit + 1, None)
        return Listing.of([Product(**row) for row in rows], page, [row["name"] for row in rows])

    async def product(self, principal: Principal, name: str) -> Product:
        """Raises Problem `not-found`."""
        async with visiting(self.changes.pool, own(principal)) as connection:
            row = await connection.fetchrow(_PRODUCT_LIST, principal.organization, "", 1, name)
        if row is None:
            raise Problem("not-found", f"There is no product {name!r}. See `spectrum product list`.")
        return Product(**row)

    async def releases(self, principal: Principal, name: str, page: Page) -> Listing[Release]:
        """Newest first. Raises Problem `not-found`."""
        await self.product(principal, name)
        async with visiting(self.changes.pool, own(principal)) as connection:
            rows = await connection.fetch(_RELEASE_LIST, principal.organization, name, page.after, page.limit + 1)
        return Listing.of([_release(row) for row in rows], page, [row["id"] for row in rows])

    async def release(self, principal: Principal, name: str, version: str) -> Release:
        """Raises Problem `not-found`."""
        async with visiting(self.changes.pool, own(principal)) as connection:
            row = await connection.fetchrow(_RELEASE_FIND, principal.organization, name, version)
        if row is None:
            raise Problem("not-found", f"There is no release {name}@{version}. See `spectrum product releases {name}`.")
        return _release(row)

    async def validate(self, name: str, file: str, files: Mapping[str, str]) -> Release:
        """What publishing would make. Raises Problem `invalid-product` with every mistake."""
        reading = _read(name, file, files)
        return _shown(reading)

    async def publish(self, mutation: Mutation, name: str, file: str, files: Mapping[str, str]) -> Reply:
        """The same text again is the same release. Raises Problem `invalid-product`, `not-allowed-now`."""
        reading = _read(name, file, files)
        owner = mutation.principal.organization

        async def work(change: Transaction) -> Reply:
            await change.connection.execute(_PRODUCT_MAKE, owner, name, change.now)
            made, is_new = await _make(change, owner, reading.release)
            if is_new:
                evidence = {"product": name, "version": made.version, "digest": made.digest}
                await change.event(owner, "release.published", made.id, 1, evidence)
                await change.audit(owner, "release.publish", made.id, evidence)
            body = {**made.as_json(), "warnings": [note.as_json() for note in reading.notes]}
            return Reply(201 if is_new else 200, body, f"/v1/products/{name}/releases/{made.version}")

        return await self.changes.run(mutation, work)


async def _make(change: Transaction, owner: str, release: stored.Release) -> tuple[Release, bool]:
    """The release as a row, and whether it is new."""
    digest = bytes.fromhex(release.digest.removeprefix("sha256:"))
    outlines = {kind.value: outline(release, kind).as_json() for kind in stored.TargetKind}
    row = await change.connection.fetchrow(
        _RELEASE_CREATE,
        change.new_id("rel"),
        owner,
        release.product,
        release.version,
        dict(release.document),
        digest,
        outlines,
        change.actor,
        change.now,
    )
    if row is not None:
        return _release(row), True
    found = await change.connection.fetchrow(_RELEASE_FIND, owner, release.product, release.version)
    if found is None or found["sha256"] != digest:
        raise Problem(
            "not-allowed-now",
            f"{release.product}@{release.version} was published with another text, and a release never changes. "
            "Give the product a new version.",
        )
    return _release(found), False


def _read(name: str, file: str, files: Mapping[str, str]) -> Reading:
    reading = read_product(files[file], file, _among(files))
    if reading.release.product != name:
        message = f"the file describes the product {reading.release.product!r}, not {name!r}"
        raise Problem(
            "invalid-product", f"x-spectrum.product: {message}.", (Where(message, "/x-spectrum/product", file),)
        )
    return reading


def _among(files: Mapping[str, str]) -> Callable[[str], str]:
    def read(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(2, "it was not sent along", path)
        return files[path]

    return read


def _shown(reading: Reading) -> Release:
    release = reading.release
    block = release.block
    return Release(
        "",
        release.product,
        release.version,
        release.digest,
        block["plans"],
        block.get("parameters", {}),
        None,
        reading.notes,
    )


def _release(row: Row) -> Release:
    digest = f"sha256:{row['sha256'].hex()}"
    return Release(
        row["id"], row["product"], row["version"], digest, row["plans"], row["parameters"] or {}, row["published_at"]
    )

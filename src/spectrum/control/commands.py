"""What the API hands to the control plane and gets back: mutations with their key, answers to repeat, pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from spectrum.core.access import Principal
from spectrum.core.errors import Problem, Where

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Mutation:
    """One request to change something. Its key belongs to (organization, method, path), DESIGN §3.1."""

    principal: Principal
    method: str
    path: str
    key: str
    request_digest: str  # of the canonical body
    request_id: str
    traceparent: str = ""


def key_reused(key: str) -> Problem:
    return Problem(
        "idempotency-key-reused",
        f"The Idempotency-Key {key!r} was used for another request. Use a new key for a new request.",
    )


@dataclass(frozen=True, slots=True)
class Reply:
    """What a mutation answers, again and again for the same key. One with a secret is stored as ciphertext."""

    status: int
    body: Mapping[str, Any] | None = None
    location: str = ""
    secret: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a list: at most `limit` rows that come after the one with the key `after`."""

    limit: int = 50
    after: str = ""

    def position(self, start: int) -> int:
        """The number that `after` is, in a list whose keys are numbers; `start` on its first page. Raises Problem."""
        if not (self.after or "0").isdigit():
            raise Problem(
                "invalid-parameter",
                "cursor: not of this list; start again without one.",
                (Where("not of this list", "query:cursor"),),
            )
        return min(int(self.after or start), 2**63 - 1)


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """Rows in the order of their keys. `next_after` is the key of the last one where more follow, else empty."""

    items: tuple[Row, ...]
    next_after: str = ""

    @classmethod
    def of(cls, rows: list[Row], page: Page, keys: list[str]) -> Listing[Row]:
        """From up to `limit` + 1 rows and their keys."""
        more = len(rows) > page.limit
        return cls(tuple(rows[: page.limit]), keys[page.limit - 1] if more else "")

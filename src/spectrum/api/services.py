"""What the API needs of the control plane: a small protocol per resource, and the container that holds them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from spectrum.control.audit import AuditFilters
from spectrum.control.commands import Listing, Mutation, Page, Reply
from spectrum.control.instances import Filters
from spectrum.control.jobs import JobFilters
from spectrum.control.specs import Order
from spectrum.control.streams import LogsWish
from spectrum.control.tail import Follower, Wish
from spectrum.core.access import Principal
from spectrum.core.signing import Call
from spectrum.ports import Clock, Entropy
from spectrum.telemetry import Metrics


class View(Protocol):
    """A resource as it is shown. Its JSON has the field names of INTERFACES §2."""

    def as_json(self) -> dict[str, Any]: ...


class Generational(View, Protocol):
    """A resource whose ETag is its generation."""

    @property
    def generation(self) -> int: ...


class Identity(Protocol):
    """Organizations, tokens and the workers' right to call."""

    async def authenticate(self, token: str) -> Principal:
        """Raises Problem `unauthenticated`."""

    async def organizations(self, principal: Principal, page: Page) -> Listing[Any]: ...
    async def organization(self, principal: Principal, name_or_id: str) -> View: ...
    async def create_organization(self, mutation: Mutation, name: str) -> Reply: ...
    async def tokens(self, principal: Principal, page: Page) -> Listing[Any]: ...
    async def create_token(
        self,
        mutation: Mutation,
        name: str,
        scopes: tuple[str, ...],
        expires_at: datetime | None,
        organization: str | None,
    ) -> Reply: ...
    async def revoke_token(self, mutation: Mutation, token_id: str) -> Reply: ...


class Rates(Protocol):
    """How much a caller may ask for."""

    async def admit(self, principal: Principal) -> None:
        """Count a request. Raises Problem `rate-limited`."""


class Idempotency(Protocol):
    """What was answered before under a key."""

    async def find(self, mutation: Mutation) -> Reply | None:
        """The stored answer to this very mutation, or None. Raises Problem `idempotency-key-reused`."""


class Products(Protocol):
    """Products and their immutable releases."""

    async def products(self, principal: Principal, page: Page) -> Listing[Any]: ...
    async def product(self, principal: Principal, name: str) -> View: ...
    async def releases(self, principal: Principal, name: str, page: Page) -> Listing[Any]: ...
    async def release(self, principal: Principal, name: str, version: str) -> View: ...
    async def validate(self, name: str, file: str, files: Mapping[str, str]) -> View:
        """What publishing would make. Raises Problem `invalid-product` with every mistake."""

    async def publish(self, mutation: Mutation, name: str, file: str, files: Mapping[str, str]) -> Reply: ...


class Targets(Protocol):
    """Where instances run."""

    async def targets(self, principal: Principal, page: Page) -> Listing[Any]: ...
    async def target(self, principal: Principal, name_or_id: str) -> View: ...
    async def add_target(self, mutation: Mutation, name: str, url: str, pool: str | None) -> Reply: ...
    async def remove_target(self, mutation: Mutation, name_or_id: str, gone: bool) -> Reply: ...


class Workers(Protocol):
    """Who executes steps, and how they come to be trusted."""

    async def workers(self, principal: Principal, page: Page) -> Listing[Any]: ...
    async def worker(self, principal: Principal, worker_id: str) -> View: ...
    async def create_join_token(self, mutation: Mutation, target: str | None, pool: str | None) -> Reply: ...
    async def drain_worker(self, mutation: Mutation, worker_id: str) -> Reply: ...
    async def revoke_worker(self, mutation: Mutation, worker_id: str) -> Reply: ...


class Instances(Protocol):
    """Customers' environments. What is asked of them becomes a job, which the answer holds."""

    async def instances(self, principal: Principal, page: Page, filters: Filters) -> Listing[Any]: ...
    async def instance(self, principal: Principal, name_or_id: str) -> Generational: ...
    async def create(self, mutation: Mutation, name: str, order: Order) -> Reply: ...
    async def put(self, mutation: Mutation, name: str, order: Order, absent: bool, expected: int | None) -> Reply: ...
    async def act(self, mutation: Mutation, verb: str, name_or_id: str, expected: int | None) -> Reply: ...
    async def plan_create(self, principal: Principal, name: str, order: Order) -> View: ...
    async def plan_put(
        self, principal: Principal, name: str, order: Order, absent: bool, expected: int | None
    ) -> View: ...
    async def plan_act(self, principal: Principal, verb: str, name_or_id: str, expected: int | None) -> View: ...


class Jobs(Protocol):
    """What is being done, and was done, to instances."""

    async def jobs(self, principal: Principal, page: Page, filters: JobFilters) -> Listing[Any]: ...
    async def job(self, principal: Principal, job_id: str, wait: float = 0.0) -> View: ...
    async def why(self, principal: Principal, job_id: str) -> View: ...
    async def cancel(self, mutation: Mutation, job_id: str) -> Reply: ...

    async def awaited(self, principal: Principal, reply: Reply, wait: float) -> Reply:
        """The same answer with its job as it is once it has ended, or `wait` seconds later."""


class Log(Protocol):
    """What happened: facts by position."""

    async def events(self, principal: Principal, page: Page, after: int, subject: str | None) -> Listing[Any]: ...


class Tail(Protocol):
    """What happens from now on."""

    async def follow(self, principal: Principal, wish: Wish) -> Follower:
        """Close what is returned. Raises Problem `invalid-parameter`, `not-found`, `rate-limited` or `unavailable`."""


class Audit(Protocol):
    """Who did what."""

    async def records(self, principal: Principal, page: Page, filters: AuditFilters) -> Listing[Any]: ...
    async def head(self, principal: Principal) -> View: ...


class Desk(Protocol):
    """Where workers are served."""

    async def serve(self, what: str, call: Call, lease_id: str | None) -> Any:
        """The answer to a signed call. Raises Problem."""


class Streams(Protocol):
    """What workers read for somebody."""

    async def logs(self, principal: Principal, name_or_id: str, wish: LogsWish) -> AsyncIterator[Mapping[str, Any]]:
        """Log lines of an instance; an empty one says that there is nothing new for a while. Raises Problem."""


class Measures(Protocol):
    """What the metrics say of the present."""

    async def look(self) -> None:
        """Bring the gauges up to date."""


class Readiness(Protocol):
    """Whether this copy can do its work now."""

    async def checks(self) -> Mapping[str, str]:
        """Each thing that is needed and what is wrong with it; an empty text is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that handlers call. A new resource is one more field."""

    identity: Identity
    rates: Rates
    idempotency: Idempotency
    products: Products
    targets: Targets
    workers: Workers
    instances: Instances
    jobs: Jobs
    log: Log
    tail: Tail
    audit: Audit
    desk: Desk
    streams: Streams
    readiness: Readiness
    metrics: Metrics
    measures: Measures
    clock: Clock
    entropy: Entropy

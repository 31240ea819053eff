"""The door to one SPECTRUM server: a URL, a token, and the API's nouns as attributes."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from spectrum.sdk import resources
from spectrum.sdk.wire import PATIENCE, Call, Wire


class Client:
    """A blocking client, safe to share between threads.

    There is one shape on purpose: what waits for a vendor's environments is a script, a CLI or a request handler with
    a thread of its own; an asynchronous program calls it through `asyncio.to_thread`. All connections have timeouts;
    every changing call carries an Idempotency-Key (`key`, else a new one) and is tried again under it for up to
    `patience` seconds.

    Raises `ProblemError` where the server says no, `Unreachable` where nobody answers.
    """

    def __init__(self, url: str, token: str | None = None, *, patience: float = PATIENCE) -> None:
        self._wire = Wire(url, token, patience=patience)
        self.url = self._wire.url
        self.instances = resources.Instances(self._wire)
        self.jobs = resources.Jobs(self._wire)
        self.products = resources.Products(self._wire)
        self.targets = resources.Targets(self._wire)
        self.workers = resources.Workers(self._wire)
        self.tokens = resources.Tokens(self._wire)
        self.organizations = resources.Organizations(self._wire)
        self.events = resources.Events(self._wire)
        self.audit = resources.Audit(self._wire)

    def ready(self) -> bool:
        """Whether the server says of itself that it is ready. Raises `ProblemError` or `Unreachable` if it is not."""
        return self._wire.call(Call("GET", "/readyz")).status == 200

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

"""One call over HTTP: timeouts, safe retries under one Idempotency-Key, and typed errors for answers that say no."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import stamina

import spectrum
from spectrum.sdk.errors import ClientError, ProblemError, Unreachable

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0
ATTEMPTS = 8
SILENCE = 45.0  # of a stream that sends a heartbeat every 15 seconds
PATIENCE = 30.0  # seconds over which one call is tried again
AGAIN = frozenset({429, 502, 503, 504})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request. A body makes it JSON; `hold` is how long the server may take on purpose (long poll), seconds."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    hold: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Message:
    """One server-sent event: its id and its data, either of which may be empty, and when to come back (seconds) if it says that."""

    id: str
    data: str
    retry: float | None


class Wire:
    """Connections to one server, with one token. Safe to share between threads.

    Every call is safe to repeat: a reading one by nature, a changing one because its tries carry one Idempotency-Key.
    """

    def __init__(self, url: str, token: str | None, *, patience: float = PATIENCE) -> None:
        self.url = _checked(url, token)
        self._patience = patience
        headers = {"User-Agent": f"spectrum/{spectrum.__version__}", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx2.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx2.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
            trust_env=urlsplit(self.url).hostname not in LOOPBACK,
        )

    def call(self, call: Call) -> Answer:
        """Send until it was answered. Raises `ProblemError`, or `Unreachable` once `patience` is used up."""
        headers = dict(call.headers)
        if call.method not in ("GET", "HEAD"):
            headers["Idempotency-Key"] = call.key or str(uuid.uuid4())
        retries = stamina.retry_context(
            on=self._again, attempts=ATTEMPTS, timeout=self._patience, wait_initial=0.1, wait_max=5.0, wait_jitter=0.5
        )
        try:
            for attempt in retries:
                with attempt:
                    return self._once(call, headers)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        raise AssertionError("a retry context ends with an answer or an error")

    def _once(self, call: Call, headers: Mapping[str, str]) -> Answer:
        response = self._http.request(
            call.method,
            call.path,
            params=_parameters(call.query),
            json=call.body,
            headers=dict(headers),
            timeout=httpx2.Timeout(READ_TIMEOUT + call.hold, connect=CONNECT_TIMEOUT),
        )
        _refuse(response)
        return Answer(response.status_code, _decoded(response), response.headers)

    @contextlib.contextmanager
    def lines(self, call: Call) -> Iterator[Iterator[dict[str, Any]]]:
        """An answer of JSON lines, read as it comes. Only its start is bounded in time; it is not repeated."""
        with self._streamed(call, "application/x-ndjson", None) as lines:
            yield (json.loads(line) for line in lines if line.strip())

    @contextlib.contextmanager
    def messages(self, call: Call) -> Iterator[Iterator[Message]]:
        """An answer of server-sent events, read as it comes. It is not repeated. A server that falls silent is `Unreachable`."""
        with self._streamed(call, "text/event-stream", SILENCE) as lines:
            yield _messages(lines)

    @contextlib.contextmanager
    def _streamed(self, call: Call, accept: str, silence: float | None) -> Iterator[Iterator[str]]:
        try:
            with self._http.stream(
                call.method,
                call.path,
                params=_parameters(call.query),
                headers={**call.headers, "Accept": accept},
                timeout=httpx2.Timeout(silence, connect=CONNECT_TIMEOUT),
            ) as response:
                if response.is_error:
                    response.read()
                _refuse(response)
                yield response.iter_lines()
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _again(self, error: Exception) -> bool | float:
        """Whether to send again, or after how many seconds at the server's wish."""
        match error:
            case ProblemError() if error.status in AGAIN:
                if error.retry_after is None:
                    return True
                return error.retry_after if error.retry_after <= self._patience else False
            case httpx2.UnsupportedProtocol() | httpx2.LocalProtocolError():
                return False
            case httpx2.TransportError():
                return True
            case _:
                return False

    def _unreachable(self, error: Exception) -> Unreachable:
        reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
        return Unreachable(f"{self.url} does not answer: {reason}", "spectrum status")

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _checked(url: str, token: str | None) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClientError(f"{url!r} is not the URL of a server", "Give one such as https://spectrum.example.com")
    if token and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ClientError(f"{url} would carry the token unencrypted", "Use https:// for a server on another machine")
    return url.rstrip("/")


def _messages(lines: Iterator[str]) -> Iterator[Message]:
    """What WHATWG HTML, §9.2.6 reads in them, as far as it is used here. A message that is not whole is none."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line:
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        (*_, place), (*_, retry) = fields.get("id", [""]), fields.get("retry", [""])
        yield Message(place, "\n".join(fields.get("data", ())), int(retry) / 1000 if retry.isdigit() else None)
        fields = {}


def _parameters(query: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """As they stand in the address; None is not sent, and each of several by itself."""
    return {key: _texts(value) for key, value in query.items() if value is not None}


def _texts(value: Any) -> str | list[str]:
    return [_text(each) for each in value] if isinstance(value, list | tuple) else _text(value)


def _text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case _:
            return str(value)


def _refuse(response: httpx2.Response) -> None:
    if response.is_success:
        return
    after = _seconds(response.headers.get("retry-after"))
    with contextlib.suppress(ValueError):
        body = response.json()
        if isinstance(body, Mapping):
            raise ProblemError.parse(response.status_code, body, after)
    detail = f"{response.url} answered {response.status_code} {response.reason_phrase}".rstrip()
    raise ProblemError(response.status_code, f"http-{response.status_code}", detail, retry_after=after)


def _decoded(response: httpx2.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError as error:
        raise Unreachable(f"{response.url} answers, but not as SPECTRUM does (no JSON)", "Check the URL") from error


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds: a number, or a date (RFC 9110, §10.2.3)."""
    if not text:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return None

"""What is set from outside: the `SPECTRUM_*` variables of server, worker and client, and the defaults of DESIGN §4.

A variable that is not known, or does not mean anything, is refused by name: a typing error must not silently become a
default. Variables of other parts are accepted, since one environment often serves all of them.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from spectrum.core.errors import SpectrumError

PREFIX = "SPECTRUM_"
TEST_PREFIX = "SPECTRUM_TEST_"
POLL, KAFKA = "poll", "kafka"
KAFKA_PORT = 9092


class SettingsError(SpectrumError):
    """The environment can't be used; the message has one line for each variable that is wrong."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The figures of DESIGN §4 that more than one part goes by. Durations are seconds, sizes are bytes."""

    lease: float = 15.0
    observation_interval: float = 10.0
    longest_wait: float = 60.0  # of a long poll
    body_limit: int = 2 * 1024 * 1024
    rate_limit: float = 200.0  # requests per second and token, in the long run
    stream_limit: int = 4000  # clients that follow events at one copy

    @property
    def heartbeat(self) -> float:
        """Three of them fit into a lease."""
        return self.lease / 3


class LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a socket listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself: a loopback address, `localhost` or a name under it (RFC 6761 §6.3)."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = urlsplit(f"//{value}")
    if not parts.hostname or parts.port is None or parts.path:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8420")
    return Address(parts.hostname, parts.port)


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be a web address, such as https://spectrum.example")
    if parts.username or parts.password:
        raise ValueError("must not hold a user or a password")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https: plain http is refused off loopback")
    return value.rstrip("/")


def _database(value: SecretStr) -> SecretStr:
    if urlsplit(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
        raise ValueError("must be a PostgreSQL address, such as postgresql://user:password@host/name")
    return value


def _bus(value: str) -> str:
    if value not in (POLL, KAFKA) and not _brokers(value):
        raise ValueError(f"must be {POLL}, {KAFKA} or kafka://HOST:PORT, with a comma between several HOST:PORT")
    return value


def _brokers(bus: str) -> tuple[Address, ...]:
    """Where Kafka is first asked; none where that is not said."""
    if bus == KAFKA:
        return (Address("127.0.0.1", KAFKA_PORT),)
    scheme, _, rest = bus.partition("://")
    parts = [urlsplit(f"//{each}") for each in rest.removesuffix("/").split(",")]
    if scheme != KAFKA or any(not part.hostname or part.path or part.query or part.username for part in parts):
        return ()
    try:
        return tuple(Address(str(part.hostname), part.port or KAFKA_PORT) for part in parts)
    except ValueError:  # a port that is no number
        return ()


def _list(value: object) -> object:
    return [part for part in (p.strip() for p in value.split(",")) if part] if isinstance(value, str) else value


WebAddress = Annotated[str, AfterValidator(_web_address)]
Bus = Annotated[str, AfterValidator(_bus)]


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)


class ClientSettings(_Environment):
    """Where a client connects to, as far as the environment says it."""

    url: WebAddress | None = None
    token: SecretStr | None = None
    context: str | None = None


class Mechanism(StrEnum):
    """How a user shows Kafka its password."""

    SCRAM_SHA_512 = "SCRAM-SHA-512"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    PLAIN = "PLAIN"


@dataclass(frozen=True, slots=True)
class Kafka:
    """How to reach Kafka. Files are read when a connection is made, so that what is in them may change."""

    brokers: tuple[Address, ...]
    tls: bool
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None
    username: str | None
    password_file: Path | None
    mechanism: Mechanism

    def __str__(self) -> str:
        return ",".join(map(str, self.brokers))


class _BusSettings(_Environment):
    """How control plane and workers hear of each other, and where facts go."""

    bus: Bus = POLL
    kafka_tls: bool | None = None
    kafka_ca_file: Path | None = None
    kafka_certificate_file: Path | None = None
    kafka_key_file: Path | None = None
    kafka_username: str | None = None
    kafka_password_file: Path | None = None
    kafka_mechanism: Mechanism = Mechanism.SCRAM_SHA_512

    @property
    def kafka(self) -> Kafka | None:
        """None without Kafka. Off loopback TLS is used unless it is switched off. Raises SettingsError."""
        brokers = _brokers(self.bus)
        if not brokers:
            return None
        loopback = all(is_loopback(broker.host) for broker in brokers)
        tls = self.kafka_tls if self.kafka_tls is not None else not loopback
        self._refuse_halves()
        if not tls:
            self._refuse_without_tls(loopback)
        return Kafka(
            brokers,
            tls,
            self.kafka_ca_file,
            self.kafka_certificate_file,
            self.kafka_key_file,
            self.kafka_username,
            self.kafka_password_file,
            self.kafka_mechanism,
        )

    def _refuse_halves(self) -> None:
        for one, other in (("kafka_username", "kafka_password_file"), ("kafka_certificate_file", "kafka_key_file")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise SettingsError(
                    f"{PREFIX}{one.upper()} and {PREFIX}{other.upper()} go together: set both, or none."
                )

    def _refuse_without_tls(self, loopback: bool) -> None:
        for name in ("kafka_ca_file", "kafka_certificate_file"):
            if getattr(self, name) is not None:
                raise SettingsError(
                    f"{PREFIX}{name.upper()} is for TLS, which is not used: set {PREFIX}KAFKA_TLS=true, or leave it out."
                )
        if self.kafka_username and self.kafka_mechanism is Mechanism.PLAIN and not loopback:
            raise SettingsError(
                f"{PREFIX}KAFKA_MECHANISM=PLAIN would send the password readable to all: set {PREFIX}KAFKA_TLS=true,"
                " or use SCRAM-SHA-512."
            )


class ServerSettings(_BusSettings):
    """The control plane."""

    home: Path = Path(".spectrum")
    listen: Annotated[Address, BeforeValidator(_address), NoDecode] = Address("127.0.0.1", 8420)
    public_url: WebAddress | None = None
    database_url: Annotated[SecretStr, AfterValidator(_database)] | None = None
    master_key_file: Path | None = None
    lease_seconds: float = Field(default=Tuning().lease, ge=3, le=3_600)
    rate_limit: float = Field(default=Tuning().rate_limit, ge=0, le=100_000)
    stream_limit: int = Field(default=Tuning().stream_limit, ge=1, le=100_000)
    log_format: LogFormat = LogFormat.JSON

    @property
    def base_url(self) -> str:
        """What `@target-uri` is checked against; without PUBLIC_URL, where the server listens."""
        return self.public_url or f"http://{self.listen}"

    @property
    def master_key_path(self) -> Path:
        return self.master_key_file or self.home / "master.key"

    @property
    def tuning(self) -> Tuning:
        return Tuning(lease=self.lease_seconds, rate_limit=self.rate_limit, stream_limit=self.stream_limit)


class WorkerSettings(_BusSettings):
    """A worker and its targets."""

    home: Path = Path(".spectrum")
    url: WebAddress | None = None
    targets: Annotated[tuple[str, ...], BeforeValidator(_list), NoDecode] = ()
    key_file: Path | None = None
    join_token_file: Path | None = None
    log_format: LogFormat = LogFormat.JSON

    @property
    def key_path(self) -> Path:
        return self.key_file or self.home / "worker.key"


Settings = TypeVar("Settings", bound=_Environment)

_PARTS: tuple[type[_Environment], ...] = (ClientSettings, ServerSettings, WorkerSettings)
KNOWN = frozenset(PREFIX + name.upper() for part in _PARTS for name in part.model_fields)


def load(part: type[Settings]) -> Settings:
    """The settings of one part, from the process's environment.

    Raises SettingsError with every unknown and every bad variable by name.
    """
    wrong = [_unknown(name) for name in sorted(os.environ) if _is_ours(name) and name.upper() not in KNOWN]
    try:
        settings = part()
    except ValidationError as error:
        wrong += [_bad(problem["loc"], problem["msg"]) for problem in error.errors(include_url=False)]
    if wrong:
        raise SettingsError("\n".join(wrong))
    return settings


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX) and not name.upper().startswith(TEST_PREFIX)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.upper(), KNOWN, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(sorted(KNOWN))}."
    return f"{name} is not a variable of SPECTRUM. {hint}"


def _bad(location: tuple[int | str, ...], message: str) -> str:
    return f"{PREFIX}{str(location[0]).upper()}: {message.removeprefix('Value error, ')}."

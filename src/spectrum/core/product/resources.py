"""What a rendered release asks a provider for: the resources of one instance, with nothing left to interpolate.

Rendering (pure, in the worker, at step time) makes these from release, plan, parameters and facts; providers make them real.
Paths of a service are absolute inside its root: a process target puts the root in front, a container has it for real.
Durations are seconds, memory is bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class PortRequest:
    """A port that a service listens on. `public` ports are reachable from outside the instance."""

    service: str
    port: int  # as the product names it (the container port)
    public: bool


@dataclass(frozen=True, slots=True)
class Base:
    """What carries an instance: account, folder and supervisor on a process target; a network on Docker."""

    name: str
    ports: tuple[PortRequest, ...] = ()
    services: tuple[str, ...] = ()  # all of them, also those without a port: each gets a root
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What only the target can know: made with the base, stable until purge."""

    ports: Mapping[str, int]  # "service/port" as in the product -> the port to use
    roots: Mapping[str, str]  # service -> INSTANCE_ROOT ("" where the root is real)
    hosts: Mapping[str, str]  # service -> INSTANCE_<SVC>_HOST
    binds: Mapping[str, str]  # service -> INSTANCE_<SVC>_BIND
    addresses: Mapping[str, str] = field(default_factory=dict)  # "service/port" of a public port -> "host:port"


@dataclass(frozen=True, slots=True)
class Volume:
    """Data that outlives the containers that use it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class File:
    """A file given to a service: a config or a secret. Never an argument, never in a process list."""

    target: str
    content: str = field(repr=False)
    mode: int = 0o444
    uid: int | None = None
    gid: int | None = None
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume of the instance, seen at `target` inside the service."""

    volume: str
    target: str
    read_only: bool = False


class RestartPolicy(StrEnum):
    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Compose's healthcheck. `test` is an argument list; a shell form was already put behind `sh -c`."""

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds; None is unlimited."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None


class ArtifactKind(StrEnum):
    PYTHON = "python"  # an environment made from hash-pinned requirements
    ARCHIVE = "archive"  # a tar or zip with its SHA-256
    PATH = "path"  # a folder that is already on the target


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a process needs to run, content-addressed and shared between instances.

    `requirements` is the text (hash-pinned), `python` the version specifier; `url` and `sha256` belong to archives.
    `path` are folders (globs) inside it that come first on PATH; empty means its `bin`.
    """

    name: str
    kind: ArtifactKind
    requirements: str = ""
    python: str = ""
    url: str = ""
    sha256: str = ""
    folder: str = ""
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """A long-running process of the instance. `environment` holds no secret unless the product allows it."""

    name: str
    command: tuple[str, ...]
    image: str = ""
    entrypoint: tuple[str, ...] | None = None
    artifacts: tuple[Artifact, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: tuple[File, ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[PortRequest, ...] = ()
    working_dir: str = ""
    user: str = ""
    restart: RestartPolicy = RestartPolicy.NO
    restart_attempts: int | None = None  # of on-failure
    health: HealthCheck | None = None
    stop_signal: str = "SIGTERM"
    stop_grace: float = 10.0
    limits: Limits = Limits()
    read_only: bool = False
    tmpfs: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    init: bool = False


@dataclass(frozen=True, slots=True)
class Hook:
    """A named one-shot unit (migrate, backup, restore, verify). Runs with the surroundings of `service`, once per effect key.

    `stdout` and `stdin` name blobs; without `stdout` the output's tail is kept as evidence.
    """

    name: str
    service: Service
    command: tuple[str, ...]
    timeout: float
    stdout: str | None = None
    stdin: str | None = None

"""An outline: what planning needs to know of a release without rendering it, one per kind of target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from spectrum.core.product.parameters import Generation
from spectrum.core.product.quantities import seconds
from spectrum.core.product.release import Release, TargetKind, duration
from spectrum.core.product.report import Json


@dataclass(frozen=True, slots=True)
class Need:
    """A service waits for another: `service_started`, `service_healthy` or `service_completed_successfully`."""

    service: str
    condition: str


@dataclass(frozen=True, slots=True)
class ServiceOutline:
    """One service. Durations are seconds; `start_limit` is how long its own health check lets it take (0 without one)."""

    name: str
    needs: tuple[Need, ...]
    volumes: tuple[str, ...]
    health_checked: bool
    start_limit: float
    stop_grace: float
    completes: bool  # others wait for its end, not for its health

    @property
    def stateful(self) -> bool:
        return bool(self.volumes)

    @property
    def may_end(self) -> bool:
        """Compose lets a service end that others wait to complete, or of which nobody asks for health."""
        return self.completes or not self.health_checked


@dataclass(frozen=True, slots=True)
class HookOutline:
    """A hook: `on` are the operations that run it by themselves (migrate: create, upgrade)."""

    name: str
    service: str
    on: tuple[str, ...]
    timeout: float
    while_stopped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EndpointOutline:
    name: str
    service: str
    port: int
    primary: bool


@dataclass(frozen=True, slots=True)
class Outline:
    """A release for planning. Services stand in the order of `depends_on`, by name where that leaves a choice."""

    product: str
    version: str
    digest: str
    kind: TargetKind
    services: tuple[ServiceOutline, ...]
    volumes: tuple[str, ...]
    hooks: tuple[HookOutline, ...]
    endpoints: tuple[EndpointOutline, ...]
    secrets: tuple[Generation, ...]
    deleted_retention: float
    backup_retention: float

    @property
    def stateful(self) -> bool:
        return bool(self.volumes)

    def hook(self, name: str) -> HookOutline | None:
        return next((hook for hook in self.hooks if hook.name == name), None)

    def as_json(self) -> dict[str, Json]:
        return {**asdict(self), "kind": self.kind.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Outline:
        services = (
            {**item, "needs": tuple(Need(**need) for need in item["needs"]), "volumes": tuple(item["volumes"])}
            for item in data["services"]
        )
        hooks = (
            {**item, "on": tuple(item["on"]), "while_stopped": tuple(item["while_stopped"])} for item in data["hooks"]
        )
        return cls(
            **{
                **data,
                "kind": TargetKind(data["kind"]),
                "services": tuple(ServiceOutline(**item) for item in services),
                "volumes": tuple(data["volumes"]),
                "hooks": tuple(HookOutline(**item) for item in hooks),
                "endpoints": tuple(EndpointOutline(**item) for item in data["endpoints"]),
                "secrets": tuple(Generation(**item) for item in data["secrets"]),
            }
        )


def outline(release: Release, kind: TargetKind) -> Outline:
    """The outline of a release that was accepted."""
    services = release.services(kind)
    completing = {
        need
        for spec in services.values()
        for need, data in spec.get("depends_on", {}).items()
        if data["condition"] == "service_completed_successfully"
    }
    retention = release.retention
    return Outline(
        product=release.product,
        version=release.version,
        digest=release.digest,
        kind=kind,
        services=tuple(_service(name, services[name], name in completing) for name in start_order(services)),
        volumes=tuple(sorted({item["source"] for spec in services.values() for item in spec.get("volumes", ())})),
        hooks=tuple(_hook(name, data) for name, data in sorted(release.block.get("hooks", {}).items())),
        endpoints=tuple(EndpointOutline(e.name, e.service, e.port, e.primary) for e in release.endpoints.values()),
        secrets=tuple(parameter.generate for parameter in release.parameters.values() if parameter.generate),
        deleted_retention=retention.deleted,
        backup_retention=retention.backups,
    )


def start_order(services: Mapping[str, Mapping[str, Json]]) -> tuple[str, ...]:
    """The services so that each comes after those that it needs (they hold no cycle)."""
    order: list[str] = []
    remaining = sorted(services)
    while remaining:
        following = next(name for name in remaining if set(services[name].get("depends_on", {})) <= set(order))
        order.append(following)
        remaining.remove(following)
    return tuple(order)


def _service(name: str, spec: Mapping[str, Json], completes: bool) -> ServiceOutline:
    health = spec.get("healthcheck", {})
    checked = "test" in health
    each = duration(health, "interval", 30.0) + duration(health, "timeout", 30.0)
    return ServiceOutline(
        name=name,
        needs=tuple(Need(need, data["condition"]) for need, data in sorted(spec.get("depends_on", {}).items())),
        volumes=tuple(sorted({item["source"] for item in spec.get("volumes", ())})),
        health_checked=checked,
        start_limit=duration(health, "start_period", 0.0) + health.get("retries", 3) * each if checked else 0.0,
        stop_grace=duration(spec, "stop_grace_period", 10.0),
        completes=completes,
    )


def _hook(name: str, data: Mapping[str, Json]) -> HookOutline:
    return HookOutline(
        name=name,
        service=data["service"],
        on=tuple(data.get("on", ())),
        timeout=seconds(data["timeout"]),
        while_stopped=tuple(data.get("while_stopped", ())),
    )

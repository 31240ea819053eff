"""The two ends of the supervisor's socket, seen from the worker: resources going in, observations and faults coming back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from spectrum.core.errors import Actor, ErrorClass, Fault
from spectrum.core.product.resources import Base, Facts, Hook, PortRequest, Service, Volume
from spectrum.providers.protocol import Condition, Exit, LogLine, Observed, Presence, Resource, SlotHealth

OPERATORS = frozenset({"port-taken", "no-free-port", "no-useradd", "port-registry", "target-failed", "accounts-busy"})


def port_name(port: PortRequest) -> str:
    return f"{port.service}/{port.port}"


def resource_to_json(resource: Resource, artifacts: Mapping[str, tuple[str, ...]]) -> tuple[str, dict[str, Any]]:
    """The resource's kind and members. `artifacts` are those of the service: digest -> folders for PATH, in order."""
    match resource:
        case Base():
            return "base", {
                "services": list(resource.services),
                "ports": [port_name(port) for port in resource.ports],
                "public": [port_name(port) for port in resource.ports if port.public],
            }
        case Volume():
            return "volume", {"name": resource.name}
        case Service():
            return "service", _service(resource, artifacts)
        case Hook():
            return "hook", {
                "name": resource.name,
                "service": _service(resource.service, artifacts),
                "command": list(resource.command),
                "timeout": resource.timeout,
                "stdout": resource.stdout,
                "stdin": resource.stdin,
            }


def _service(service: Service, artifacts: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    return {
        "name": service.name,
        "command": list(service.command),
        "entrypoint": None if service.entrypoint is None else list(service.entrypoint),
        "environment": dict(service.environment),
        "files": [asdict(file) for file in service.files],
        "mounts": [asdict(mount) for mount in service.mounts],
        "ports": [port_name(port) for port in service.ports],
        "working_dir": service.working_dir,
        "restart": service.restart.value,
        "restart_attempts": service.restart_attempts,
        "health": None if service.health is None else asdict(service.health),
        "stop_signal": service.stop_signal,
        "stop_grace": service.stop_grace,
        "limits": asdict(service.limits),
        "read_only": service.read_only,
        "tmpfs": list(service.tmpfs),
        "artifacts": list(artifacts),
        "path": [folder for folders in artifacts.values() for folder in folders],
    }


def observed_from_json(data: Mapping[str, Any]) -> Observed:
    return Observed(
        slot=data["slot"],
        presence=Presence(data["presence"]),
        key=data.get("key", ""),
        token=data.get("token", 0),
        spec_digest=data.get("spec_digest", ""),
        running=data.get("running", False),
        health=SlotHealth(data.get("health", "unknown")),
        restarts=data.get("restarts", 0),
        exit=_exit(data["exit"]) if "exit" in data else None,
        ended=data.get("ended", False),
        facts=Facts(**data["facts"]) if "facts" in data else None,
        ports=data.get("ports", {}),
        tail=tuple(data.get("tail", ())),
        conditions=tuple(Condition(**condition) for condition in data.get("conditions", ())),
    )


def _exit(data: Mapping[str, Any]) -> Exit:
    return Exit(data["code"], datetime.fromtimestamp(data["at"], UTC), tuple(data["tail"]), data["stdout_path"])


def fault_from_json(data: Mapping[str, Any]) -> Fault:
    kind = ErrorClass(data["class"])
    actor = Actor.NOBODY
    if kind is ErrorClass.INVALID:
        actor = Actor.VENDOR
    elif data["code"] in OPERATORS:
        actor = Actor.OPERATOR
    return Fault(kind, data["code"], data["message"], actor=actor, evidence=tuple(data["evidence"]))


def log_line_from_json(data: Mapping[str, Any]) -> LogLine:
    return LogLine(datetime.fromtimestamp(data["at"], UTC), data["service"], data["stream"], data["text"])

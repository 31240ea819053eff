"""A release: the canonical document before interpolation, with its digest, and typed views of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from spectrum.core.errors import Problem, Where
from spectrum.core.product import interpolation, quantities
from spectrum.core.product.extension import Endpoint, Retention
from spectrum.core.product.merge import merged
from spectrum.core.product.parameters import Parameter, Value
from spectrum.core.product.report import Json, nearest
from spectrum.core.product.resources import Artifact, ArtifactKind

MAX_STORED = 4 * 1024 * 1024


class TargetKind(StrEnum):
    """What differs between targets for a product."""

    PROCESS = "process"
    DOCKER = "docker"


@dataclass(frozen=True)
class Release:
    """An immutable version of a product. Two releases with the same digest are the same."""

    document: Mapping[str, Json]

    @cached_property
    def canonical(self) -> str:
        """The stored form: JSON with sorted keys and no spaces (the rules of RFC 8785 as far as our values go)."""
        text: str = json.dumps(
            self.document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text

    @cached_property
    def digest(self) -> str:
        """`sha256:` and 64 hexadecimal digits."""
        return "sha256:" + hashlib.sha256(self.canonical.encode()).hexdigest()

    @classmethod
    def from_stored(cls, text: str, digest: str) -> Release:
        """A release as it was stored. Raises Problem(invalid-product) if it is not the one with this digest."""
        release = cls(json.loads(text))
        if release.canonical != text or release.digest != digest:
            raise Problem("invalid-product", f"The stored release is not {digest}.", (Where("its digest differs"),))
        return release

    @property
    def block(self) -> Mapping[str, Json]:
        block: Mapping[str, Json] = self.document["x-spectrum"]
        return block

    @property
    def product(self) -> str:
        return str(self.block["product"])

    @property
    def version(self) -> str:
        return str(self.block["version"])

    @property
    def plans(self) -> tuple[str, ...]:
        return tuple(sorted(self.block["plans"]))

    @property
    def default_plan(self) -> str:
        return next(str(name) for name, plan in self.block["plans"].items() if plan.get("default"))

    @property
    def environment_secrets_allowed(self) -> bool:
        return self.block.get("env_secrets") == "allowed"

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        return {name: Parameter.from_json(name, data) for name, data in sorted(self.block["parameters"].items())}

    @cached_property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return {name: Endpoint.from_json(name, data) for name, data in sorted(self.block["endpoints"].items())}

    @cached_property
    def artifacts(self) -> Mapping[str, Artifact]:
        return {name: _artifact(name, data) for name, data in sorted(self.block.get("artifacts", {}).items())}

    @property
    def images(self) -> tuple[str, ...]:
        """The images to have on a Docker target."""
        return tuple(sorted({spec["image"] for spec in self.document["services"].values() if "image" in spec}))

    @property
    def retention(self) -> Retention:
        return Retention.from_json(self.block.get("retention", {}))

    @property
    def kinds(self) -> tuple[TargetKind, ...]:
        """The kinds of target that it runs on: Docker always, processes if every service says how."""
        services = self.document["services"].values()
        everywhere = all("process" in spec.get("x-spectrum", {}) for spec in services)
        return (TargetKind.PROCESS, TargetKind.DOCKER) if everywhere else (TargetKind.DOCKER,)

    def services(self, kind: TargetKind, plan: str | None = None) -> dict[str, dict[str, Json]]:
        """The canonical services for a kind of target and a plan: service ← target ← plan."""
        sizes = self.plan(plan).get("services", {}) if plan is not None else {}
        result = {}
        for name, spec in sorted(self.document["services"].items()):
            target = spec.get("x-spectrum", {}).get(kind.value, {})
            own = {key: value for key, value in spec.items() if key != "x-spectrum"}
            result[name] = merged(merged(own, target), sizes.get(name, {}))
        return result

    def plan(self, name: str) -> Mapping[str, Json]:
        """Raises Problem(invalid-parameter) for an unknown one."""
        if name not in self.block["plans"]:
            message = f"{self.product} {self.version} has no plan {name!r}"
            where = Where(message, "/plan", hint=nearest(name, self.block["plans"]))
            raise Problem("invalid-parameter", f"{message}.", (where,))
        plan: Mapping[str, Json] = self.block["plans"][name]
        return plan

    def plan_values(self, name: str) -> dict[str, Value]:
        """The parameters that a plan sets. Raises Problem(invalid-parameter) for an unknown plan."""
        return {key: interpolation.literal(value) for key, value in self.plan(name).get("parameters", {}).items()}

    def pinned(self, images: Mapping[str, str]) -> Release:
        """The same release with the images of these services replaced by what they resolved to (a digest or an image id)."""
        services = {
            name: {**spec, "image": images[name]} if name in images else spec
            for name, spec in self.document["services"].items()
        }
        return Release({**self.document, "services": services})


def _artifact(name: str, data: Mapping[str, Json]) -> Artifact:
    path = tuple(data.get("path", ()))
    if "requirements" in data:
        text = interpolation.interpolate(data["requirements"]["content"], lambda _: None)
        return Artifact(name, ArtifactKind.PYTHON, requirements=text, python=data.get("python", ""), path=path)
    if "url" in data:
        return Artifact(name, ArtifactKind.ARCHIVE, url=data["url"], sha256=data["sha256"], path=path)
    return Artifact(name, ArtifactKind.PATH, folder=data["folder"], path=path)


def duration(data: Mapping[str, Json], key: str, default: float) -> float:
    """A stored duration in seconds."""
    return quantities.seconds(data[key]) if key in data else default

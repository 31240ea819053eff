"""Rendering: release, plan, parameters and facts in; the resources of one instance out. Pure, at step time, in the worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spectrum.core.errors import Problem, Where
from spectrum.core.product import facts as fact_rules
from spectrum.core.product.facts import Instance, port_requests
from spectrum.core.product.interpolation import InterpolationError, Lookup, interpolate
from spectrum.core.product.parameters import Generation, Parameter, Value
from spectrum.core.product.release import Release, TargetKind, duration
from spectrum.core.product.report import Json, join, nearest, plain_text
from spectrum.core.product.resources import (
    Artifact,
    Base,
    Facts,
    File,
    HealthCheck,
    Hook,
    Limits,
    Mount,
    RestartPolicy,
    Service,
    Volume,
)
from spectrum.core.product.rules import config_names, origin
from spectrum.core.product.service import LIMIT_READERS

SECRET_MODE = 0o400


@dataclass(frozen=True, slots=True)
class RenderedEndpoint:
    """Where an instance answers. `health_url` answers 2xx once it is well."""

    name: str
    url: str
    health_url: str
    primary: bool


@dataclass(frozen=True, slots=True)
class Output:
    """A value shown to its audience: `customer` or `operator`."""

    name: str
    value: str
    audience: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """Everything of one instance, by name."""

    base: Base
    volumes: Mapping[str, Volume]
    services: Mapping[str, Service]
    hooks: Mapping[str, Hook]
    endpoints: tuple[RenderedEndpoint, ...]
    outputs: tuple[Output, ...]


def validate_parameters(
    release: Release, plan: str, given: Mapping[str, object], previous: Mapping[str, Value] | None = None
) -> dict[str, Value]:
    """The accepted values: default ← plan ← given. `previous` are those of the accepted generation, if there is one.

    A secret that is to be generated and was neither given nor there before is absent from the answer (`secrets_to_generate`).
    An immutable parameter and a secret keep their previous value when they are not given. Raises Problem(invalid-parameter)
    with a pointer per mistake; no message holds a secret.
    """
    before = previous or {}
    unknown = given.keys() - release.parameters.keys()
    errors = [
        Where(
            f"{release.product} has no parameter {name!r}",
            hint=nearest(name, release.parameters),
            pointer=join("/parameters", name),
        )
        for name in unknown
    ]
    defaults = {name: parameter.default for name, parameter in release.parameters.items()} | release.plan_values(plan)
    values: dict[str, Value] = {}
    for name, parameter in release.parameters.items():
        kept = name in before and (parameter.secret or not parameter.mutable)
        candidate = given.get(name, before[name] if kept else defaults[name])
        if candidate is None and parameter.generate:
            continue
        try:
            values[name] = _accepted(parameter, candidate, before)
        except Problem as problem:
            errors += problem.errors
    if errors:
        ordered = tuple(sorted(errors, key=lambda where: where.pointer))
        raise Problem("invalid-parameter", f"The parameters don't fit {release.product} {release.version}.", ordered)
    return values


def _accepted(parameter: Parameter, candidate: object, before: Mapping[str, Value]) -> Value:
    """One value in its type. Raises Problem(invalid-parameter) with the one mistake in it."""
    name = parameter.name
    hint = ""
    try:
        if candidate is None:
            hint = f"Give it: --param {name}=VALUE"
            raise ValueError("has no default and was not given")
        value = parameter.check(candidate)
        if name in before and not parameter.mutable and value != before[name]:
            hint = "Leave it out to keep it."
            raise ValueError("can't be changed once the instance exists")
    except ValueError as error:
        where = Where(f"{name} {error}", join("/parameters", name), hint=hint)
        raise Problem("invalid-parameter", where.message, (where,)) from None
    return value


def secrets_to_generate(release: Release, values: Mapping[str, Value]) -> tuple[Generation, ...]:
    """The secrets that are still missing. The caller draws each character evenly from the alphabet."""
    generated = (parameter.generate for parameter in release.parameters.values() if parameter.name not in values)
    return tuple(generation for generation in generated if generation is not None)


def render_base(release: Release, kind: TargetKind, instance: Instance) -> Base:
    """The base, which is made before there are facts."""
    services = release.services(kind)
    requests = tuple(request for name, spec in services.items() for request in port_requests(name, spec))
    return Base(instance.name, requests, tuple(services))


def render_volumes(release: Release, kind: TargetKind) -> dict[str, Volume]:
    """The volumes that some service mounts."""
    used = {mount["source"] for spec in release.services(kind).values() for mount in spec.get("volumes", ())}
    return {name: Volume(name) for name in sorted(used)}


def artifacts_of(release: Release, kind: TargetKind) -> tuple[Artifact, ...]:
    """What a target of this kind must have in stock."""
    used = {name for spec in release.services(kind).values() for name in spec.get("artifact", ())}
    return tuple(release.artifacts[name] for name in sorted(used))


def render(
    release: Release,
    plan: str,
    parameters: Mapping[str, Value],
    facts: Facts,
    kind: TargetKind,
    instance: Instance,
) -> Rendered:
    """Everything of the instance. `parameters` holds every declared one, generated secrets included.

    Raises Problem(invalid-product) if a value does not fit the place where the product uses it (a limit that is no number), if a
    parameter or fact is missing, or if the product does not run on this kind of target.
    """
    if kind not in release.kinds:
        where = Where(
            f"{release.product} does not run on {kind} targets", hint="Give every service an x-spectrum.process."
        )
        raise _refused(where)
    context = _Context(release, plan, parameters, facts, kind, instance)
    services = {name: context.service(name) for name in context.services}
    hooks = {name: context.hook(name, data, services) for name, data in sorted(release.block.get("hooks", {}).items())}
    return Rendered(
        base=render_base(release, kind, instance),
        volumes=render_volumes(release, kind),
        services=services,
        hooks=hooks,
        endpoints=context.endpoints(),
        outputs=context.outputs(),
    )


def _refused(*errors: Where) -> Problem:
    return Problem("invalid-product", "The release can't be rendered.", errors)


class _Context:
    """One rendering: the merged services, and what every variable stands for."""

    def __init__(
        self,
        release: Release,
        plan: str,
        parameters: Mapping[str, Value],
        facts: Facts,
        kind: TargetKind,
        instance: Instance,
    ) -> None:
        self.release = release
        self.kind = kind
        self.facts = facts
        self.services = release.services(kind, plan)
        if missing := sorted(release.parameters.keys() - parameters.keys()):
            hint = "Validate the parameters and generate the secrets first."
            raise _refused(Where(f"no value for {', '.join(missing)}", "/parameters", hint=hint))
        self.texts = {name: plain_text(parameters[name]) for name in release.parameters}
        self.texts |= fact_rules.values(
            self.services, release.endpoints, facts, instance, lambda text: self.filled(text, self.texts.get)
        )
        self.secret_names = frozenset(name for name, parameter in release.parameters.items() if parameter.secret)

    def filled(self, text: str, lookup: Lookup) -> str:
        try:
            return interpolate(text, lookup)
        except InterpolationError as error:
            raise _refused(Where(str(error))) from None

    def lookup(self, service: str) -> Lookup:
        table = self.texts | {fact_rules.ROOT: self.facts.roots.get(service, "")}
        return table.get

    def service(self, name: str) -> Service:
        spec = self.services[name]
        lookup = self.lookup(name)
        command = self.words(spec.get("command", ()), lookup)
        entrypoint = self.words(spec["entrypoint"], lookup) if "entrypoint" in spec else None
        if self.kind is TargetKind.PROCESS:
            command, entrypoint = (*(entrypoint or ()), *command), None
        policy, _, attempts = spec.get("restart", "no").partition(":")
        return Service(
            name=name,
            command=command,
            image=spec.get("image", "") if self.kind is TargetKind.DOCKER else "",
            entrypoint=entrypoint,
            artifacts=tuple(self.release.artifacts[artifact] for artifact in spec.get("artifact", ())),
            environment=self.pairs(spec.get("environment", {}), lookup),
            files=(*self.configs(spec, lookup), *self.secrets(spec, lookup)),
            mounts=tuple(
                Mount(item["source"], item["target"], item.get("read_only", False)) for item in spec.get("volumes", ())
            ),
            ports=port_requests(name, spec),
            working_dir=spec.get("working_dir", ""),
            user=spec.get("user", ""),
            restart=RestartPolicy(policy),
            restart_attempts=int(attempts) if attempts else None,
            health=self.health(spec.get("healthcheck", {}), lookup),
            stop_signal=spec.get("stop_signal", "SIGTERM"),
            stop_grace=duration(spec, "stop_grace_period", 10.0),
            limits=self.limits(name, spec, lookup),
            read_only=spec.get("read_only", False),
            tmpfs=tuple(spec.get("tmpfs", ())),
            labels=self.pairs(spec.get("labels", {}), lookup),
            init=spec.get("init", False),
        )

    def words(self, words: Iterable[str], lookup: Lookup) -> tuple[str, ...]:
        return tuple(self.filled(word, lookup) for word in words)

    def pairs(self, pairs: Mapping[str, str], lookup: Lookup) -> dict[str, str]:
        return {key: self.filled(text, lookup) for key, text in sorted(pairs.items())}

    def configs(self, spec: Mapping[str, Json], lookup: Lookup) -> Iterable[File]:
        for grant in spec.get("configs", ()):
            entry = self.release.document["configs"][grant["source"]]
            value = (
                self.texts[entry["environment"]] if "environment" in entry else self.filled(entry["content"], lookup)
            )
            yield _file(grant, value, bool(config_names(entry) & self.secret_names))

    def secrets(self, spec: Mapping[str, Json], lookup: Lookup) -> Iterable[File]:
        for grant in spec.get("secrets", ()):
            entry = self.release.document["secrets"][grant["source"]]
            if "environment" in entry:
                yield _file(grant, self.texts[entry["environment"]], True)
            else:
                yield _file(grant, self.filled(entry["x-spectrum"]["content"], lookup), True)

    def health(self, spec: Mapping[str, Json], lookup: Lookup) -> HealthCheck | None:
        if "test" not in spec:
            return None
        form, *rest = self.words(spec["test"], lookup)
        return HealthCheck(
            test=("sh", "-c", *rest) if form == "CMD-SHELL" else tuple(rest),
            interval=duration(spec, "interval", 0.0) or 30.0,  # 0 is "the default", as in Compose
            timeout=duration(spec, "timeout", 0.0) or 30.0,
            retries=spec.get("retries", 3),
            start_period=duration(spec, "start_period", 0.0),
            start_interval=duration(spec, "start_interval", 0.0) or 5.0,
        )

    def limits(self, name: str, spec: Mapping[str, Json], lookup: Lookup) -> Limits:
        """Zero and -1 mean unlimited, as in Compose."""
        read: dict[str, float | None] = {}
        errors = []
        for key, value in spec.get("deploy", {}).get("resources", {}).get("limits", {}).items():
            try:
                amount = LIMIT_READERS[key](self.filled(str(value), lookup))
                read[key] = amount if amount > 0 else None
            except ValueError as error:
                pointer = origin(self.release, self.kind, name, "deploy", "resources", "limits", key)
                message = f"the limit {key} of {name!r} can't be read: {error}"
                errors.append(
                    Where(message, pointer, hint="Narrow the parameter by an enum, a pattern or a number type.")
                )
        if errors:
            raise _refused(*errors)
        memory, pids = read.get("memory"), read.get("pids")
        return Limits(
            memory=None if memory is None else int(memory),
            cpus=read.get("cpus"),
            pids=None if pids is None else int(pids),
        )

    def hook(self, name: str, data: Mapping[str, Json], services: Mapping[str, Service]) -> Hook:
        command = self.words(data["command"], self.lookup(data["service"]))
        timeout = duration(data, "timeout", 600.0)
        return Hook(name, services[data["service"]], command, timeout, data.get("stdout"), data.get("stdin"))

    def endpoints(self) -> tuple[RenderedEndpoint, ...]:
        return tuple(
            RenderedEndpoint(
                name=name,
                url=fact_rules.url(endpoint, self.facts, self.filled(endpoint.path, self.texts.get)),
                health_url=fact_rules.url(endpoint, self.facts, self.filled(endpoint.health, self.texts.get)),
                primary=endpoint.primary,
            )
            for name, endpoint in self.release.endpoints.items()
        )

    def outputs(self) -> tuple[Output, ...]:
        entries = sorted(self.release.block["outputs"].items())
        return tuple(
            Output(name, self.filled(data["value"], self.texts.get), data["audience"]) for name, data in entries
        )


def _file(grant: Mapping[str, Json], content: str, secret: bool) -> File:
    default = SECRET_MODE if secret else 0o444
    mode = int(grant["mode"], 8) if "mode" in grant else default
    owner = {key: int(grant[key]) if key in grant else None for key in ("uid", "gid")}
    return File(grant["target"], content, mode, owner["uid"], owner["gid"], secret)

"""What a canonical document must hold to: names exist, variables stand where they may, secrets where they are safe."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from spectrum.core.product import facts as fact_rules
from spectrum.core.product.interpolation import InterpolationError, Reference, parse, references
from spectrum.core.product.parameters import Parameter, ParameterType, hostile_samples
from spectrum.core.product.release import Release, TargetKind
from spectrum.core.product.report import Json, Report, join, nearest

_HARMLESS = re.compile(r"[A-Za-z0-9_.,:@/+=-]*")
_INTERPRETERS = re.compile(r"(.*/)?((ba|da|a|z|k)?sh|busybox|env|python[0-9.]*|perl|ruby|node|php|psql)")
_CODE_FLAG = re.compile(r"-[a-z]*[ce]|--command|--eval")


class Place(StrEnum):
    """Where a variable may stand."""

    COMMAND = "a command"
    ENTRYPOINT = "an entrypoint"
    HOOK = "a hook's command"
    HEALTH = "a health check"
    ENVIRONMENT = "the environment"
    LABEL = "a label"
    LIMIT = "a limit"
    CONFIG = "a config"
    ENDPOINT = "an endpoint"
    OUTPUT = "an output"


_ROOTED = frozenset({Place.COMMAND, Place.ENTRYPOINT, Place.HOOK, Place.HEALTH, Place.ENVIRONMENT, Place.CONFIG})


@dataclass(frozen=True, slots=True)
class Spot:
    """One text that may hold variables. `code`: an interpreter runs it."""

    pointer: str
    text: str
    place: Place
    code: bool = False


def check(release: Release, report: Report) -> None:
    """Adds to the report everything in the document that does not hold together."""
    _check_names(release, report)
    for kind in release.kinds:
        _check_services(release, kind, report)
        _check_facts(release, kind, report)
        known = frozenset(fact_rules.known_facts(release.services(kind), release.endpoints))
        for spot in spots(release, kind):
            _check_spot(release, kind, spot, known, report)


def _exists(report: Report, pointer: str, name: str, what: str, known: Mapping[str, object]) -> bool:
    if name not in known:
        hint = nearest(name, known) or f"Declare the {what} first."
        report.refuse(pointer, f"there is no {what} {name!r}", hint)
    return name in known


def _check_names(release: Release, report: Report) -> None:
    """Names in the top-level tables and in x-spectrum."""
    document, block = release.document, release.block
    services = document["services"]
    for table in ("configs", "secrets"):
        for name, entry in document[table].items():
            if "environment" in entry:
                _check_source(
                    release, report, join("", table, name, "environment"), entry["environment"], table == "secrets"
                )
    for name, hook in block.get("hooks", {}).items():
        pointer = join("/x-spectrum/hooks", name)
        _exists(report, join(pointer, "service"), hook["service"], "service", services)
        for index, other in enumerate(hook.get("while_stopped", ())):
            _exists(report, join(pointer, "while_stopped", index), other, "service", services)
    for name, endpoint in release.endpoints.items():
        _exists(report, join("/x-spectrum/endpoints", name, "service"), endpoint.service, "service", services)
    for name in block["plans"]:
        _check_plan(release, report, name)


def _check_source(release: Release, report: Report, pointer: str, name: str, secret: bool) -> None:
    if (
        _exists(report, pointer, name, "parameter", release.parameters)
        and secret
        and not release.parameters[name].secret
    ):
        report.refuse(
            pointer, f"the parameter {name!r} is not secret", "Add secret: true to it, or make this a config."
        )


def _check_plan(release: Release, report: Report, plan_name: str) -> None:
    pointer = join("/x-spectrum/plans", plan_name)
    for name in release.plan(plan_name).get("services", {}):
        _exists(report, join(pointer, "services", name), name, "service", release.document["services"])
    for name, value in release.plan_values(plan_name).items():
        where = join(pointer, "parameters", name)
        if not _exists(report, where, name, "parameter", release.parameters):
            continue
        parameter = release.parameters[name]
        if parameter.secret:
            report.refuse(where, f"{name} is secret: a plan can't set it", "Use generate, or let it be given.")
            continue
        try:
            parameter.check(value)
        except ValueError as error:
            report.refuse(where, f"the value of {name} {error}")


def origin(release: Release, kind: TargetKind, service: str, *keys: object) -> str:
    """The pointer of a part of a service: in the target's override if it is given there, else in the service itself."""
    target = release.document["services"][service].get("x-spectrum", {}).get(kind.value, {})
    if keys and keys[0] in target:
        return join("/services", service, "x-spectrum", kind.value, *keys)
    return join("/services", service, *keys)


def _check_services(release: Release, kind: TargetKind, report: Report) -> None:
    services = release.services(kind)
    for name, spec in services.items():
        for table in ("configs", "secrets", "volumes"):
            for index, entry in enumerate(spec.get(table, ())):
                pointer = origin(release, kind, name, table, index)
                _exists(report, pointer, entry["source"], table[:-1], release.document[table])
        for index, artifact in enumerate(spec.get("artifact", ())):
            _exists(report, origin(release, kind, name, "artifact", index), artifact, "artifact", release.artifacts)
        for need, dependency in spec.get("depends_on", {}).items():
            pointer = origin(release, kind, name, "depends_on", need)
            if _exists(report, pointer, need, "service", services):
                _check_condition(report, pointer, need, services[need], dependency["condition"], kind)
        _check_targets(release, kind, name, spec, report)
        _check_modes(release, kind, name, spec, report)
        if kind is TargetKind.PROCESS and not spec.get("command") and not spec.get("entrypoint"):
            hint = (
                "A process has no image to take it from: give the service a command, or one under x-spectrum.process."
            )
            report.refuse(join("/services", name), f"the service {name!r} has no command", hint)
    _check_cycles(release, kind, services, report)
    for name, endpoint in release.endpoints.items():
        public = [port["target"] for port in services.get(endpoint.service, {}).get("ports", ())]
        if endpoint.service in services and endpoint.port not in public:
            listed = (
                f"Its `ports`: {', '.join(map(str, public))}." if public else "Add the port to the service's `ports`."
            )
            pointer = join("/x-spectrum/endpoints", name, "port")
            report.refuse(pointer, f"{endpoint.port} is no public port of {endpoint.service!r}", listed)


def _check_condition(
    report: Report, pointer: str, name: str, spec: Mapping[str, Json], condition: str, kind: TargetKind
) -> None:
    restart = spec.get("restart", "no")
    if condition == "service_completed_successfully" and restart in ("always", "unless-stopped"):
        hint = f"Give {name} restart: no or on-failure."
        report.refuse(pointer, f"{name!r} can't complete: with restart: {restart} it is always started again", hint)
    health = spec.get("healthcheck", {})
    if condition != "service_healthy":
        return
    if health.get("disable") or (kind is TargetKind.PROCESS and "test" not in health):
        report.refuse(
            pointer, f"{name!r} can't become healthy: it has no health check", f"Give {name} a healthcheck.test."
        )


def _check_modes(release: Release, kind: TargetKind, name: str, spec: Mapping[str, Json], report: Report) -> None:
    """A config with a secret in it is a secret file: not for everybody."""
    secret = {parameter.name for parameter in release.parameters.values() if parameter.secret}
    for index, entry in enumerate(spec.get("configs", ())):
        config = release.document["configs"].get(entry["source"], {})
        if int(entry.get("mode", "0"), 8) & 0o007 and config_names(config) & secret:
            pointer = origin(release, kind, name, "configs", index)
            message = f"the mode {entry['mode']} lets everybody read the secret in {entry['source']!r}"
            report.refuse(pointer, message, "Leave the mode out, or write 0440 with a `gid`.")


def config_names(config: Mapping[str, Json]) -> frozenset[str]:
    """The variables that a config holds; none if it is no template."""
    if "environment" in config:
        return frozenset({config["environment"]})
    try:
        return frozenset(reference.name for reference in references(parse(config.get("content", ""))))
    except InterpolationError:
        return frozenset()


def _check_targets(release: Release, kind: TargetKind, name: str, spec: Mapping[str, Json], report: Report) -> None:
    seen: dict[str, str] = {}
    for table in ("volumes", "configs", "secrets"):
        for index, entry in enumerate(spec.get(table, ())):
            if entry["target"] in seen:
                pointer = origin(release, kind, name, table, index)
                report.refuse(
                    pointer, f"{entry['target']} is already taken by {seen[entry['target']]}", "Give it another target."
                )
            seen[entry["target"]] = f"{table[:-1]} {entry['source']!r}"


def _check_cycles(
    release: Release, kind: TargetKind, services: Mapping[str, Mapping[str, Json]], report: Report
) -> None:
    remaining = {
        name: {need for need in spec.get("depends_on", {}) if need in services} for name, spec in services.items()
    }
    while ready := [name for name, needs in remaining.items() if not needs & remaining.keys()]:
        for name in ready:
            del remaining[name]
    for name in sorted(remaining):
        circle = ", ".join(sorted(remaining))
        report.refuse(
            origin(release, kind, name, "depends_on"),
            f"services wait for each other: {circle}",
            "Remove one dependency.",
        )
        break


def _check_facts(release: Release, kind: TargetKind, report: Report) -> None:
    names = Counter(fact_rules.known_facts(release.services(kind), release.endpoints))
    for name, count in names.items():
        if count > 1:
            report.refuse(
                "/services", f"two services or endpoints give the fact {name}", "Names may not differ in - and _ alone."
            )


def spots(release: Release, kind: TargetKind) -> Iterator[Spot]:
    """Every text in which a variable may stand, for one kind of target."""
    for name, spec in release.services(kind).items():
        entrypoint = spec.get("entrypoint", ())
        yield from _words(origin(release, kind, name, "entrypoint"), entrypoint, Place.ENTRYPOINT)
        yield from _words(origin(release, kind, name, "command"), spec.get("command", ()), Place.COMMAND, entrypoint)
        test = spec.get("healthcheck", {}).get("test", ())
        yield from _words(origin(release, kind, name, "healthcheck", "test"), test, Place.HEALTH)
        for key, place in (("environment", Place.ENVIRONMENT), ("labels", Place.LABEL)):
            for label, text in spec.get(key, {}).items():
                yield Spot(origin(release, kind, name, key, label), text, place)
    yield from _limit_spots(release)
    for table in ("configs", "secrets"):
        for name, entry in release.document[table].items():
            if "content" in entry:
                yield Spot(join("", table, name, "content"), entry["content"], Place.CONFIG)
            elif "x-spectrum" in entry:
                yield Spot(join("", table, name, "x-spectrum", "content"), entry["x-spectrum"]["content"], Place.CONFIG)
    yield from _extension_spots(release)


def _limit_spots(release: Release) -> Iterator[Spot]:
    tables = {"": release.document["services"]}
    tables |= {
        join("/x-spectrum/plans", name): plan.get("services", {}) for name, plan in release.block["plans"].items()
    }
    for stem, services in tables.items():
        for name, spec in services.items():
            for key, text in spec.get("deploy", {}).get("resources", {}).get("limits", {}).items():
                if isinstance(text, str):
                    yield Spot(join(f"{stem}/services", name, "deploy", "resources", "limits", key), text, Place.LIMIT)


def _extension_spots(release: Release) -> Iterator[Spot]:
    for name, hook in release.block.get("hooks", {}).items():
        yield from _words(join("/x-spectrum/hooks", name, "command"), hook["command"], Place.HOOK)
    for name, endpoint in release.endpoints.items():
        for key, text in (("path", endpoint.path), ("health", endpoint.health)):
            yield Spot(join("/x-spectrum/endpoints", name, key), text, Place.ENDPOINT)
    for name, output in release.block["outputs"].items():
        yield Spot(join("/x-spectrum/outputs", name), output["value"], Place.OUTPUT)


def _words(pointer: str, words: Sequence[str], place: Place, before: Sequence[str] = ()) -> Iterator[Spot]:
    """The words of a command; what follows `sh -c` and the like is code. `before` are words in front of them."""
    for index, text in enumerate(words):
        earlier = [*before, *words[:index]]
        flagged = len(earlier) > 1 and _CODE_FLAG.fullmatch(earlier[-1]) is not None
        code = (flagged and any(map(_INTERPRETERS.fullmatch, earlier))) or earlier == ["CMD-SHELL"]
        yield Spot(join(pointer, index), text, place, code)


def _check_spot(release: Release, kind: TargetKind, spot: Spot, known: frozenset[str], report: Report) -> None:
    try:
        found = tuple(references(parse(spot.text)))
    except InterpolationError as error:
        report.refuse(spot.pointer, str(error))
        return
    for reference in found:
        known_name = reference.name in release.parameters or reference.name.startswith(fact_rules.PREFIX)
        if known_name and not reference.has_default:
            hint = f"Write ${{{reference.name}:-default}}, so that plain Compose runs the file."
            report.refuse(spot.pointer, f"the variable {reference.name} has no default", hint)
        if reference.name.startswith(fact_rules.PREFIX):
            _check_fact(spot, reference, known, report)
        elif parameter := release.parameters.get(reference.name):
            _check_parameter(release, kind, spot, parameter, report)
        else:
            _refuse_unknown(release, spot, reference, report)


def _check_fact(spot: Spot, reference: Reference, known: frozenset[str], report: Report) -> None:
    if reference.name not in known:
        hint = nearest(reference.name, known) or "A service gives _HOST, _BIND and _PORT; an endpoint gives _URL."
        report.refuse(spot.pointer, f"there is no fact {reference.name}", hint)
    elif reference.name == fact_rules.ROOT and spot.place not in _ROOTED:
        report.refuse(
            spot.pointer, f"{fact_rules.ROOT} means nothing in {spot.place}", "It is the root of one service."
        )
    elif spot.place in (Place.ENDPOINT, Place.LIMIT):
        report.refuse(spot.pointer, f"a fact can't stand in {spot.place}", "Use a parameter.")


def _refuse_unknown(release: Release, spot: Spot, reference: Reference, report: Report) -> None:
    name = reference.name
    hint = (
        nearest(name.lower(), release.parameters)
        or "Declare it under x-spectrum.parameters, or write $$ for a literal $."
    )
    if name != name.lower():
        hint = f"Parameters are lower-case, facts start with INSTANCE_. {hint}"
    report.refuse(spot.pointer, f"{name!r} is neither a parameter nor a fact", hint)


def _check_parameter(release: Release, kind: TargetKind, spot: Spot, parameter: Parameter, report: Report) -> None:
    if parameter.secret and spot.place is Place.ENVIRONMENT:
        if kind is TargetKind.DOCKER and not release.environment_secrets_allowed:
            hint = "Give it as a secret or in a config; or add env_secrets: allowed to x-spectrum."
            report.refuse(spot.pointer, f"the secret {parameter.name} would show in `docker inspect`", hint)
    elif parameter.secret and spot.place is not Place.CONFIG:
        hint = "Give it to the service as a secret or in a config, and read that file."
        report.refuse(
            spot.pointer, f"the secret {parameter.name} can't stand in {spot.place}: others could read it", hint
        )
    elif spot.code and _can_be_code(parameter):
        hint = f'Pass it in `environment` and write "$${parameter.name.upper()}", or narrow the parameter by an enum or a pattern.'
        report.refuse(spot.pointer, f"a value of {parameter.name} could run as code here", hint)


def _can_be_code(parameter: Parameter) -> bool:
    texts = (
        value for value in hostile_samples(parameter) if parameter.type is ParameterType.STRING and not parameter.enum
    )
    return any(not _HARMLESS.fullmatch(str(value)) for value in texts)

"""From a vendor's files to a release that may be published, or to the list of everything that is wrong with them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

from spectrum.core.errors import Problem, Where
from spectrum.core.product import document, rules
from spectrum.core.product.compose import read_document
from spectrum.core.product.facts import Instance, port_requests
from spectrum.core.product.interpolation import parse, references
from spectrum.core.product.parameters import Parameter, Value, hostile_samples
from spectrum.core.product.release import MAX_STORED, Release, TargetKind
from spectrum.core.product.render import render
from spectrum.core.product.report import join
from spectrum.core.product.resources import Facts
from spectrum.core.product.sources import Read

_SAMPLE_INSTANCE = Instance("sample", "ins_00000000-0000-7000-8000-000000000000")


@dataclass(frozen=True, slots=True)
class Reading:
    """An accepted release, and what its vendor should know about it."""

    release: Release
    notes: tuple[Where, ...] = ()


def read_product(text: str, file: str, read: Read) -> Reading:
    """The release that a product file describes. `file` is its name for messages.

    `read` gives the text of another file by its path relative to the product's folder; it raises OSError or ValueError,
    and must not follow a link out of the folder. Raises Problem(invalid-product) with every mistake: pointer, file,
    line, message, hint.
    """
    return _accepted(document.parse(text, file), read)


def read_stored(text: str) -> Reading:
    """The release in a canonical document that came over the network: everything is checked again.

    Raises Problem(invalid-product), also if the text is not canonical.
    """
    try:
        data = json.loads(text)
        text.encode()
    except (ValueError, RecursionError):
        raise Problem("invalid-product", "The release is no JSON.", (Where("not a JSON document"),)) from None
    reading = _accepted(document.from_json(data, "release"), _no_files)
    if reading.release.canonical != text:
        where = Where("not in canonical form", hint="Publish with `spectrum product publish FILE`.")
        raise Problem("invalid-product", "The release is not canonical.", (where,))
    return reading


def _no_files(path: str) -> str:
    raise FileNotFoundError(2, "a stored release names no files", path)


def _accepted(node: document.Node, read: Read) -> Reading:
    data, report = read_document(node, read)
    report.finish(node.file)
    release = Release(data)
    rules.check(release, report)
    report.finish(node.file)
    report.errors.extend(report.located(publish_checks(release)))
    report.finish(node.file)
    return Reading(release, report.located(_notes(release)))


def publish_checks(release: Release) -> tuple[Where, ...]:
    """Renders every plan on every kind of target with the defaults and with hostile samples; says what does not render."""
    if len(release.canonical) > MAX_STORED:
        return (
            Where(
                f"the release is larger than {MAX_STORED >> 20} MiB", hint="Put large files into the image or artifact."
            ),
        )
    found: dict[str, Where] = {}
    for plan, kind, values in itertools.product(release.plans, release.kinds, _rounds(release)):
        try:
            render(
                release,
                plan,
                values | _plan_values(release, plan, values),
                sample_facts(release, kind),
                kind,
                _SAMPLE_INSTANCE,
            )
        except Problem as problem:
            found = {error.pointer: error for error in problem.errors} | found  # the first for a place is enough
    return tuple(found.values())


def _plan_values(release: Release, plan: str, values: dict[str, Value]) -> dict[str, Value]:
    """What the plan sets, where the round left the default."""
    given = release.plan_values(plan)
    return {name: value for name, value in given.items() if values[name] == release.parameters[name].default}


def _rounds(release: Release) -> Iterator[dict[str, Value]]:
    """Values for all parameters at once: the defaults first, then one hostile sample after another."""
    samples = {name: hostile_samples(parameter) for name, parameter in release.parameters.items()}
    yield {name: _default(parameter) for name, parameter in release.parameters.items()}
    for index in range(max(map(len, samples.values()), default=0)):
        yield {
            name: samples[name][index] if index < len(samples[name]) else _default(parameter)
            for name, parameter in release.parameters.items()
        }


def _default(parameter: Parameter) -> Value:
    if parameter.default is not None:
        return parameter.default
    return next(iter(hostile_samples(parameter)[-1:]), "sample")


def sample_facts(release: Release, kind: TargetKind) -> Facts:
    """Facts such as a target of this kind gives, for checks."""
    services = release.services(kind)
    process = kind is TargetKind.PROCESS
    requests = [request for name, spec in services.items() for request in port_requests(name, spec)]
    ports = {
        f"{item.service}/{item.port}": 21_000 + index if process else item.port for index, item in enumerate(requests)
    }
    return Facts(
        ports=ports,
        roots={name: f"/var/lib/spectrum/sample/{name}" if process else "" for name in services},
        hosts={name: "127.0.0.1" if process else name for name in services},
        binds=dict.fromkeys(services, "127.0.0.1" if process else "0.0.0.0"),  # noqa: S104  inside a container
        addresses={key: f"127.0.0.1:{port}" for key, port in ports.items()},
    )


def _notes(release: Release) -> Iterator[Where]:
    """What is allowed, but should be known."""
    secret = {name for name, parameter in release.parameters.items() if parameter.secret}
    for spot in rules.spots(release, TargetKind.DOCKER):
        names = sorted({reference.name for reference in references(parse(spot.text))} & secret)
        if spot.place is rules.Place.ENVIRONMENT and names:
            yield Where(f"the secret {', '.join(names)} shows in `docker inspect` (env_secrets: allowed)", spot.pointer)
    for name, entry in release.document["secrets"].items():
        if "file" in entry:
            message = f"the secret {name!r} is stored in clear with the release, the same for every instance"
            yield Where(message, join("/secrets", name), hint="Use a secret parameter: {environment: NAME}.")
    process = {name for name, spec in release.document["services"].items() if "process" in spec.get("x-spectrum", {})}
    if process and TargetKind.PROCESS not in release.kinds:
        missing = ", ".join(sorted(release.document["services"].keys() - process))
        yield Where(f"not for process targets: {missing} has no x-spectrum.process", "/services")
    for name, spec in release.document["services"].items():
        for port in spec.get("ports", ()):
            if port.get("published"):
                message = f"the host port {port['published']} is not used: each instance gets one of its own"
                yield Where(message, join("/services", name, "ports"), hint=f'Write "{port["target"]}".')

"""Facts: what a product may ask about the instance and the target (`INSTANCE_*`), by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from spectrum.core.errors import Problem, Where
from spectrum.core.product.extension import Endpoint, fact_name
from spectrum.core.product.report import Json
from spectrum.core.product.resources import Facts, PortRequest

PREFIX = "INSTANCE_"
ROOT = "INSTANCE_ROOT"
NAME = "INSTANCE_NAME"
ID = "INSTANCE_ID"

Services = Mapping[str, Mapping[str, Json]]
Given = TypeVar("Given")


@dataclass(frozen=True, slots=True)
class Instance:
    """Who the release is rendered for."""

    name: str
    id: str


def port_requests(name: str, spec: Mapping[str, Json]) -> tuple[PortRequest, ...]:
    """The ports of a canonical service: `ports` are public, `expose` is inside the instance only."""
    public = dict.fromkeys(port["target"] for port in spec.get("ports", ()))
    inner = dict.fromkeys(int(port) for port in spec.get("expose", ()) if int(port) not in public)
    return (*(PortRequest(name, port, True) for port in public), *(PortRequest(name, port, False) for port in inner))


def known_facts(services: Services, endpoints: Mapping[str, Endpoint]) -> list[str]:
    """The name of every fact that these services and endpoints give. Two of a kind stand in it twice."""
    names = [NAME, ID, ROOT]
    for name, spec in services.items():
        names += [f"{PREFIX}{fact_name(name)}_HOST", f"{PREFIX}{fact_name(name)}_BIND"]
        names += [fact for fact, _ in _port_facts(name, spec)]
    return names + [_url_fact(endpoint) for endpoint in endpoints.values()]


def _port_facts(name: str, spec: Mapping[str, Json]) -> Iterator[tuple[str, int]]:
    requests = port_requests(name, spec)
    stem = f"{PREFIX}{fact_name(name)}_PORT"
    for request in requests:
        yield f"{stem}_{request.port}", request.port
    if len(requests) == 1:
        yield stem, requests[0].port


def _url_fact(endpoint: Endpoint) -> str:
    return f"{PREFIX}{fact_name(endpoint.name)}_URL"


def values(
    services: Services, endpoints: Mapping[str, Endpoint], facts: Facts, instance: Instance, path: Callable[[str], str]
) -> dict[str, str]:
    """Every fact but INSTANCE_ROOT, which differs by service. `path` fills in the path of an endpoint.

    Raises Problem(invalid-product) if the target's facts lack a port or an address.
    """
    result = {NAME: instance.name, ID: instance.id}
    for name, spec in services.items():
        for fact, table in (("HOST", facts.hosts), ("BIND", facts.binds)):
            key = f"{PREFIX}{fact_name(name)}_{fact}"
            result[key] = _given(table, name, key)
        for fact, port in _port_facts(name, spec):
            result[fact] = str(_given(facts.ports, f"{name}/{port}", fact))
    for endpoint in endpoints.values():
        result[_url_fact(endpoint)] = url(endpoint, facts, path(endpoint.path))
    return result


def url(endpoint: Endpoint, facts: Facts, path: str) -> str:
    """An endpoint's URL; a `tcp` endpoint has no path."""
    address = _given(facts.addresses, f"{endpoint.service}/{endpoint.port}", _url_fact(endpoint))
    return f"{endpoint.scheme}://{address}{'' if endpoint.scheme == 'tcp' else path}"


def _given(table: Mapping[str, Given], key: str, fact: str) -> Given:
    if key not in table:
        raise Problem(
            "invalid-product", f"The target gave no value for {fact}.", (Where(f"no {key} among the target's facts"),)
        )
    return table[key]

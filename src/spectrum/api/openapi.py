"""The OpenAPI 3.1 document: what the framework makes of the routes, and what no route says by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI

from spectrum.api import models

# A text in an address: control characters are refused as `malformed`, and no name or id holds a slash or a colon.
QUERY_TEXT = r"^[^\x00-\x1f\x7f]*$"
PATH_TEXT = r"^[^\x00-\x1f\x7f/:]+$"

_JOB = ("/v1/jobs/{job_id}", "job_id", "$response.body#/id")
_INSTANCE = ("/v1/instances/{instance}", "instance", "$response.body#/subject/id")
_OF_JOB: dict[str, tuple[str, tuple[str, str, str]]] = {
    "job": ("get", _JOB),
    "why": ("get", ("/v1/jobs/{job_id}/why", *_JOB[1:])),
    "cancel": ("post", ("/v1/jobs/{job_id}:cancel", *_JOB[1:])),
    "instance": ("get", _INSTANCE),
    "act": ("post", ("/v1/instances/{instance}:{verb}", *_INSTANCE[1:])),
    "delete": ("delete", _INSTANCE),
}


def _by_id(path: str, method: str = "get") -> tuple[str, tuple[str, str, str]]:
    return method, (path, path[path.index("{") + 1 : path.index("}")], "$response.body#/id")


# Where an answer leads: (path, method, status) -> its links, each with the operation, its parameter and where its value stands.
LINKS: dict[tuple[str, str, str], dict[str, tuple[str, tuple[str, str, str]]]] = {
    ("/v1/instances", "post", "202"): _OF_JOB,
    ("/v1/instances/{instance}", "put", "202"): _OF_JOB,
    ("/v1/instances/{instance}", "delete", "202"): _OF_JOB,
    ("/v1/instances/{instance}:{verb}", "post", "202"): _OF_JOB,
    ("/v1/tokens", "post", "201"): {"revoke": _by_id("/v1/tokens/{token_id}", "delete")},
    ("/v1/targets", "post", "201"): {
        "target": _by_id("/v1/targets/{target}"),
        "remove": _by_id("/v1/targets/{target}", "delete"),
    },
    ("/v1/organizations", "post", "201"): {"organization": _by_id("/v1/organizations/{organization}")},
}


def complete(app: FastAPI) -> None:
    """Have the application show the document with how to sign in, the shape of problems, patterns and links."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            _add_components(document)
            for operation in _operations(document):
                _bound_texts(operation)
            _add_links(document["paths"])
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_components(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "spk_…"}}
    schemas = components.setdefault("schemas", {})
    problem = models.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    return (operation for item in document["paths"].values() for operation in item.values())


def _bound_texts(operation: dict[str, Any]) -> None:
    patterns = {"path": PATH_TEXT, "query": QUERY_TEXT}
    for parameter in operation.get("parameters", ()):
        _leave_out_null(parameter["schema"])
        for schema in _texts(parameter["schema"]):
            if parameter["in"] in patterns and not schema.keys() & {"pattern", "enum", "format"}:
                schema["pattern"] = patterns[parameter["in"]]


def _leave_out_null(schema: dict[str, Any]) -> None:
    """No header and no query holds a null: it is there or not."""
    if "anyOf" in schema and not (others := [each for each in schema["anyOf"] if each != {"type": "null"}])[1:]:
        del schema["anyOf"]
        schema.update(others[0])


def _texts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if schema.get("type") == "string":
        yield schema
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        yield from _texts(inner)


def _add_links(paths: Mapping[str, Any]) -> None:
    for (path, method, status), links in LINKS.items():
        if path in paths:
            paths[path][method]["responses"][status]["links"] = {
                name: {"operationId": paths[there][verb]["operationId"], "parameters": {parameter: value}}
                for name, (verb, (there, parameter, value)) in links.items()
            }

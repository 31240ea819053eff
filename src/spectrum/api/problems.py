"""Every answer that says no, as application/problem+json (RFC 9457), and what each kind of problem means."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from spectrum.core.errors import STATUS, Problem, Where

MEDIA_TYPE = "application/problem+json"

# Slug -> what it is called, and what to do about it.
CATALOGUE: dict[str, tuple[str, str]] = {
    "malformed": ("The request can't be read", "Send well-formed JSON in UTF-8, and headers in the documented form."),
    "idempotency-key-missing": (
        "A changing request needs an Idempotency-Key",
        "Send the header Idempotency-Key with a value of your own, and the same value when you send the request again.",
    ),
    "unauthenticated": ("Who are you?", "Send the header `Authorization: Bearer spk_…` with a valid token."),
    "join-token-invalid": ("The join token is not valid", "Make a new one: spectrum worker join-token."),
    "signature-invalid": ("The signature was refused", "Check the worker's key and the URL that it signs for."),
    "signature-replayed": ("The call was seen before, or is too old", "Take over the server's time and sign anew."),
    "forbidden": ("Not allowed", "Use a token with the scope that the detail names."),
    "not-found": ("There is no such thing", "Check the name and the organization of the token."),
    "method-not-allowed": ("This can't be done here", "Use one of the methods in the header Allow."),
    "instance-busy": ("Too much is queued for this instance", "Wait for its jobs, or cancel some."),
    "not-allowed-now": ("Not in this state", "The detail says what has to happen first."),
    "stale-fence": ("The right to do this was lost", "Drop the job; somebody else holds it now."),
    "report-gap": ("Reports are missing", "Send again from the report that `resend_from` names."),
    "operation-not-available": ("This version can't do that yet", "Use a version that offers the operation."),
    "precondition-failed": ("It is not as you thought", "Read it again and decide anew."),
    "too-large": ("The request is too large", "Send less; the detail says how much is allowed."),
    "unsupported-media-type": ("Not in this format", "Send application/json."),
    "idempotency-key-reused": ("The key was used for another request", "Choose a new Idempotency-Key."),
    "invalid-product": ("The product has mistakes", "Correct the places listed in `errors`."),
    "invalid-parameter": ("A parameter is wrong", "Correct the places listed in `errors`."),
    "rate-limited": ("Too many requests", "Wait as long as the header Retry-After says."),
    "internal": ("Something broke on our side", "Send the request again; if it stays, report its request_id."),
    "unavailable": ("Not available right now", "Send the request again after Retry-After."),
}

_BY_STATUS = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
    422: "invalid-parameter",
    429: "rate-limited",
    503: "unavailable",
}


# What pydantic calls a mistake -> what we say of it; its context is filled in.
_WORDS = {
    "extra_forbidden": "unknown field",
    "missing": "is missing",
    "string_type": "must be a string",
    "dict_type": "must be an object",
    "model_attributes_type": "must be an object",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "int_parsing": "must be a whole number",
    "bool_parsing": "must be true or false",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "timezone_aware": "must name its time zone, such as 2030-01-31T12:00:00Z",
    "datetime_parsing": "must be a time, such as 2030-01-31T12:00:00Z",
    "datetime_from_date_parsing": "must be a time, such as 2030-01-31T12:00:00Z",
    "datetime_type": "must be a time, such as 2030-01-31T12:00:00Z",
}


def body_of(problem: Problem, path: str, request_id: str, docs: str) -> dict[str, Any]:
    """The members of RFC 9457 with SPECTRUM's own. `docs` is the address of the problem's page."""
    return {
        "type": problem.type,
        "title": CATALOGUE[problem.slug][0],
        "status": problem.status,
        "detail": problem.detail,
        "instance": path,
        "docs": docs,
        "request_id": request_id,
        "errors": [where.as_json() for where in problem.errors],
        **problem.extra,
    }


def headers_of(problem: Problem) -> dict[str, str]:
    """What must be said in headers too: how to sign in, when to come back."""
    headers = {}
    if problem.slug == "unauthenticated":
        headers["WWW-Authenticate"] = 'Bearer realm="spectrum"'
    if problem.status in (429, 503):
        headers["Retry-After"] = str(math.ceil(float(problem.extra.get("retry_after", 1))))
    return headers


def response_to(request: Request, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that can't be fulfilled."""
    body = body_of(
        problem,
        request.url.path,
        str(request.scope.get("state", {}).get("request_id", "")),
        f"{request.app.state.public_url}/problems/{problem.slug}",
    )
    return JSONResponse(body, problem.status, {**headers_of(problem), **(headers or {})}, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error that the framework and the handlers raise a problem."""
    for kind in (Problem, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _on_error)


async def _on_error(request: Request, error: Exception) -> Response:
    match error:
        case Problem():
            return response_to(request, error)
        case RequestValidationError():
            return response_to(request, _of_validation(request, error))
        case HTTPException():
            return response_to(request, _of_framework(request, error), _framework_headers(request, error))
        case _:
            return response_to(request, unexpected(error))


def _of_validation(request: Request, error: RequestValidationError) -> Problem:
    known = _fields(request)
    places = tuple(_place(details, known) for details in error.errors())
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return Problem("invalid-parameter", f"{places[0].pointer or 'body'}: {places[0].message}{more}.", places)


def _of_framework(request: Request, error: HTTPException) -> Problem:
    slug = _BY_STATUS.get(error.status_code, "internal" if error.status_code >= 500 else "malformed")
    path = request.url.path
    shorter = path.rstrip("/")
    where = f"Try {shorter}" if shorter not in ("", path) else "See /openapi.json"
    details = {
        "not-found": f"There is nothing at {path}. {where}.",
        "method-not-allowed": f"{request.method} is not possible at {request.url.path}.",
    }
    return Problem(slug, details.get(slug, str(error.detail)))


def _framework_headers(request: Request, error: HTTPException) -> Mapping[str, str] | None:
    """The framework names the methods of the first route that fits a path; a path may have several routes."""
    if error.status_code != 405:
        return error.headers
    routes = [route for route in request.app.state.routes if route.path_regex.match(request.url.path)]
    return {"Allow": ", ".join(sorted({method for route in routes for method in route.methods}))}


def unexpected(error: Exception) -> Problem:
    """What a caller may know of an error that nobody foresaw: nothing but that it happened."""
    structlog.get_logger(__name__).error("unexpected error", exc_info=error)
    return Problem("internal", "The request failed for a reason on our side; nothing of it was done unless it says so.")


def _fields(request: Request) -> tuple[str, ...]:
    """What the body of a request may hold."""
    body: Any = getattr(request.scope.get("route"), "body_field", None)
    return tuple(getattr(body.field_info.annotation, "model_fields", ())) if body else ()


def _place(details: Mapping[str, Any], known: Sequence[str]) -> Where:
    location: Sequence[int | str] = details.get("loc", ())
    kind, *path = location or ("",)
    message, hint = _message(details), ""
    if details.get("type") == "extra_forbidden":
        near = difflib.get_close_matches(str(path[-1]), known, 1) if len(path) == 1 else []
        hint = f"Did you mean {near[0]!r}?" if near else "Remove it."
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    return Where(message, pointer if kind == "body" else f"{kind}:{'.'.join(str(part) for part in path)}", hint=hint)


def _message(details: Mapping[str, Any]) -> str:
    words = _WORDS.get(details.get("type", ""))
    if words is None:
        return str(details.get("msg", "is wrong")).removeprefix("Value error, ")
    context = {name: str(value).replace(" or ", ", ") for name, value in (details.get("ctx") or {}).items()}
    if "expected" in context:
        context["expected"] = f"one of {context['expected']}" if "," in context["expected"] else context["expected"]
    return words.format(**context).replace("'", "")


def schemas(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of these problems, one for each status."""
    by_status: dict[int | str, list[str]] = {}
    for slug in slugs:
        by_status.setdefault(STATUS[slug], []).append(slug)
    return {
        status: {
            "description": "; ".join(f"`{slug}`: {CATALOGUE[slug][0]}" for slug in found),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, found in sorted(by_status.items(), key=lambda item: str(item[0]))
    }

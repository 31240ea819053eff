"""What a holder tells of an attempt, made fit to be kept: no report may be one that can never be taken (P19).

Programs and targets say what they like, at any length. What is too much or no JSON is left out, and the rest is kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spectrum.core.jobs.commands import Outcome
from spectrum.core.jobs.table import Health
from spectrum.core.weighed import weight_of

LIMIT = 32_768  # bytes of a step's output, as PostgreSQL counts them; the schema has it too
LEFT_OUT = "left_out"  # the member that names those that were too much
_NAMES, _NAME = 20, 100  # that stand there, and characters of each
_ROOM = 2 * _NAMES * _NAME
_SURELY_SMALL = LIMIT // 8  # characters of JSON: no value takes more than six bytes for one of them
_TEXTS = ("name", "state", "health")


def fit(outcome: Outcome) -> Outcome:
    """The outcome, with an output and a failure that can be kept."""
    if outcome.failure is not None:
        outcome = replace(outcome, failure=outcome.failure.trimmed())
    try:
        json.dumps(outcome.output, allow_nan=False)
    except ValueError:
        return replace(outcome, output={name: _finite(each) for name, each in outcome.output.items()})
    return outcome


def _finite(value: Any) -> Any:
    """JSON knows no infinity and nothing that is not a number."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _finite(each) for name, each in value.items()}
        case list():
            return [_finite(each) for each in value]
        case _:
            return value


def small(output: Mapping[str, Any]) -> dict[str, Any]:
    """As much of an output as a step keeps: its heaviest members are left out, and named."""
    if len(json.dumps(output)) <= _SURELY_SMALL:
        return dict(output)
    weights = {name: weight_of({name: value}) for name, value in output.items()}
    left, kept = dict(output), {}
    room = LIMIT - _ROOM if sum(weights.values()) > LIMIT else LIMIT
    for name in sorted(weights, key=lambda name: (weights[name], name)):
        room -= weights[name]
        if room >= 0:
            kept[name] = left.pop(name)
    return {**kept, LEFT_OUT: [name[:_NAME] for name in sorted(left)[:_NAMES]]} if left else kept


def record_in(output: Mapping[str, Any]) -> dict[str, Any]:
    """The members of the instance that an output brings, each only where it is of the shape that is read later."""
    found = {
        "facts": output.get("facts") if isinstance(output.get("facts"), dict) else None,
        "outputs": output.get("outputs") if _are_outputs(output.get("outputs")) else None,
        "services": tuple(each for each in _dicts(output.get("services")) if _is_service(each)),
    }
    return {name: value for name, value in found.items() if value}


def conditions_in(output: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conditions that an output brings."""
    return [each for each in _dicts(output.get("conditions")) if _texts(each, ("type", "status"))]


def health_in(output: Mapping[str, Any]) -> Health | None:
    """The health that an output brings."""
    return next((health for health in Health if health == output.get("health")), None)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list | tuple) else []


def _texts(value: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return all(isinstance(value.get(name), str) for name in names)


def _is_service(service: Mapping[str, Any]) -> bool:
    counted = isinstance(service.get("restarts"), int) and isinstance(service.get("ports"), dict)
    return counted and _texts(service, _TEXTS)


def _are_outputs(outputs: Any) -> bool:
    if not isinstance(outputs, dict):
        return False
    values, endpoints = outputs.get("values", {}), outputs.get("endpoints", [])
    named = isinstance(values, dict) and all(isinstance(each, dict) and "value" in each for each in values.values())
    return named and isinstance(endpoints, list) and len(_dicts(endpoints)) == len(endpoints)

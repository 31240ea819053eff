"""Compose's override rules on canonical services (https://docs.docker.com/reference/compose-file/merge/).

Mappings merge; lists of attachments grow, and what has a target (volumes, configs, secrets) is unique by it; everything else
(command, entrypoint, the health check's test, single values) is replaced. Inputs are never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from spectrum.core.product.report import Json

_UNIQUE_BY: Mapping[str, Callable[[Json], Json]] = {
    "volumes": lambda item: item["target"],
    "configs": lambda item: item["target"],
    "secrets": lambda item: item["target"],
    "ports": lambda item: (item["target"], item.get("published"), item.get("host_ip")),
    "expose": lambda item: item,
    "tmpfs": lambda item: item.partition(":")[0],
}


def merged(base: Mapping[str, Json], override: Mapping[str, Json]) -> dict[str, Json]:
    """`base` with `override` laid over it."""
    result = dict(base)
    for key, value in override.items():
        result[key] = _merged_value(key, result[key], value) if key in result else value
    return result


def _merged_value(key: str, old: Json, new: Json) -> Json:
    if key == "healthcheck" and ("disable" in old or "disable" in new):
        return new
    if isinstance(old, dict) and isinstance(new, dict):
        return merged(old, new)
    if key in _UNIQUE_BY and isinstance(old, list) and isinstance(new, list):
        by = {_UNIQUE_BY[key](item): item for item in old}
        return list((by | {_UNIQUE_BY[key](item): item for item in new}).values())
    return new

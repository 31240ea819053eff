"""What sightings make of an instance: its health with a threshold, its services, and conditions whose beginning is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from spectrum.core.jobs.model import Instance
from spectrum.core.jobs.table import Health, Lifecycle
from spectrum.core.moments import stamp

SIGHTINGS = 2  # equal ones in a row, before the health changes
WATCHED = frozenset({Lifecycle.RUNNING, Lifecycle.STOPPED})

Service = Mapping[str, Any]
Condition = Mapping[str, Any]


def health_of(
    lifecycle: Lifecycle,
    services: Sequence[Service],
    primary: frozenset[str],
    never_end: frozenset[str] = frozenset(),
) -> Health:
    """The health that one sighting shows. `primary` are the services behind the primary endpoint, `never_end` those that are
    not well once they have ended, however well they did.

    Of an instance that is not to run there is nothing to be said.
    """
    if lifecycle is not Lifecycle.RUNNING or not services:
        return Health.UNKNOWN
    well = {service["name"] for service in services if _well(service, never_end)}
    if len(well) == len(services):
        return Health.HEALTHY
    wrong = {service["name"] for service in services} - well
    return Health.UNHEALTHY if not well or wrong & primary else Health.DEGRADED


def _well(service: Service, never_end: frozenset[str]) -> bool:
    if service["state"] == "completed":
        return service["name"] not in never_end
    return bool(service["state"] == "running" and service["health"] == "healthy")


def all_services(lifecycle: Lifecycle, known: Sequence[Service], seen: Sequence[Service]) -> tuple[Service, ...]:
    """What was seen, and of the services that are known to belong to the instance those that were not.

    They are missing, unless the instance is not to run.
    """
    names = {service["name"] for service in seen}
    state = "missing" if lifecycle is Lifecycle.RUNNING else "stopped"
    missing = [
        {"name": each["name"], "state": state, "health": "unknown", "restarts": 0, "ports": {}}
        for each in known
        if each["name"] not in names
    ]
    return tuple(sorted([*seen, *missing], key=lambda service: str(service["name"])))


def steady(instance: Instance, seen: Health, now: datetime) -> dict[str, Any]:
    """The members of the instance that change with one more sighting of its health.

    A health that differs from the one that stands takes `SIGHTINGS` equal ones in a row: so it does not flap.
    """
    if seen is instance.health:
        return {"health_seen": None, "health_streak": 0}
    streak = instance.health_streak + 1 if seen is instance.health_seen else 1
    if streak < SIGHTINGS:
        return {"health_seen": seen, "health_streak": streak}
    return settled(instance, seen, now)


def settled(instance: Instance, health: Health, now: datetime) -> dict[str, Any]:
    """The members of the instance that change where its health is known for sure, such as from a post-condition."""
    since = instance.health_since if health is instance.health else now
    return {"health": health, "health_since": since, "health_seen": None, "health_streak": 0}


def since_when(before: Sequence[Condition], found: Sequence[Condition], now: datetime) -> tuple[Condition, ...]:
    """The conditions that were found, one a type, each with the moment since which it has had its status.

    Where several speak of one type, the first that is not true is the one that counts.
    """
    by_type: dict[str, Condition] = {}
    for condition in sorted(found, key=lambda each: each["status"] == "true"):
        by_type.setdefault(condition["type"], condition)
    known = {condition["type"]: condition for condition in before}
    return tuple(_dated(by_type[name], known.get(name), now) for name in sorted(by_type))


def _dated(condition: Condition, before: Condition | None, now: datetime) -> Condition:
    same = before is not None and before["status"] == condition["status"] and before.get("since")
    since = before["since"] if same and before else stamp(now)
    return {**condition, "since": since}

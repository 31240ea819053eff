"""What sightings make of an instance: health behind a threshold, conditions that keep their beginning, and what is dropped."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sim.system import ORGANIZATION, POOL, RELEASE, TARGET, outline
from spectrum.core.ids import InstanceId, JobId, PlacementId
from spectrum.core.instances import all_services, health_of, settled, since_when, steady
from spectrum.core.jobs.commands import Done, Observe
from spectrum.core.jobs.decide import Decision, decide
from spectrum.core.jobs.model import Aggregate, Instance, Spec, Surroundings
from spectrum.core.jobs.table import Health, Lifecycle
from spectrum.core.observation import Exit, Observed, Presence, SlotHealth
from spectrum.operations import CATALOG
from spectrum.worker.rendering import service_state

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=10)
RUNNING = Lifecycle.RUNNING
WEB = frozenset({"web"})


def service(name: str, health: str = "healthy", state: str = "running") -> dict[str, Any]:
    return {"name": name, "state": state, "health": health, "restarts": 0, "ports": {}}


def running(**changes: Any) -> Instance:
    instance = Instance(
        id=InstanceId("ins_00000000-0000-7000-8000-000000000001"),
        organization_id=ORGANIZATION,
        name="acme",
        target_id=TARGET,
        pool_id=POOL,
        placement_id=PlacementId("plc_00000000-0000-7000-8000-000000000001"),
        requested=Spec("hello", "1", RELEASE, "small"),
        lifecycle=RUNNING,
        health=Health.HEALTHY,
        counter=7,
        services=(service("db"), service("web")),
        observed_at=NOW - timedelta(seconds=10),
    )
    return replace(instance, **changes)


def look(instance: Instance, *seen: dict[str, Any], at: datetime = NOW, **changes: Any) -> Decision:
    command = Observe(
        id="observe",
        instance_id=instance.id,
        organization_id=ORGANIZATION,
        actor="worker:w",
        fence=instance.counter,
        generation=instance.generation,
        asked_at=at,
        services=seen,
    )
    around = Surroundings(at + timedelta(milliseconds=5))
    decided = decide(Aggregate(instance, outlines={RELEASE: outline()}), replace(command, **changes), around, CATALOG)
    assert isinstance(decided, Decision)
    return decided


@pytest.mark.parametrize(
    ("services", "health"),
    [
        ((service("db"), service("web")), Health.HEALTHY),
        ((service("db"), service("web", "unhealthy")), Health.UNHEALTHY),  # the primary endpoint's own
        ((service("db", "unhealthy"), service("web")), Health.DEGRADED),
        ((service("db", "unknown", "missing"), service("web", "unknown", "starting")), Health.UNHEALTHY),
        ((service("once", "unknown", "completed"), service("web")), Health.HEALTHY),
        ((service("once", "unhealthy", "exited"), service("web")), Health.DEGRADED),
        ((), Health.UNKNOWN),
    ],
)
def test_health_is_that_of_the_services_and_first_of_the_primary_endpoints(
    services: tuple[dict[str, Any], ...], health: Health
) -> None:
    assert health_of(RUNNING, services, WEB) is health


def test_what_has_ended_well_is_not_well_where_it_is_to_run() -> None:
    ended = service("web", "unknown", "completed")

    once = look(running(), service("db"), ended).aggregate.instance

    assert look(once, service("db"), ended, at=LATER).aggregate.instance.health is Health.UNHEALTHY


@pytest.mark.parametrize(("ended", "state"), [(True, "completed"), (False, "exited")])
def test_a_service_that_is_started_again_after_it_ended_well_has_not_completed(ended: bool, state: str) -> None:
    seen = Observed("web/container", Presence.PRESENT, health=SlotHealth.UNHEALTHY, exit=Exit(0, NOW), ended=ended)

    assert service_state("web", seen)["state"] == state


def test_of_a_stopped_instance_there_is_no_health_to_tell() -> None:
    assert health_of(Lifecycle.STOPPED, (service("web", "unknown", "stopped"),), WEB) is Health.UNKNOWN


def test_one_sighting_changes_no_health_and_two_equal_ones_do() -> None:
    once = look(running(), service("db"), service("web", "unhealthy")).aggregate.instance
    assert (once.health, once.health_seen, once.health_streak) == (Health.HEALTHY, Health.UNHEALTHY, 1)
    twice = look(once, service("db"), service("web", "unhealthy"), at=LATER)
    after = twice.aggregate.instance
    assert (after.health, after.health_seen, after.health_streak) == (Health.UNHEALTHY, None, 0)
    assert after.health_since == LATER + timedelta(milliseconds=5)
    (fact,) = twice.consequences.facts
    assert (fact.type, fact.data) == ("instance.health_changed", {"health": "unhealthy", "before": "healthy"})


def test_health_that_comes_and_goes_does_not_flap() -> None:
    instance = running()
    for number, health in enumerate(["unhealthy", "healthy", "unhealthy", "healthy", "unhealthy"]):
        at = NOW + timedelta(seconds=10 * number)
        decided = look(instance, service("db"), service("web", health), at=at)
        instance = decided.aggregate.instance
        assert (instance.health, decided.consequences.facts) == (Health.HEALTHY, ())


def test_two_sightings_that_differ_from_each_other_change_nothing() -> None:
    once = {**steady(running(), Health.DEGRADED, NOW)}
    assert steady(running(**once), Health.UNHEALTHY, NOW) == {"health_seen": Health.UNHEALTHY, "health_streak": 1}


def test_what_a_post_condition_proved_counts_at_once_and_keeps_its_beginning() -> None:
    ill = running(health=Health.DEGRADED, health_seen=Health.HEALTHY, health_streak=1)
    assert settled(ill, Health.HEALTHY, NOW) == {
        "health": Health.HEALTHY,
        "health_since": NOW,
        "health_seen": None,
        "health_streak": 0,
    }
    well = running(health_since=NOW)
    assert settled(well, Health.HEALTHY, LATER)["health_since"] == NOW


def test_a_target_that_does_not_answer_twice_makes_the_health_unknown_and_leaves_what_was_seen() -> None:
    before = running()
    once = look(before, answered=False).aggregate.instance
    twice = look(once, answered=False, at=LATER).aggregate.instance
    assert (once.health, twice.health) == (Health.HEALTHY, Health.UNKNOWN)
    assert (twice.services, twice.observed_at) == (before.services, before.observed_at)


def test_a_service_that_is_not_seen_any_more_is_shown_as_missing() -> None:
    seen = all_services(RUNNING, (service("db"), service("web")), (service("web"),))
    assert [(each["name"], each["state"]) for each in seen] == [("db", "missing"), ("web", "running")]
    resting = all_services(Lifecycle.STOPPED, (service("web"),), ())
    assert [(each["name"], each["state"]) for each in resting] == [("web", "stopped")]


def test_a_condition_keeps_its_beginning_until_its_status_changes() -> None:
    off = {"type": "limits_enforced", "status": "false", "reason": "no_cgroup", "message": "none"}
    first = since_when((), (off,), NOW)
    again = since_when(first, ({**off, "message": "still none"},), LATER)
    assert (again[0]["since"], again[0]["message"]) == ("2026-11-23T12:00:00.000Z", "still none")
    on = since_when(again, ({**off, "status": "true"},), LATER)
    assert on[0]["since"] == "2026-11-23T12:00:10.000Z"
    assert since_when(on, (), LATER) == ()


def test_of_two_conditions_of_one_type_the_one_that_is_not_true_counts() -> None:
    both = ({"type": "a", "status": "true"}, {"type": "a", "status": "false"})
    assert [each["status"] for each in since_when((), both, NOW)] == ["false"]


@pytest.mark.parametrize(
    ("instance", "changes"),
    [
        (running(), {"fence": 6}),
        (running(), {"generation": 2}),
        (running(active_job_id=JobId("job_00000000-0000-7000-8000-000000000001")), {}),
        (running(observed_at=NOW), {}),  # a repeat, or one that was overtaken
        (running(lifecycle=Lifecycle.DELETED), {}),
    ],
)
def test_a_sighting_is_dropped_if_anything_has_moved_since_it_began(
    instance: Instance, changes: dict[str, Any]
) -> None:
    decided = look(instance, service("web", "unhealthy"), **changes)
    assert decided.answer == Done(False)
    assert decided.aggregate.instance == instance

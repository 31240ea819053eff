"""What a copy measures: jobs and leases as they are committed, and at the scrape what the database says of the present."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from spectrum.core.errors import ErrorClass
from spectrum.core.jobs.commands import Intent
from spectrum.core.jobs.table import JobState, Phase
from tests.api.support import Api
from tests.api.vendor import Vendor, failing, vendor

pytestmark = pytest.mark.anyio


@pytest.fixture
async def here(api: Api) -> AsyncIterator[Vendor]:
    async with vendor(api) as made:
        yield made


async def scraped(api: Api) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of their labels, these in the order of the labels' names."""
    response = await api.http.get("/metrics")
    assert response.status_code == 200
    families = text_string_to_metric_families(response.text)
    return {
        (s.name, *(value for _, value in sorted(s.labels.items()))): s.value
        for family in families
        for s in family.samples
    }


async def test_a_job_is_counted_once_when_it_ends_and_with_how_long_it_took(here: Vendor) -> None:
    await here.create()
    held = await here.hands.take()
    while not held.gone:
        assert ("spectrum_jobs_total", "create", "succeeded") not in await scraped(here.api)
        held = await here.hands.step(held)
    await here.admin.post("/v1/instances/acme:stop")
    await here.admin.post(f"/v1/jobs/{held.job.id}:cancel")  # is refused: the job has ended

    seen = await scraped(here.api)

    assert seen["spectrum_jobs_total", "create", "succeeded"] == 1
    assert seen["spectrum_job_duration_seconds_count", "create"] == 1
    (row,) = await here.api.as_admin("SELECT finished_at - created_at AS took FROM jobs WHERE finished_at IS NOT NULL")
    assert seen["spectrum_job_duration_seconds_sum", "create"] == pytest.approx(row["took"].total_seconds())
    assert not [name for name in seen if name[:2] == ("spectrum_jobs_total", "stop")]


async def test_a_job_that_ends_without_a_worker_is_counted_too(here: Vendor) -> None:
    made = await here.create()
    await here.admin.post(f"/v1/jobs/{made.body['id']}:cancel")

    assert (await scraped(here.api))["spectrum_jobs_total", "create", "cancelled"] == 1


async def test_attempts_after_the_first_are_counted_by_their_cause(here: Vendor) -> None:
    await here.create()
    held = await here.hands.step(await here.hands.take())
    (under_way,) = [step for step in held.job.steps if step.outstanding]
    here.hands.fails[under_way.name] = failing(ErrorClass.TRANSIENT)
    assert ("spectrum_step_retries_total", "retry", "create") not in await scraped(here.api)

    held = await here.hands.step(held)
    again = await here.hands.report(held, intents=(Intent(under_way.name, Phase.DO),))
    assert not again.refused

    assert (await scraped(here.api))["spectrum_step_retries_total", "retry", "create"] == 1


async def test_steps_in_flight_are_those_with_an_attempt_in_the_hands_of_a_worker(here: Vendor) -> None:
    await here.create()
    held = await here.hands.take()
    assert (await scraped(here.api))["spectrum_steps_in_flight",] == 0
    held = await here.hands.step(held)
    assert (await scraped(here.api))["spectrum_steps_in_flight",] == 1

    await here.hands.finish(held)

    assert (await scraped(here.api))["spectrum_steps_in_flight",] == 0


async def test_a_lease_that_lapsed_is_counted_once(here: Vendor) -> None:
    await here.create()
    await here.hands.take()
    sweeper = here.api.plane.sweeper
    await sweeper.sweep()
    await here.api.as_admin("UPDATE cell SET resumed_at = '-infinity'")
    await here.api.as_admin("UPDATE leases SET renewed_at = '-infinity'")

    await sweeper.sweep()
    await sweeper.sweep()

    assert (await scraped(here.api))["spectrum_leases_expired_total",] == 1


async def test_a_lease_that_was_revoked_has_not_expired(here: Vendor) -> None:
    await here.create()
    await here.hands.take()
    await here.api.as_admin("UPDATE leases SET ended_at = now(), end_reason = 'revoked'")

    await here.api.plane.sweeper.sweep()

    assert (await here.api.as_admin("SELECT state FROM jobs"))[0]["state"] == JobState.READY
    assert (await scraped(here.api))["spectrum_leases_expired_total",] == 0


async def test_the_lag_of_the_sealer_is_the_age_of_the_oldest_record_without_a_seal(here: Vendor) -> None:
    await here.create()
    assert (await scraped(here.api))["spectrum_audit_lag_seconds",] > 0
    await here.api.as_admin("UPDATE audit SET recorded_at = now() - interval '1 hour'")
    assert (await scraped(here.api))["spectrum_audit_lag_seconds",] >= 3600

    await here.api.as_admin(
        "UPDATE audit SET seal_number = 1, seal_previous = '', seal_hash = sha256(''), sealed_at = now()"
    )

    assert (await scraped(here.api))["spectrum_audit_lag_seconds",] == 0


async def test_the_lag_of_the_log_is_the_age_of_what_has_no_position_yet(here: Vendor) -> None:
    await here.create()
    await here.api.as_admin("UPDATE events SET recorded_at = now() - interval '1 hour'")
    assert (await scraped(here.api))["spectrum_outbox_lag_seconds",] >= 3600

    await here.api.as_admin(
        "UPDATE events e SET position = n.p FROM (SELECT id, row_number() OVER (ORDER BY id) AS p FROM events) n WHERE n.id = e.id"
    )

    assert (await scraped(here.api))["spectrum_outbox_lag_seconds",] == 0


async def test_quarantined_instances_are_stuck(here: Vendor) -> None:
    await here.running()
    assert (await scraped(here.api))["spectrum_jobs_stuck",] == 0

    await here.api.as_admin("UPDATE instances SET hold = 'quarantined'")

    assert (await scraped(here.api))["spectrum_jobs_stuck",] == 1


async def test_without_its_database_a_copy_tells_what_it_counted_itself(here: Vendor) -> None:
    await here.running()
    async with here.api.holding("LOCK TABLE instances IN ACCESS EXCLUSIVE MODE"):
        seen = await scraped(here.api)

    assert seen["spectrum_jobs_total", "create", "succeeded"] == 1
    assert seen["spectrum_jobs_stuck",] != seen["spectrum_jobs_stuck",], "not a number: nobody knows"


async def test_open_jobs_are_told_by_state_and_the_oldest_that_nobody_claims_by_its_age(here: Vendor) -> None:
    before = await scraped(here.api)
    await here.create()
    await here.api.as_admin("UPDATE jobs SET waiting_since = waiting_since - interval '5 minutes'")
    unclaimed = await scraped(here.api)
    await here.hands.take()
    held = await scraped(here.api)

    assert (before["spectrum_jobs_open", "ready"], before["spectrum_jobs_unclaimed_seconds",]) == (0, 0)
    assert (unclaimed["spectrum_jobs_open", "ready"], unclaimed["spectrum_jobs_open", "running"]) == (1, 0)
    assert unclaimed["spectrum_jobs_unclaimed_seconds",] >= 300
    assert (held["spectrum_jobs_open", "running"], held["spectrum_jobs_unclaimed_seconds",]) == (1, 0)


async def test_workers_with_a_lease_and_targets_that_are_not_asked_are_counted(here: Vendor) -> None:
    await here.create()
    await here.hands.take()
    await here.api.as_admin(
        "INSERT INTO breakers (target_id, call_kind, organization_id, state, opened_at, retry_at) "
        "SELECT id, 'provider', organization_id, 'open', now(), now() FROM targets"
    )
    seen = await scraped(here.api)
    assert (seen["spectrum_workers_live",], seen["spectrum_breakers_open",]) == (1, 1)


async def test_what_waits_inside_a_copy_is_told_with_its_connections(here: Vendor) -> None:
    seen = await scraped(here.api)
    assert (seen["spectrum_queue_length", "commands"], seen["spectrum_queue_length", "callers"]) == (0, 0)
    for role in ("api", "engine", "system"):
        assert seen["spectrum_database_connections", role, "used"] >= 0
        assert seen["spectrum_database_connections", role, "most"] > 0

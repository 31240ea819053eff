"""The engine on a real PostgreSQL: what was asked is there, what was refused is not, and nothing is there twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from spectrum.control import engine
from spectrum.control.engine import Engine
from spectrum.core.breakers import THRESHOLD
from spectrum.core.concealing import conceal_lines
from spectrum.core.errors import Problem
from spectrum.core.ids import OrganizationId
from spectrum.core.jobs import told
from spectrum.core.jobs.commands import (
    Answer,
    Claim,
    Holding,
    Intent,
    Outcome,
    Rejection,
    Repeated,
    Result,
    Submit,
    Submitted,
)
from spectrum.core.jobs.model import Lease, Owner
from spectrum.core.jobs.store import Asked, Batch, ClaimOf, Keyed, Lapsed, Response
from spectrum.core.jobs.table import JobState, Phase, StepState, WaitsFor
from spectrum.db.store import PostgresStore
from spectrum.operations import CATALOG
from spectrum.ports import SystemClock, Tasks
from tests.db.ground import Ground, ground, handback, report, run_to_the_end
from tests.db.rows import insert_row, make_id, rows_of
from tests.postgres import Database
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Ground]:
    async with ground(database) as made:
        yield made


def respond(answer: Answer) -> Repeated:
    job_id = answer.job.id if answer.job else ""
    return Repeated(202, f"/v1/jobs/{job_id}", {"id": job_id})


def keyed(here: Ground, key: str, digest: str = "d") -> Keyed:
    return Keyed(here.organization, "POST", "/v1/instances", key, digest, respond)


async def claim_one(here: Ground, lease: Lease, number: int = 1) -> Holding:
    claimed = await here.dispatch.claim(here.caller, lease.id, lease.incarnation, number, 1, holds_others=False)
    assert len(claimed) == 1
    return claimed[0]


async def test_an_instance_never_comes_onto_a_target_that_was_removed_after_its_choice(here: Ground) -> None:
    asked = here.create()
    remover = await asyncpg.connect(here.database.admin_url)
    async with remover.transaction():
        await remover.execute("SELECT FROM targets WHERE id = $1 FOR UPDATE", here.target)
        await remover.execute("UPDATE targets SET removed_at = clock_timestamp() WHERE id = $1", here.target)
        creating = asyncio.ensure_future(here.engine.execute(asked))
        await until(lambda: here.admin.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
    await remover.close()
    with pytest.raises(Problem) as refused:
        await creating
    assert refused.value.slug == "not-allowed-now"
    assert await here.admin.fetchval("SELECT count(*) FROM instances") == 0


async def test_a_create_runs_to_its_end_and_every_row_of_it_is_there(here: Ground) -> None:
    asked = here.create()
    submitted = await here.engine.execute(asked)
    assert isinstance(submitted, Submitted)
    assert submitted.job.state is JobState.READY

    lease = await here.dispatch.start(here.caller, "boot-1")
    held = await claim_one(here, lease)
    ended = await run_to_the_end(here, held, lease)

    assert ended.job.state is JobState.SUCCEEDED
    row = await here.admin.fetchrow("SELECT * FROM instances WHERE id = $1", asked.instance_id)
    assert (row["lifecycle"], row["accepted_generation"], row["active_job_id"]) == ("running", 1, None)
    steps = await here.admin.fetch("SELECT state FROM steps WHERE job_id = $1", asked.job_id)
    assert {step["state"] for step in steps} == {"done"}
    effects = await here.admin.fetch(
        "SELECT slot, wanted, proven FROM effects WHERE instance_id = $1", asked.instance_id
    )
    assert {(e["slot"], e["wanted"], e["proven"]) for e in effects} == {
        (slot, "present", True) for slot in ("instance/base", "data/volume", "db/container", "web/container")
    }
    attempts = await here.admin.fetch("SELECT outcome FROM attempts WHERE job_id = $1", asked.job_id)
    assert len(attempts) == len(steps)
    assert {attempt["outcome"] for attempt in attempts} == {"done"}
    sequences = await here.admin.fetch("SELECT sequence FROM events WHERE subject = $1 ORDER BY 1", asked.instance_id)
    assert [s["sequence"] for s in sequences] == list(range(1, len(sequences) + 1))
    actions = {r["action"] for r in await here.admin.fetch("SELECT action FROM audit WHERE subject = $1", asked.job_id)}
    assert {"job.submitted", "job.claimed", "job.succeeded"} <= actions


async def test_what_is_stored_is_loaded_as_it_was(here: Ground) -> None:
    await here.engine.execute(here.create())
    lease = await here.dispatch.start(here.caller, "boot-1")
    held = await claim_one(here, lease)
    first = report(here, held, lease, 1, intents=(Intent("stock", Phase.DO),))

    answer = await here.dispatch.report(first)
    again = await here.dispatch.report(first)

    assert again.job == answer.job
    assert again.instance == answer.instance
    assert again.job.step("stock").state is StepState.RUNNING  # type: ignore[union-attr]


async def test_one_key_makes_one_job_however_often_and_at_once_it_is_sent(here: Ground) -> None:
    requests = [Asked(here.create(), keyed(here, "k1"), name="acme") for _ in range(20)]

    answers = await asyncio.gather(*(here.engine.execute(asked) for asked in requests))

    named = {answer.body["id"] if isinstance(answer, Repeated) else respond(answer).body["id"] for answer in answers}
    assert len(named) == 1
    assert await here.admin.fetchval("SELECT count(*) FROM jobs") == 1


async def test_what_a_hook_printed_can_be_stored_however_long_its_lines_are(here: Ground) -> None:
    await here.engine.execute(here.create())
    lease = await here.dispatch.start(here.caller, "boot-1")
    held = await claim_one(here, lease)
    held = await here.dispatch.report(report(here, held, lease, 1, intents=(Intent("stock", Phase.DO),)))
    (running,) = [step for step in held.job.steps if step.outstanding]
    printed = {"exit_code": 0, "tail": conceal_lines(["\U0001f600" * 16_384] * 5, ())}

    outcome = Outcome(running.name, Phase.DO, running.token, Result.DONE, output=printed)
    held = await here.dispatch.report(report(here, held, lease, 2, outcomes=(outcome,)))

    assert next(step.output for step in held.job.steps if step.id == running.id) == printed


@pytest.mark.parametrize(
    "output",
    [
        pytest.param({"said": "x" * 40_000}, id="a long text"),
        pytest.param({"said": [0] * 5_400}, id="short in JSON, long in PostgreSQL"),
        pytest.param({"said": [[]] * 10_900}, id="empty lists"),
        pytest.param({"said": [1e300] * 4_000, "also": [-1.5e-300] * 4_000}, id="numbers that PostgreSQL writes out"),
        pytest.param({"said": ["\U0001f600" * 100] * 40, "also": 10**4000}, id="letters of four bytes"),
        pytest.param({str(number): {} for number in range(4_000)}, id="many members"),
        pytest.param({"said": float("nan")}, id="no number"),
        pytest.param({"health": "splendid", "services": 7, "facts": [], "conditions": [{}]}, id="other shapes"),
    ],
)
async def test_whatever_an_outcome_says_its_job_goes_on(here: Ground, output: dict[str, Any]) -> None:
    await here.engine.execute(here.create())
    lease = await here.dispatch.start(here.caller, "boot-1")
    held = await claim_one(here, lease)
    held = await here.dispatch.report(report(here, held, lease, 1, intents=(Intent("stock", Phase.DO),)))
    (running,) = [step for step in held.job.steps if step.outstanding]
    outcome = Outcome(running.name, Phase.DO, running.token, Result.DONE, output=output)

    held = await here.dispatch.report(report(here, held, lease, 2, outcomes=(outcome,)))

    stored = await here.admin.fetchrow(
        "SELECT state, pg_column_size(output) AS size FROM steps WHERE id = $1", running.id
    )
    assert stored["state"] == "done"
    assert stored["size"] <= told.LIMIT


async def test_a_stale_report_is_refused_and_kept_as_evidence(here: Ground) -> None:
    await here.engine.execute(here.create())
    lease = await here.dispatch.start(here.caller, "boot-1")
    zombie = await claim_one(here, lease)
    next_lease = await here.dispatch.start(here.caller, "boot-2")
    await here.sweeper.sweep()
    held = await claim_one(here, next_lease)

    with pytest.raises(Problem, match="stale-fence"):
        await here.dispatch.report(report(here, zombie, lease, 1, intents=(Intent("stock", Phase.DO),)))

    assert held.job.fence > zombie.job.fence
    evidence = await here.admin.fetchval("SELECT count(*) FROM audit WHERE action = 'call.refused'")
    assert evidence == 1


async def test_a_repeated_claim_gets_the_same_answer(here: Ground) -> None:
    await here.engine.execute(here.create())
    lease = await here.dispatch.start(here.caller, "boot-1")

    first = await claim_one(here, lease, number=1)
    again = await claim_one(here, lease, number=1)

    assert (again.job.id, again.job.fence) == (first.job.id, first.job.fence)


async def test_what_a_heartbeat_does_not_list_is_taken_back(here: Ground) -> None:
    await here.engine.execute(here.create())
    lease = await here.dispatch.start(here.caller, "boot-1")
    held = await claim_one(here, lease)
    pair = (held.job.id, held.job.fence)

    kept = await here.dispatch.beat(here.caller, lease.id, lease.incarnation, 1, 1, [pair])
    await here.dispatch.beat(here.caller, lease.id, lease.incarnation, 2, 1, [])
    lost = await here.dispatch.beat(here.caller, lease.id, lease.incarnation, 3, 1, [pair])

    assert kept.lost == ()
    assert lost.lost == (pair,)
    assert await here.admin.fetchval("SELECT state FROM jobs") == "ready"


async def test_a_released_job_waits_and_says_so(here: Ground) -> None:
    await here.engine.execute(here.create())
    lease = await here.dispatch.start(here.caller, "boot-1")
    held = await claim_one(here, lease)
    later = held.at.replace(year=held.at.year + 1)

    await here.dispatch.release(handback(here, held, lease, until=later))

    assert await here.dispatch.claim(here.caller, lease.id, lease.incarnation, 2, 1, holds_others=False) == []
    row = await here.admin.fetchrow("SELECT state, lease_id, waiting_for, fence FROM jobs")
    assert (row["state"], row["lease_id"], row["waiting_for"]) == ("ready", None, "worker")
    assert row["fence"] > held.job.fence


async def test_many_commands_at_once_share_transactions_and_each_is_applied_once(here: Ground) -> None:
    requests = [Asked(here.create(f"i{n}"), keyed(here, f"k{n}"), name=f"i{n}") for n in range(100)]

    await asyncio.gather(*(here.engine.execute(asked) for asked in requests))

    assert await here.admin.fetchval("SELECT count(*) FROM instances") == 100
    transactions = await here.admin.fetchval("SELECT count(DISTINCT xid) FROM events")
    assert transactions < 100


async def test_while_a_crowd_is_written_the_next_is_decided_and_each_instance_keeps_its_order(
    here: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_flight: list[set[str]] = []
    two = asyncio.Event()

    async def transact(batch: Batch) -> Sequence[Response]:
        flight: set[str] = {asked.command.instance_id for asked in batch.asked}
        assert not any(flight & other for other in in_flight)
        in_flight.append(flight)
        if len(in_flight) == 2:
            two.set()
        await two.wait()  # the first flush is not over before there is a second
        try:
            return await PostgresStore.transact(here.store, batch)
        finally:
            in_flight.remove(flight)

    monkeypatch.setattr(here.store, "transact", transact)
    creates = [here.create(f"i{n}") for n in range(100)]
    deletes = [here.submit(create.instance_id, "delete") for create in creates]

    answers = await asyncio.wait_for(here.engine.execute_all([*creates, *deletes]), 60)

    assert [answer.job.operation for answer in answers if isinstance(answer, Submitted)] == (
        ["create"] * 100 + ["delete"] * 100
    )


async def test_a_target_that_does_not_answer_is_left_alone_until_a_probe_and_its_time_does_not_count(
    here: Ground,
) -> None:
    lease = await here.dispatch.start(here.caller, "boot-1")
    for number in range(1, THRESHOLD + 1):
        await here.engine.execute(here.create(f"i{number}"))
        held = await claim_one(here, lease, number)
        await here.dispatch.release(handback(here, held, lease, until=held.at, why=WaitsFor.BREAKER))

    assert await here.admin.fetchval("SELECT state FROM breakers") == "open"
    assert await here.dispatch.claim(here.caller, lease.id, lease.incarnation, 50, 9, holds_others=False) == []

    await here.admin.execute(
        "UPDATE breakers SET retry_at = now() - interval '1 second', opened_at = now() - interval '1 hour'"
    )
    probe = await here.dispatch.claim(here.caller, lease.id, lease.incarnation, 51, 9, holds_others=False)
    assert len(probe) == 1
    await run_to_the_end(here, probe[0], lease)

    assert await here.admin.fetchval("SELECT state FROM breakers") == "closed"
    assert await here.admin.fetchval("SELECT down_total >= interval '1 hour' FROM targets")


async def test_of_two_copies_that_take_the_probe_at_once_one_has_it(here: Ground) -> None:
    lease = await here.dispatch.start(here.caller, "boot-1")
    for name in ("one", "two"):
        await here.engine.execute(here.create(name))
    jobs = await here.dispatch.claim(here.caller, lease.id, lease.incarnation, 1, 2, holds_others=False)
    await here.admin.execute(
        "INSERT INTO breakers (target_id, call_kind, organization_id, state, opened_at, retry_at)"
        " SELECT id, 'provider', organization_id, 'open', now(), now() FROM targets"
    )
    copies = [Engine(here.store, CATALOG, SystemClock(), tasks := Tasks()), here.engine]
    reports = [report(here, held, lease, 1, intents=(Intent("stock", Phase.DO),)) for held in jobs]
    async with here.admin.transaction():
        await here.admin.execute("SELECT FROM breakers FOR UPDATE")
        asked = [asyncio.ensure_future(copy.execute(each)) for copy, each in zip(copies, reports, strict=True)]
        await until(lambda: here.admin.fetchval("SELECT count(*) = 2 FROM pg_locks WHERE NOT granted"))
    answers = await asyncio.gather(*asked)
    await tasks.close()

    refused = [answer.refused for answer in answers if isinstance(answer, Holding)]
    assert sorted(refused, key=len) == [{}, {"stock": "breaker: the target does not answer"}]
    assert await here.admin.fetchval("SELECT count(*) FROM attempts") == 1


async def test_the_brake_of_one_organization_does_not_stop_another_in_the_same_transaction(here: Ground) -> None:
    rows = rows_of("other-corp")
    rows["targets"]["pool_id"] = here.caller.pool_id
    rows["releases"]["outline"] = await here.admin.fetchval("SELECT outline FROM releases")
    for table in ("organizations", "products", "releases", "targets"):
        await insert_row(here.admin, table, rows[table])
    other = OrganizationId(rows.organization_id)
    theirs = replace(here, organization=other, target=rows["targets"]["id"], release=rows["releases"]["id"])
    ours, neighbour = here.create(), theirs.create()
    for submit in (ours, neighbour):
        await here.engine.execute(submit)
    lease = await here.dispatch.start(here.caller, "boot-1")
    pulled = {"pulled_at": await here.admin.fetchval("SELECT clock_timestamp()"), "actor": "tester"}
    brake = {"id": make_id("brk"), "organization_id": here.organization, "reach": "organization", "reason": "test"}
    await insert_row(here.admin, "brakes", {**brake, **pulled})

    owner = Owner(lease.id, here.caller.worker_id, lease.incarnation, 1)
    claims = [
        Claim(
            id=each.job_id,
            instance_id=each.instance_id,
            organization_id=each.organization_id,
            actor="tester",
            job_id=each.job_id,
            owner=owner,
        )
        for each in (ours, neighbour)
    ]
    of = ClaimOf(lease.id, here.caller.organization_id, lease.incarnation, 1, 2)
    refused, granted = await here.engine.claim(claims, of)

    assert isinstance(refused, Rejection)
    assert "brake" in refused.problem.detail
    assert isinstance(granted, Holding)


async def behind_its_back(admin: Any, statement: str, *arguments: Any) -> None:
    """Change an aggregate as no command can. A copy goes by the version of what it keeps: that says so."""
    await admin.execute(statement, *arguments)
    await admin.execute("UPDATE instances SET version = version + 1")


async def test_poison_is_granted_alone(here: Ground) -> None:
    first, second = here.create("one"), here.create("two")
    for submit in (first, second):
        await here.engine.execute(submit)
    await behind_its_back(here.admin, "UPDATE jobs SET alone = true WHERE id = $1", first.job_id)
    lease = await here.dispatch.start(here.caller, "boot-1")

    granted = await here.dispatch.claim(here.caller, lease.id, lease.incarnation, 1, 2, holds_others=False)

    assert [held.job.id for held in granted] == [first.job_id]


async def test_poison_is_not_granted_beside_another_job_whatever_the_worker_says_it_holds(here: Ground) -> None:
    other, poison = here.create("other"), here.create("poison")
    await here.engine.execute(other)
    lease = await here.dispatch.start(here.caller, "boot-1")
    await claim_one(here, lease)
    await here.engine.execute(poison)
    await behind_its_back(here.admin, "UPDATE jobs SET alone = true WHERE id = $1", poison.job_id)

    granted = await here.dispatch.claim(here.caller, lease.id, lease.incarnation, 2, 1, holds_others=False)

    assert granted == []


async def test_poison_that_was_granted_is_granted_again_to_a_repeated_claim(here: Ground) -> None:
    poison = here.create("poison")
    await here.engine.execute(poison)
    await behind_its_back(here.admin, "UPDATE jobs SET alone = true WHERE id = $1", poison.job_id)
    lease = await here.dispatch.start(here.caller, "boot-1")

    first, again = [await claim_one(here, lease) for _ in range(2)]

    assert again.job.fence == first.job.fence


@dataclass
class _AwayAfterTheTick(PostgresStore):
    """Its PostgreSQL stops for an hour each time right after it has moved the liveness row; in that hour jobs are due."""

    admin: Any

    async def tick(self) -> datetime:
        moment = await super().tick()
        for table, column in (("cell", "alive_at"), ("cell", "resumed_at"), ("leases", "renewed_at")):
            await self.admin.execute(f"UPDATE {table} SET {column} = {column} - interval '1 hour'")
        await behind_its_back(self.admin, "UPDATE jobs SET deadline = clock_timestamp() - interval '30 minutes'")
        return moment


async def test_a_sweep_in_which_postgresql_was_away_takes_no_job_from_its_worker_and_fails_none(here: Ground) -> None:
    for name in ("held", "queued"):
        await here.engine.execute(here.create(name))
    lease = await here.dispatch.start(here.caller, "boot-1")
    await claim_one(here, lease)
    away = _AwayAfterTheTick(here.store.engine, here.store.system, here.store.clock, here.admin)

    await replace(here.sweeper, store=away).sweep()
    await here.sweeper.sweep()

    jobs = await here.admin.fetch("SELECT state, rescues FROM jobs ORDER BY id")
    assert [tuple(job) for job in jobs] == [("running", 0), ("ready", 0)]
    assert await here.admin.fetchval("SELECT ended_at FROM leases") is None


async def told_of_worker(here: Ground) -> list[tuple[str, int]]:
    rows = await here.admin.fetch(
        "SELECT type, sequence FROM events WHERE subject = $1 ORDER BY sequence", here.caller.worker_id
    )
    return [(row["type"], row["sequence"]) for row in rows]


async def test_a_worker_of_which_nothing_is_heard_is_told_to_be_lost_once_for_each_lease(here: Ground) -> None:
    for boot in ("boot-1", "boot-2"):
        await here.dispatch.start(here.caller, boot)
        await here.admin.execute("UPDATE cell SET resumed_at = '-infinity', alive_at = clock_timestamp()")
        await here.admin.execute("UPDATE leases SET renewed_at = '-infinity' WHERE ended_at IS NULL")
        await here.sweeper.sweep()
        await here.sweeper.sweep()

    assert await told_of_worker(here) == [("io.spectrum.worker.lost.v1", 1), ("io.spectrum.worker.lost.v1", 2)]
    (first, *_) = await here.admin.fetch(
        "SELECT e.recorded_at = l.ended_at AS same FROM events e JOIN leases l ON incarnation = sequence"
    )
    assert first["same"]


async def test_a_worker_that_was_revoked_or_began_anew_is_not_told_to_be_lost(here: Ground) -> None:
    older = await here.dispatch.start(here.caller, "boot-1")
    newer = await here.dispatch.start(here.caller, "boot-2")
    await here.admin.execute("UPDATE workers SET revoked_at = clock_timestamp()")
    for lease in (older, newer):
        await here.store.end_lease(Lapsed(lease.id, lease.worker_id, lease.organization_id), "lapsed", None)

    assert await told_of_worker(here) == []


async def overdue(here: Ground) -> tuple[Submit, Submit, Submit]:
    """Two jobs of a worker that is gone, and one that waits; the deadlines of the first and of the last are over."""
    first, second, waiting = (here.create(name) for name in ("first", "second", "waiting"))
    lease = await here.dispatch.start(here.caller, "boot-1")
    for number, submit in enumerate((first, second), 1):
        await here.engine.execute(submit)
        await claim_one(here, lease, number)
    await here.engine.execute(waiting)
    await behind_its_back(here.admin, "UPDATE jobs SET deadline = clock_timestamp() WHERE id <> $1", second.job_id)
    # No gap is seen, however slow the machine is: one would put off lapse and deadline.
    await here.admin.execute("UPDATE cell SET resumed_at = '-infinity', alive_at = clock_timestamp()")
    await here.admin.execute("UPDATE leases SET renewed_at = '-infinity'")
    return first, second, waiting


async def states(here: Ground) -> dict[str, str]:
    return {r["id"]: r["state"] for r in await here.admin.fetch("SELECT id, state FROM jobs")}


async def test_an_instance_whose_row_is_damaged_keeps_no_other_from_its_rescue_and_its_deadline(here: Ground) -> None:
    damaged, sound, waiting = await overdue(here)
    await behind_its_back(here.admin, "UPDATE instances SET requested = '{}' WHERE id = $1", damaged.instance_id)

    await here.sweeper.sweep()

    assert await states(here) == {damaged.job_id: "running", sound.job_id: "ready", waiting.job_id: "failed"}


async def test_an_instance_that_another_holds_for_long_keeps_no_other_from_its_rescue_and_its_deadline(
    here: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "HELD_SECONDS", 0.0)
    held, free, waiting = await overdue(here)

    async with here.admin.transaction():
        await here.admin.execute("SELECT FROM instances WHERE id = $1 FOR UPDATE", held.instance_id)
        await here.sweeper.sweep()

    assert await states(here) == {held.job_id: "running", free.job_id: "ready", waiting.job_id: "failed"}


async def test_a_command_whose_instance_is_held_elsewhere_keeps_those_that_it_came_with_back_for_a_moment_only(
    here: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "HELD_SECONDS", 3600.0)
    held, free = here.create("held"), here.create("free")
    await here.engine.execute_all([held, free])
    stops = [here.submit(create.instance_id, "delete") for create in (held, free)]

    async with here.admin.transaction():
        await here.admin.execute("SELECT FROM instances WHERE id = $1 FOR UPDATE", held.instance_id)
        refused, answered = await here.engine.execute_all(stops)
        assert isinstance(refused, engine.Held)
        assert isinstance(answered, Submitted)

    assert isinstance(await here.engine.execute(stops[0]), Submitted)


async def test_a_sweep_that_takes_long_goes_on_saying_that_time_counts(
    here: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "HELD_SECONDS", 0.0)
    held, _, _ = await overdue(here)
    here.sweeper.period = 0.001
    await behind_its_back(here.admin, "UPDATE jobs SET deadline = clock_timestamp()")
    ticks: list[datetime] = []

    async def tick() -> datetime:
        ticks.append(await PostgresStore.tick(here.store))
        return ticks[-1]

    monkeypatch.setattr(here.store, "tick", tick)
    async with here.admin.transaction():
        await here.admin.execute("SELECT FROM instances WHERE id = $1 FOR UPDATE", held.instance_id)
        await here.sweeper.sweep()

    assert len(ticks) > 1


async def test_what_is_committed_is_applied_once_although_who_is_told_of_it_fails(here: Ground) -> None:
    def fail(*_told: object) -> None:
        raise RuntimeError("nobody listens")

    here.engine.committed = fail
    submits = [here.create(name) for name in ("one", "two")]

    answers = await asyncio.gather(*(here.engine.execute(submit) for submit in submits))

    made = [answer.job.id for answer in answers if isinstance(answer, Submitted) and answer.job is not None]
    assert made == [submit.job_id for submit in submits]


async def test_an_instance_whose_row_is_damaged_keeps_no_other_from_being_claimed(here: Ground) -> None:
    damaged, sound = here.create("damaged"), here.create("sound")
    for submit in (damaged, sound):
        await here.engine.execute(submit)
    await behind_its_back(here.admin, "UPDATE instances SET requested = '{}' WHERE id = $1", damaged.instance_id)
    lease = await here.dispatch.start(here.caller, "boot-1")

    held = await claim_one(here, lease)

    assert held.job.id == sound.job_id

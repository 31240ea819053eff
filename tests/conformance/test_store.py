"""The engine's store port, as a suite that every store passes (`core.jobs.store.Store`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from spectrum.control.fold import Folding
from spectrum.core.ids import InstanceId, JobId, LeaseId, PlacementId
from spectrum.core.jobs.commands import (
    Cancel,
    Claim,
    Done,
    Holding,
    Intent,
    Lose,
    Rejection,
    Repeated,
    Report,
    Submit,
    Submitted,
    Tick,
)
from spectrum.core.jobs.model import Aggregate, Instance, Job, Lease, Owner, Spec, Waiting
from spectrum.core.jobs.store import (
    DEFERRED,
    TOLERANCE_SECONDS,
    Asked,
    Batch,
    Candidate,
    ClaimOf,
    Ended,
    Folded,
    Keyed,
    Lapsed,
    Loaded,
    Response,
    Settlement,
    Uncertain,
    Written,
)
from spectrum.core.jobs.table import Hold, JobState, Lifecycle, Phase, WaitsFor
from spectrum.operations import CATALOG
from tests.conformance.stores import Loss, StoreHarness, Tenant, postgres_harness
from tests.db.rows import NOW, make_id
from tests.postgres import Database

pytestmark = pytest.mark.anyio

OPERATIONS = {name: frozenset({version}) for name, version in CATALOG}
LEASE_SECONDS = 15.0
HOUR = 3600.0


@pytest.fixture
async def harness(database: Database) -> AsyncIterator[StoreHarness]:
    async with postgres_harness(database) as made:
        yield made


@dataclass
class Hand:
    """What the engine and the dispatch do with a store, in a word each."""

    harness: StoreHarness
    claims: dict[LeaseId, int] = field(default_factory=dict)

    @property
    def store(self) -> Any:
        return self.harness.store

    # ---- commands

    def create(self, name: str = "acme", tenant: Tenant | None = None) -> Submit:
        tenant = tenant or self.harness.tenant
        instance_id = InstanceId(make_id("ins"))
        spec = Spec("hello", "1", tenant.release, "small")
        new = Instance(
            id=instance_id,
            organization_id=tenant.organization,
            name=name,
            target_id=tenant.target,
            pool_id=self.harness.pool,
            placement_id=PlacementId(make_id("plc")),
            requested=spec,
        )
        job_id = JobId(make_id("job"))
        who: dict[str, Any] = {"instance_id": instance_id, "organization_id": tenant.organization, "actor": "tester"}
        return Submit(id=job_id, **who, job_id=job_id, operation="create", operation_version=1, spec=spec, new=new)

    def submit(self, job: Job, operation: str) -> Submit:
        job_id = JobId(make_id("job"))
        return Submit(**_to(job, job_id), job_id=job_id, operation=operation, operation_version=1)

    def keyed(self, key: str, digest: str = "d") -> Keyed:
        return Keyed(self.harness.tenant.organization, "POST", "/v1/instances", key, digest, _respond)

    async def transact(self, *asked: Any, claim: ClaimOf | None = None) -> list[Response]:
        batch = tuple(each if isinstance(each, Asked) else Asked(each) for each in asked)
        return list(await self.store.transact(Batch(batch, Folding(batch, CATALOG, claim), claim)))

    async def created(self, name: str = "acme", tenant: Tenant | None = None) -> Job:
        [answer] = await self.transact(self.create(name, tenant))
        assert isinstance(answer, Submitted)
        return answer.job

    async def start(self, boot: str = "boot-1") -> Lease:
        lease: Lease = (await self.open(boot))[0]
        return lease

    async def open(self, boot: str) -> Any:
        harness = self.harness
        lease_id = LeaseId(make_id("lea"))
        lease = Lease(lease_id, harness.worker, harness.tenant.organization, harness.pool, 0, NOW, NOW)
        return await self.store.open_lease(lease, boot)

    async def claim(self, lease: Lease, *jobs: Job, want: int = 8, number: int | None = None) -> list[Response]:
        if number is None:
            number = self.claims[lease.id] = self.claims.get(lease.id, 0) + 1
        owner = Owner(lease.id, lease.worker_id, lease.incarnation, number)
        claims = [Claim(**_to(job, f"{lease.id}/{number}"), job_id=job.id, owner=owner) for job in jobs]
        of = ClaimOf(lease.id, lease.organization_id, lease.incarnation, number, want)
        return await self.transact(*claims, claim=of)

    async def held(self, lease: Lease, job: Job) -> Holding:
        [holding] = await self.claim(lease, job)
        assert isinstance(holding, Holding)
        return holding

    async def announce(self, lease: Lease, held: Holding) -> Holding:
        """The intent of the first step."""
        what: dict[str, Any] = {
            "job_id": held.job.id,
            "lease_id": lease.id,
            "pool_id": lease.pool_id,
            "fence": held.job.fence,
            "number": 1,
        }
        [answer] = await self.transact(Report(**_to(held.job, "r1"), **what, intents=(Intent("stock", Phase.DO),)))
        assert isinstance(answer, Holding)
        return answer

    # ---- looking and arranging

    async def look(self, job: Job) -> Aggregate | None:
        """The aggregate as another copy finds it stored, the job with it even where it has ended."""
        seen: list[Aggregate | None] = []

        def fold(loaded: Loaded) -> Folded:
            seen.append(loaded.aggregates.get(job.instance_id))
            return Folded((DEFERRED,))

        await self.harness.copy.transact(Batch((Asked(Cancel(**_to(job, "look"), job_id=job.id)),), fold))
        return seen[-1]

    async def look_at(self, job: Job) -> Job:
        aggregate = await self.look(job)
        assert aggregate is not None
        return aggregate.jobs[job.id]

    async def arrange(self, job: Job, change: Callable[[Aggregate], Aggregate]) -> None:
        """Write an aggregate that no command would make of it so soon."""

        def fold(loaded: Loaded) -> Folded:
            before = loaded.aggregates[job.instance_id]
            after = change(before)
            after = replace(after, instance=replace(after.instance, version=before.instance.version + 1))
            return Folded((DEFERRED,), {job.instance_id: Written(before, after, ())})

        await self.store.transact(Batch((Asked(Cancel(**_to(job, "arrange"), job_id=job.id)),), fold))

    async def arrange_job(self, job: Job, **changes: Any) -> None:
        await self.arrange(job, lambda a: replace(a, jobs={**a.jobs, job.id: replace(a.jobs[job.id], **changes)}))

    async def arrange_instance(self, job: Job, **changes: Any) -> None:
        await self.arrange(job, lambda a: replace(a, instance=replace(a.instance, **changes)))

    async def claimable(self, limit: int = 100, alone: bool = True) -> list[JobId | None]:
        found = await self.store.claimable(self.harness.pool, OPERATIONS, limit, alone)
        return [candidate.job_id for candidate in found]

    async def due(self) -> list[InstanceId]:
        return [candidate.instance_id for candidate in await self.store.due(100)]

    def lapsed(self, lease: Lease) -> Lapsed:
        return Lapsed(lease.id, lease.worker_id, lease.organization_id)


def _to(job: Job, command_id: str) -> dict[str, Any]:
    where = {"instance_id": job.instance_id, "organization_id": job.organization_id}
    return {"id": command_id, "actor": "tester", **where}


def _respond(answer: Any) -> Repeated:
    return Repeated(202, f"/v1/jobs/{answer.job.id}", {"id": answer.job.id})


@pytest.fixture
async def hand(harness: StoreHarness) -> Hand:
    return Hand(harness)


# ---- transact


async def test_what_was_written_is_loaded_again_as_it_was(hand: Hand) -> None:
    [answer] = await hand.transact(hand.create())
    assert isinstance(answer, Submitted)

    aggregate = await hand.look(answer.job)

    assert aggregate is not None
    assert aggregate.jobs == {answer.job.id: answer.job}
    times = {"created_at": None, "updated_at": None}
    assert replace(aggregate.instance, **times) == replace(answer.instance, **times)  # type: ignore[arg-type]
    assert aggregate.outlines[answer.instance.requested.release_id].product == "hello"


async def test_effects_steps_and_their_counters_are_loaded_again_as_they_were(hand: Hand) -> None:
    job = await hand.created()
    lease = await hand.start()
    answer = await hand.announce(lease, await hand.held(lease, job))

    aggregate = await hand.look(job)

    assert aggregate is not None
    assert aggregate.jobs[job.id] == answer.job
    assert aggregate.instance.counter == answer.instance.counter


async def test_what_does_not_exist_is_neither_loaded_nor_busy(hand: Hand) -> None:
    unwritten = hand.create()

    [refused] = await hand.transact(Cancel(**_to_new(unwritten), job_id=unwritten.job_id))

    assert isinstance(refused, Rejection)
    assert refused.problem.slug == "not-found"


def _to_new(submit: Submit) -> dict[str, Any]:
    where = {"instance_id": submit.instance_id, "organization_id": submit.organization_id}
    return {"id": "c1", "actor": "tester", **where}


async def test_a_copy_that_keeps_an_aggregate_sees_what_another_made_of_it(hand: Hand) -> None:
    job = await hand.created()
    ours = Batch((Asked(cancel := Cancel(**_to(job, "c1"), job_id=job.id)),), Folding((Asked(cancel),), CATALOG))
    assert await hand.look(job) is not None  # the copy keeps it from here on
    lease = await hand.start()
    await hand.announce(lease, await hand.held(lease, job))

    [answer] = await hand.harness.copy.transact(ours)

    assert isinstance(answer, Done)
    assert answer.job is not None
    assert (answer.job.state, answer.job.fence) == (JobState.CANCELLING, (await hand.look_at(job)).fence)


async def test_a_commit_whose_answer_was_lost_leaves_nothing_to_be_believed(hand: Hand) -> None:
    job = await hand.created()
    cancel = Cancel(**_to(job, "c1"), job_id=job.id)

    with hand.harness.losing(Loss.ANSWER), pytest.raises(Uncertain):
        await hand.transact(cancel)
    [again] = await hand.transact(cancel)

    assert isinstance(again, Rejection)
    assert "has cancelled" in again.problem.detail


async def test_an_ended_job_is_loaded_only_where_a_command_names_it(hand: Hand) -> None:
    job = await hand.created()
    await hand.transact(Cancel(**_to(job, "c1"), job_id=job.id))
    next_job = await hand.created("next")

    aggregate = await hand.look(job)
    unnamed = await hand.look(replace(job, id=next_job.id))

    assert aggregate is not None and unnamed is not None
    assert aggregate.jobs[job.id].state is JobState.CANCELLED
    assert unnamed.jobs == {}


async def test_commands_of_one_batch_see_what_those_before_them_did(hand: Hand) -> None:
    create = hand.create()

    made, cancelled = await hand.transact(create, Cancel(**_to_new(create), job_id=create.job_id))

    assert isinstance(made, Submitted)
    assert isinstance(cancelled, Done)
    assert cancelled.changed
    assert (await hand.look_at(made.job)).state is JobState.CANCELLED


async def test_a_refused_command_changes_nothing_and_its_neighbours_go_on(hand: Hand) -> None:
    job = await hand.created()
    before = await hand.look(job)

    refused, made = await hand.transact(hand.submit(job, "no-such-operation"), hand.create("other"))

    assert isinstance(refused, Rejection)
    assert isinstance(made, Submitted)
    assert await hand.look(job) == before


async def test_a_fold_that_breaks_leaves_nothing_behind(hand: Hand) -> None:
    create = hand.create()

    def breaking(loaded: Loaded) -> Folded:
        Folding((Asked(create),), CATALOG)(loaded)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await hand.store.transact(Batch((Asked(create),), breaking))

    [answer] = await hand.transact(create)
    assert isinstance(answer, Submitted)
    assert not answer.attached


async def test_an_aggregate_that_another_copy_holds_is_deferred_and_the_rest_goes_on(hand: Hand) -> None:
    busy, free = await hand.created("busy"), await hand.created("free")
    cancels = [Cancel(**_to(job, f"c/{job.id}"), job_id=job.id) for job in (busy, free)]

    async with hand.harness.holding(busy.instance_id):
        deferred, done = await hand.transact(*cancels)
    [later] = await hand.transact(cancels[0])

    assert deferred is DEFERRED
    assert isinstance(done, Done)
    assert isinstance(later, Done)
    assert later.changed


async def test_a_key_that_another_copy_holds_is_deferred_and_the_rest_goes_on(hand: Hand) -> None:
    key = hand.keyed("k1")
    asked = Asked(hand.create("one"), key)

    async with hand.harness.holding(key):
        deferred, done = await hand.transact(asked, Asked(hand.create("two"), hand.keyed("k2")))
    [later] = await hand.transact(asked)

    assert deferred is DEFERRED
    assert isinstance(done, Submitted)
    assert isinstance(later, Submitted)


async def test_two_under_one_key_in_one_batch_are_one_and_its_repeat(hand: Hand) -> None:
    first, second = (Asked(hand.create(), hand.keyed("k1"), name="acme") for _ in range(2))

    made, deferred = await hand.transact(first, second)
    [again] = await hand.transact(second)

    assert isinstance(made, Submitted)
    assert deferred is DEFERRED
    assert again == _respond(made)


async def test_an_answer_is_remembered_under_its_key_and_only_for_the_same_request(hand: Hand) -> None:
    [made] = await hand.transact(Asked(hand.create("one"), hand.keyed("k1")))
    repeat, reused, elsewhere = await hand.transact(
        Asked(hand.create("two"), hand.keyed("k1")),
        Asked(hand.create("three"), hand.keyed("k1", "other")),
        Asked(hand.create("four"), replace(hand.keyed("k1"), path="/v1/elsewhere")),
    )
    [refused] = await hand.transact(Asked(hand.create("five"), hand.keyed("k1", "other")))

    assert repeat == _respond(made)
    assert reused is DEFERRED  # beside the other under its key
    assert isinstance(elsewhere, Submitted)
    assert isinstance(refused, Rejection)
    assert refused.problem.slug == "idempotency-key-reused"


async def test_a_refused_command_does_not_use_its_key_up(hand: Hand) -> None:
    job = await hand.created()

    [refused] = await hand.transact(Asked(hand.submit(job, "no-such-operation"), hand.keyed("k1")))
    [made] = await hand.transact(Asked(hand.create("other"), hand.keyed("k1")))

    assert isinstance(refused, Rejection)
    assert isinstance(made, Submitted)


async def test_a_name_is_taken_once_in_an_organization_and_free_in_another(hand: Hand) -> None:
    await hand.transact(Asked(hand.create("acme"), name="acme"))

    taken, free = await hand.transact(
        Asked(hand.create("acme"), name="acme"),
        Asked(hand.create("acme", hand.harness.other), name="acme"),
    )

    assert isinstance(taken, Rejection)
    assert isinstance(free, Submitted)


async def test_the_name_of_what_is_purged_is_free_again(hand: Hand) -> None:
    [made] = await hand.transact(Asked(hand.create("acme"), name="acme"))
    assert isinstance(made, Submitted)
    await hand.transact(Cancel(**_to(made.job, "c1"), job_id=made.job.id))
    await hand.arrange_instance(made.job, lifecycle=Lifecycle.PURGED)

    [again] = await hand.transact(Asked(hand.create("acme"), name="acme"))

    assert isinstance(again, Submitted)


async def test_two_of_one_name_in_one_batch_are_told_apart(hand: Hand) -> None:
    made, deferred = await hand.transact(
        Asked(hand.create("acme"), name="acme"), Asked(hand.create("acme"), name="acme")
    )

    assert isinstance(made, Submitted)
    assert deferred is DEFERRED


# ---- settle


@pytest.mark.parametrize(("loss", "verdict"), [(Loss.ANSWER, Settlement.COMMITTED), (Loss.REQUEST, Settlement.ABORTED)])
async def test_what_became_of_a_commit_without_an_answer_is_known_afterwards(
    hand: Hand, loss: Loss, verdict: Settlement
) -> None:
    create = hand.create()
    with hand.harness.losing(loss), pytest.raises(Uncertain) as caught:
        await hand.transact(create)

    assert await hand.store.settle(caught.value.transaction) is verdict
    assert await hand.store.settle(caught.value.transaction) is verdict

    [answer] = await hand.transact(create)
    assert isinstance(answer, Submitted)
    assert answer.attached is (verdict is Settlement.COMMITTED)
    if verdict is Settlement.COMMITTED:
        [uncertain] = caught.value.results
        assert isinstance(uncertain, Submitted)
        assert uncertain.job == answer.job


async def test_a_verdict_about_a_commit_that_is_still_under_way_stays_true(hand: Hand) -> None:
    create = hand.create()
    with hand.harness.losing(Loss.LATE), pytest.raises(Uncertain) as caught:
        await hand.transact(create)

    verdict = await hand.store.settle(caught.value.transaction)
    await hand.harness.pass_time(60.0)

    [answer] = await hand.transact(create)
    assert isinstance(answer, Submitted)
    assert answer.attached is (verdict is Settlement.COMMITTED)


# ---- claims


async def test_a_claim_is_granted_under_a_living_lease_and_again_under_the_same_number(hand: Hand) -> None:
    jobs = [await hand.created(f"i{n}") for n in range(3)]
    lease = await hand.start()

    granted = await hand.claim(lease, *jobs, want=2, number=1)
    again = await hand.claim(lease, *jobs, want=2, number=1)

    assert [isinstance(result, Holding) for result in granted] == [True, True, False]
    assert [r.job.fence for r in again if isinstance(r, Holding)] == [
        r.job.fence for r in granted if isinstance(r, Holding)
    ]


async def test_a_claim_under_a_lease_that_has_ended_is_refused(hand: Hand) -> None:
    job = await hand.created()
    lease = await hand.start("boot-1")
    await hand.start("boot-2")

    [refused] = await hand.claim(lease, job)

    assert isinstance(refused, Rejection)
    assert await hand.claimable() == [job.id]


async def test_what_a_lease_holds_is_told_with_its_fence_claim_and_cancel(hand: Hand) -> None:
    job, other = await hand.created("one"), await hand.created("two")
    lease = await hand.start()
    first, second = await hand.held(lease, job), await hand.held(lease, other)
    await hand.transact(Cancel(**_to(other, "c1"), job_id=other.id))

    owned = {each.job_id: each for each in await hand.store.owned(lease.id)}

    assert set(owned) == {job.id, other.id}
    assert (owned[job.id].fence, owned[job.id].claim, owned[job.id].cancelling) == (first.job.fence, 1, False)
    assert (owned[other.id].claim, owned[other.id].cancelling) == (2, True)
    assert owned[other.id].instance_id == second.instance.id
    assert await hand.store.owned(LeaseId(make_id("lea"))) in ([], ())


# ---- claimable


async def test_a_ready_job_of_the_pool_is_claimable_until_somebody_has_it(hand: Hand) -> None:
    job = await hand.created()
    waiting = await hand.transact(hand.submit(job, "delete"))
    assert isinstance(waiting[0], Submitted)
    ready = await hand.created("other")
    found = await hand.claimable()
    assert ready.id in found
    assert len(found) == 2  # one a subject: the waiter of the first came forward when its create was cancelled

    lease = await hand.start()
    await hand.held(lease, ready)

    assert ready.id not in await hand.claimable()


async def test_only_what_the_worker_can_run_and_serves_is_offered(hand: Hand) -> None:
    job = await hand.created()
    store, pool = hand.store, hand.harness.pool

    assert [c.job_id for c in await store.claimable(pool, {"create": frozenset({1, 2})}, 10, True)] == [job.id]
    assert list(await store.claimable(pool, {"create": frozenset({2})}, 10, True)) == []
    assert list(await store.claimable(pool, {"delete": frozenset({1})}, 10, True)) == []
    assert list(await store.claimable(pool, {}, 10, True)) == []
    assert list(await store.claimable(make_id("pol"), OPERATIONS, 10, True)) == []


async def test_a_candidate_names_its_job_fence_and_whose_it_is(hand: Hand) -> None:
    job = await hand.created()

    [candidate] = await hand.store.claimable(hand.harness.pool, OPERATIONS, 10, True)

    assert candidate == Candidate(job.organization_id, job.instance_id, job.id, job.fence)


async def test_a_job_that_waits_for_its_time_is_offered_when_it_has_come(hand: Hand) -> None:
    job = await hand.created()
    await hand.arrange(job, lambda a: replace(a, jobs={job.id: replace(a.jobs[job.id], not_before=_in(a, job, HOUR))}))
    assert await hand.claimable() == []

    await hand.harness.pass_time(HOUR + 1)

    assert await hand.claimable() == [job.id]


def _in(aggregate: Aggregate, job: Job, seconds: float) -> Any:
    return aggregate.jobs[job.id].created_at + timedelta(seconds=seconds)


async def test_a_job_that_runs_alone_is_offered_to_who_holds_nothing(hand: Hand) -> None:
    job, other = await hand.created("one"), await hand.created("two")
    await hand.arrange_job(job, alone=True)

    assert await hand.claimable(alone=True) == [job.id, other.id]
    assert await hand.claimable(alone=False) == [other.id]


async def test_a_brake_stops_what_is_ready_and_not_what_unwinds(hand: Hand) -> None:
    ready, unwinding = await hand.created("one"), await hand.created("two")
    await hand.arrange(
        unwinding,
        lambda a: replace(
            a,
            jobs={
                unwinding.id: replace(
                    a.jobs[unwinding.id], state=JobState.UNWINDING, unwind_deadline=_in(a, unwinding, HOUR)
                )
            },
        ),
    )
    assert set(await hand.claimable()) == {ready.id, unwinding.id}

    await hand.harness.brake()

    assert await hand.claimable() == [unwinding.id]


async def test_organizations_take_turns_the_oldest_job_first_within_each(hand: Hand) -> None:
    many = [await hand.created(f"many-{n}") for n in range(4)]
    few = [await hand.created(f"few-{n}", hand.harness.other) for n in range(2)]

    found = await hand.claimable()

    assert set(found[:2]) == {many[0].id, few[0].id}
    assert set(found[2:4]) == {many[1].id, few[1].id}
    assert found[4:] == [many[2].id, many[3].id]
    assert set(await hand.claimable(limit=2)) == {many[0].id, few[0].id}


async def test_a_job_that_was_put_off_goes_behind_those_that_have_been_due_for_longer(hand: Hand) -> None:
    put_off, other = await hand.created("one"), await hand.created("two")
    await hand.arrange_job(put_off, not_before=put_off.created_at + timedelta(seconds=HOUR))
    await hand.harness.pass_time(HOUR + 1)
    newest = await hand.created("three")

    assert await hand.claimable() == [other.id, put_off.id, newest.id]


# ---- due


async def test_nothing_is_due_before_its_time(hand: Hand) -> None:
    await hand.created()

    assert await hand.due() == []


async def test_an_instance_is_due_once_the_deadline_of_its_job_has_passed(hand: Hand) -> None:
    job = await hand.created()
    await hand.arrange(job, lambda a: replace(a, jobs={job.id: replace(a.jobs[job.id], deadline=_in(a, job, HOUR))}))
    assert await hand.due() == []

    await hand.harness.pass_time(HOUR + 1)

    assert await hand.due() == [job.instance_id]


async def test_time_in_which_nothing_could_be_done_puts_deadlines_off(hand: Hand) -> None:
    """A cell that stood still for two hours: an hour's deadline has an hour left when it goes on."""
    await hand.store.tick()
    job = await hand.created()
    await hand.arrange(job, lambda a: replace(a, jobs={job.id: replace(a.jobs[job.id], deadline=_in(a, job, HOUR))}))

    await hand.harness.stand_still(2 * HOUR)
    assert await hand.due() == [], "before anybody ticked"
    await hand.store.tick()
    assert await hand.due() == []

    await hand.harness.pass_time(HOUR + 1)
    assert await hand.due() == [job.instance_id]


async def test_a_decision_in_a_gap_that_nobody_has_counted_yet_holds_no_deadline_against_a_job(hand: Hand) -> None:
    await hand.store.tick()
    job = await hand.created()
    await hand.arrange(job, lambda a: replace(a, jobs={job.id: replace(a.jobs[job.id], deadline=_in(a, job, HOUR))}))
    await hand.harness.stand_still(2 * HOUR)

    [looked] = await hand.transact(Tick(**_to(job, "tick")))

    assert isinstance(looked, Done)
    assert not looked.changed


async def test_an_unwinding_job_is_due_by_its_own_deadline(hand: Hand) -> None:
    job = await hand.created()
    await hand.arrange(
        job,
        lambda a: replace(
            a,
            jobs={
                job.id: replace(
                    a.jobs[job.id],
                    state=JobState.UNWINDING,
                    deadline=_in(a, job, HOUR),
                    unwind_deadline=_in(a, job, 3 * HOUR),
                )
            },
        ),
    )
    await hand.harness.pass_time(2 * HOUR)
    assert await hand.due() == []

    await hand.harness.pass_time(HOUR + 1)
    assert await hand.due() == [job.instance_id]


async def test_an_attempt_without_an_outcome_is_due_when_its_deadline_has_passed(hand: Hand) -> None:
    job = await hand.created()
    lease = await hand.start()
    answer = await hand.announce(lease, await hand.held(lease, job))
    step = answer.job.step("stock")
    assert step is not None and step.attempt_deadline is not None
    assert await hand.due() == []

    await hand.harness.pass_time((step.attempt_deadline - answer.at).total_seconds() + 1)
    assert await hand.due() == [job.instance_id]

    await hand.transact(Lose(**_to(job, "lose"), job_id=job.id, fence=answer.job.fence, why="test"))
    assert await hand.due() == []


async def test_a_waiter_that_nobody_promoted_is_due(hand: Hand) -> None:
    job = await hand.created()
    until = job.deadline + timedelta(days=1)
    waiting = Waiting(WaitsFor.QUEUE, job.created_at, until)

    def strand(aggregate: Aggregate) -> Aggregate:
        stranded = replace(aggregate.jobs[job.id], state=JobState.WAITING, waiting=waiting)
        return replace(aggregate, instance=replace(aggregate.instance, active_job_id=None), jobs={job.id: stranded})

    await hand.arrange(job, strand)

    assert await hand.due() == [job.instance_id]


async def test_as_many_as_are_asked_for_are_found(hand: Hand) -> None:
    jobs = [await hand.created(f"i{n}") for n in range(3)]
    for job in jobs:
        await hand.arrange_job(job, deadline=job.created_at)

    assert len(await hand.store.due(2)) == 2
    assert {c.instance_id for c in await hand.store.due(9)} == {job.instance_id for job in jobs}


# ---- purgeable


async def test_what_was_deleted_is_purgeable_once_its_retention_is_over(hand: Hand) -> None:
    job = await hand.created()
    await hand.transact(Cancel(**_to(job, "c1"), job_id=job.id))
    over = job.created_at + timedelta(seconds=HOUR)
    await hand.arrange_instance(
        job, lifecycle=Lifecycle.DELETED, deleted_at=job.created_at, purge_at=over, hold=Hold.NONE
    )
    assert list(await hand.store.purgeable(10)) == []

    await hand.harness.pass_time(HOUR + 1)

    assert list(await hand.store.purgeable(10)) == [Candidate(job.organization_id, job.instance_id)]


@pytest.mark.parametrize(
    "kept",
    [{"hold": Hold.QUARANTINED}, {"lifecycle": Lifecycle.STOPPED}, {"active": True}],
    ids=["on hold", "not deleted", "with an active job"],
)
async def test_what_is_on_hold_in_use_or_not_deleted_is_not_purgeable(hand: Hand, kept: dict[str, Any]) -> None:
    job = await hand.created()
    changes = {"lifecycle": Lifecycle.DELETED, "deleted_at": job.created_at, "purge_at": job.created_at}
    if "active" not in kept:
        await hand.transact(Cancel(**_to(job, "c1"), job_id=job.id))
    await hand.arrange_instance(job, **(changes | {name: value for name, value in kept.items() if name != "active"}))

    assert list(await hand.store.purgeable(10)) == []


# ---- leases


async def test_a_newer_incarnation_ends_the_older_one_and_says_what_it_owned(hand: Hand) -> None:
    job = await hand.created()
    older, nothing = await hand.open("boot-1")
    held = await hand.held(older, job)

    newer, orphaned = await hand.open("boot-2")

    assert list(nothing) == []
    assert newer.live
    assert newer.incarnation == older.incarnation + 1
    assert [(each.job_id, each.fence) for each in orphaned] == [(job.id, held.job.fence)]
    assert await hand.store.beat(older.id, older.organization_id, older.incarnation, 1) is None


async def test_a_start_that_is_asked_for_twice_is_one(hand: Hand) -> None:
    first, _ = await hand.open("boot-1")

    second, orphaned = await hand.open("boot-1")

    assert (second.id, second.incarnation) == (first.id, first.incarnation)
    assert list(orphaned) == []


async def test_two_starts_at_once_leave_one_living_lease(hand: Hand) -> None:
    opened = await asyncio.gather(hand.open("boot-1"), hand.open("boot-2"))

    beats = [
        await hand.store.beat(lease.id, lease.organization_id, lease.incarnation, 1)
        for lease, _ in sorted(opened, key=lambda one: one[0].incarnation)
    ]

    assert beats[0] is None
    assert beats[1] is not None and beats[1].lease.incarnation == 2


async def test_a_heartbeat_renews_and_an_older_one_does_nothing(hand: Hand) -> None:
    job = await hand.created()
    lease = await hand.start()
    held = await hand.held(lease, job)
    await hand.harness.pass_time(LEASE_SECONDS - 5)

    fresh = await hand.store.beat(lease.id, lease.organization_id, lease.incarnation, 2)
    await hand.harness.pass_time(LEASE_SECONDS - 5)
    stale = await hand.store.beat(lease.id, lease.organization_id, lease.incarnation, 1)
    assert list(await hand.store.lapsed(LEASE_SECONDS, 10)) == []
    await hand.harness.pass_time(10)

    assert fresh.fresh and not stale.fresh
    assert [(each.job_id, each.fence) for each in fresh.owned] == [(job.id, held.job.fence)]
    assert stale.lease.heartbeat == 2
    assert list(await hand.store.lapsed(LEASE_SECONDS, 10)) == [hand.lapsed(lease)]


async def test_a_heartbeat_of_another_incarnation_or_of_nobody_finds_no_lease(hand: Hand) -> None:
    lease = await hand.start()

    assert await hand.store.beat(lease.id, lease.organization_id, lease.incarnation + 1, 1) is None
    assert await hand.store.beat(LeaseId(make_id("lea")), lease.organization_id, 1, 1) is None


async def test_a_lease_that_was_not_renewed_in_time_is_ended_once_and_says_what_it_owned(hand: Hand) -> None:
    job = await hand.created()
    lease = await hand.start()
    held = await hand.held(lease, job)
    assert list(await hand.store.lapsed(LEASE_SECONDS, 10)) == []
    await hand.harness.pass_time(LEASE_SECONDS + 1)
    [lapsed] = await hand.store.lapsed(LEASE_SECONDS, 10)

    ended = await hand.store.end_lease(lapsed, "lapsed", LEASE_SECONDS)

    assert lapsed == hand.lapsed(lease)
    assert ended.now
    assert [(each.job_id, each.fence) for each in ended.owned] == [(job.id, held.job.fence)]
    assert await hand.store.end_lease(lapsed, "lapsed", LEASE_SECONDS) == replace(ended, now=False)
    assert await hand.store.beat(lease.id, lease.organization_id, lease.incarnation, 1) is None


async def test_a_lease_that_was_renewed_meanwhile_is_not_ended(hand: Hand) -> None:
    lease = await hand.start()
    await hand.harness.pass_time(LEASE_SECONDS + 1)
    [lapsed] = await hand.store.lapsed(LEASE_SECONDS, 10)
    await hand.store.beat(lease.id, lease.organization_id, lease.incarnation, 1)

    assert await hand.store.end_lease(lapsed, "lapsed", LEASE_SECONDS) == Ended()

    assert await hand.store.beat(lease.id, lease.organization_id, lease.incarnation, 2) is not None


async def test_a_lease_is_ended_at_once_where_nothing_is_asked_about_its_renewal(hand: Hand) -> None:
    lease = await hand.start()

    await hand.store.end_lease(hand.lapsed(lease), "revoked", None)

    assert await hand.store.beat(lease.id, lease.organization_id, lease.incarnation, 1) is None


async def test_an_ended_lease_that_still_owns_jobs_is_found_until_it_owns_none(hand: Hand) -> None:
    """Whoever ended it did not get further."""
    job = await hand.created()
    lease = await hand.start()
    held = await hand.held(lease, job)
    await hand.store.end_lease(hand.lapsed(lease), "revoked", None)
    assert list(await hand.store.lapsed(LEASE_SECONDS, 10)) == [hand.lapsed(lease)]
    [owned] = (await hand.store.end_lease(hand.lapsed(lease), "lapsed", LEASE_SECONDS)).owned

    await hand.transact(Lose(**_to(job, "lose"), job_id=job.id, fence=owned.fence, why="test"))

    assert owned.fence == held.job.fence
    assert list(await hand.store.lapsed(LEASE_SECONDS, 10)) == []
    assert await hand.claimable() == [job.id]


async def test_ending_a_lease_that_nobody_knows_ends_nothing(hand: Hand) -> None:
    unknown = Lapsed(LeaseId(make_id("lea")), hand.harness.worker, hand.harness.tenant.organization)

    assert await hand.store.end_lease(unknown, "lapsed", None) == Ended()


# ---- the liveness row


async def test_time_goes_on_with_every_tick(hand: Hand) -> None:
    first = await hand.store.tick()
    await hand.harness.pass_time(1.0)
    second = await hand.store.tick()

    assert second > first - timedelta(seconds=1)  # what is stored may have grown older meanwhile


async def test_after_a_gap_every_lease_gets_its_full_time_again(hand: Hand) -> None:
    await hand.store.tick()
    lease = await hand.start()
    await hand.harness.stand_still(HOUR)
    assert list(await hand.store.lapsed(LEASE_SECONDS, 10)) == [], "before anybody ticked"
    assert await hand.store.end_lease(hand.lapsed(lease), "lapsed", LEASE_SECONDS) == Ended()

    await hand.store.tick()
    assert list(await hand.store.lapsed(LEASE_SECONDS, 10)) == []
    assert await hand.store.end_lease(hand.lapsed(lease), "lapsed", LEASE_SECONDS) == Ended()

    await hand.harness.pass_time(LEASE_SECONDS + 1)
    assert list(await hand.store.lapsed(LEASE_SECONDS, 10)) == [hand.lapsed(lease)]


async def test_a_pause_within_the_tolerance_is_no_gap(hand: Hand) -> None:
    await hand.store.tick()
    lease = await hand.start()
    for _ in range(4):
        await hand.harness.stand_still(TOLERANCE_SECONDS - 1)
        await hand.store.tick()

    assert list(await hand.store.lapsed(LEASE_SECONDS, 10)) == [hand.lapsed(lease)]

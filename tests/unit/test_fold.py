"""The fold of one flush: what commands of one batch mean to each other."""

from __future__ import annotations

from dataclasses import replace

from spectrum.control.fold import Folding
from spectrum.core.errors import Problem
from spectrum.core.ids import InstanceId, JobId
from spectrum.core.jobs.commands import Answer, Rejection, Repeated, Submit, Submitted
from spectrum.core.jobs.store import Asked, Folded, Keyed, Loaded
from tests.unit.jobs.bench import CATALOG, INSTANCE, ORGANIZATION, SPEC, Bench, running

SECOND = InstanceId("ins_00000000-0000-7000-8000-000000000002")


def _respond(answer: Answer) -> Repeated:
    assert answer.job is not None
    return Repeated(202, f"/v1/jobs/{answer.job.id}", {"id": answer.job.id})


def _submit(number: int, operation: str, instance_id: InstanceId = INSTANCE) -> Submit:
    return Submit(
        id=f"{operation}-{number}",
        instance_id=instance_id,
        organization_id=ORGANIZATION,
        actor="vendor:ada",
        job_id=JobId(f"job_01900000-0000-7000-8000-{number:012d}"),
        operation=operation,
        operation_version=1,
    )


def _asked(number: int, digest: str = "same") -> Asked:
    keyed = Keyed(ORGANIZATION, "POST", "/v1/instances/acme:stop", "key", digest, _respond)
    return Asked(_submit(number, "stop"), keyed)


def _folded(bench: Bench, *asked: Asked) -> Folded:
    instances = {each.command.instance_id for each in asked}
    known = {INSTANCE: bench.aggregate} if INSTANCE in instances else {}
    loaded = Loaded(bench.around.now, known, dict.fromkeys(instances, bench.around))
    return Folding(asked, CATALOG)(loaded)


def test_a_key_that_comes_twice_in_one_flush_makes_one_job() -> None:
    first, second = _folded(running(), _asked(1), _asked(2)).results

    assert isinstance(first, Submitted)
    assert second == _respond(first)


def test_a_key_that_comes_with_two_bodies_in_one_flush_is_refused_the_second_time() -> None:
    folded = _folded(running(), _asked(1), _asked(2, digest="other"))

    assert isinstance(folded.results[1], Rejection)
    assert folded.results[1].problem.slug == "idempotency-key-reused"
    assert list(folded.remember) == [0]


def test_a_name_that_is_taken_twice_in_one_flush_is_given_once() -> None:
    bench = Bench()
    creates = [
        Asked(
            replace(_submit(number, "create", instance), spec=SPEC, new=replace(bench.instance, id=instance)),
            name="acme",
        )
        for number, instance in ((1, InstanceId("ins_00000000-0000-7000-8000-000000000003")), (2, SECOND))
    ]

    first, second = _folded(bench, *creates).results

    assert isinstance(first, Submitted)
    assert isinstance(second, Rejection)
    assert isinstance(second.problem, Problem)
    assert second.problem.slug == "not-allowed-now"

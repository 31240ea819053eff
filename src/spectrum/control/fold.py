"""The fold of one flush: commands over what was loaded, in order of arrival. Pure, like the decisions that it strings together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from spectrum.control.commands import key_reused
from spectrum.core.breakers import Breaker
from spectrum.core.errors import Problem
from spectrum.core.ids import InstanceId, TargetId
from spectrum.core.jobs.commands import (
    Answer,
    Claim,
    Consequences,
    Done,
    Hint,
    Holding,
    Rejection,
    Repeated,
    Submit,
)
from spectrum.core.jobs.decide import Decision, decide
from spectrum.core.jobs.holding import lease_ended
from spectrum.core.jobs.model import Aggregate, Lease, Surroundings, keys_absent
from spectrum.core.jobs.store import (
    DEFERRED,
    Asked,
    ClaimOf,
    Deferred,
    Folded,
    Keyed,
    Loaded,
    Remembered,
    Response,
    Written,
)
from spectrum.core.plan import Catalog


@dataclass
class Folding:
    """The function that a store calls once it has locked and loaded what `asked` needs.

    `hints` and `written` are of its last call.
    """

    asked: Sequence[Asked]
    catalog: Catalog
    claim: ClaimOf | None = None
    hints: tuple[Hint, ...] = ()
    written: tuple[Written, ...] = ()

    def __call__(self, loaded: Loaded) -> Folded:
        if self.claim is None:
            folded = _Folding(loaded, self.catalog).all(self.asked)
        else:
            folded = _claiming(loaded, self.catalog, self.asked, self.claim)
        self.written = tuple(folded.written.values())
        self.hints = tuple(hint for written in self.written for each in written.consequences for hint in each.hints)
        return folded


@dataclass
class _Folding:
    loaded: Loaded
    catalog: Catalog
    after: dict[InstanceId, Aggregate] = field(default_factory=dict)
    consequences: dict[InstanceId, list[Consequences]] = field(default_factory=dict)
    remember: dict[int, Repeated] = field(default_factory=dict)
    evidence: list[Rejection] = field(default_factory=list)
    fresh: dict[tuple[str, str, str, str], Remembered] = field(default_factory=dict)  # keys first used in this flush
    breakers: dict[TargetId, Breaker] = field(default_factory=dict)  # changed in this flush
    named: set[tuple[str, str]] = field(default_factory=set)  # (organization, instance name) taken in this flush

    def all(self, asked: Sequence[Asked]) -> Folded:
        results = tuple(self.one(position, each) for position, each in enumerate(asked))
        return self.folded(results)

    def folded(self, results: tuple[Response, ...], lease: Lease | None = None) -> Folded:
        written = {
            instance_id: Written(self.loaded.aggregates.get(instance_id), after, tuple(self.consequences[instance_id]))
            for instance_id, after in self.after.items()
        }
        return Folded(results, written, self.remember, tuple(self.evidence), lease, self.breakers)

    def one(self, position: int, asked: Asked) -> Response:
        command = asked.command
        if position in self.loaded.busy_keys or command.instance_id in self.loaded.busy:
            return DEFERRED
        if asked.keyed is not None and (known := self._known(position, asked.keyed)):
            return (
                known.answer
                if known.request_digest == asked.keyed.request_digest
                else Rejection(key_reused(asked.keyed.key))
            )
        name = (command.organization_id, asked.name) if asked.name else None
        if position in self.loaded.taken or name in self.named:
            return Rejection(
                Problem("not-allowed-now", f"There is already an instance named {asked.name}. Choose another name.")
            )
        result = self._decide(asked)
        if not isinstance(result, Rejection | Repeated | Deferred):
            self._accepted(position, asked.keyed, name, result)
        return result

    def _known(self, position: int, keyed: Keyed) -> Remembered | None:
        """What this key was answered, in an earlier flush or in this one (P9)."""
        return self.loaded.remembered.get(position) or self.fresh.get(keyed.place)

    def _accepted(self, position: int, keyed: Keyed | None, name: tuple[str, str] | None, answer: Answer) -> None:
        if name is not None:
            self.named.add(name)
        if keyed is not None:
            self.remember[position] = keyed.respond(answer)
            self.fresh[keyed.place] = Remembered(keyed.request_digest, self.remember[position])

    def _decide(self, asked: Asked) -> Response:
        command = asked.command
        aggregate = self.after.get(command.instance_id) or self.loaded.aggregates.get(command.instance_id)
        if aggregate is None:
            if not (isinstance(command, Submit) and command.new is not None):
                return Rejection(Problem("not-found", f"There is no instance {command.instance_id}."))
            aggregate = Aggregate(command.new, outlines=self.loaded.outlines)
        around = self._around(command.instance_id, aggregate.instance.target_id)
        decision = decide(aggregate, command, around, self.catalog)
        if isinstance(decision, Rejection):
            self.evidence.append(decision)
            return decision
        self._keep(command.instance_id, aggregate, decision)
        if (breaker := decision.consequences.breaker) is not None:
            self.breakers[aggregate.instance.target_id] = breaker
        return decision.answer

    def _around(self, instance_id: InstanceId, target_id: TargetId) -> Surroundings:
        around = self.loaded.around[instance_id]
        breaker = self.breakers.get(target_id)
        return around if breaker is None else replace(around, breaker=breaker)

    def _keep(self, instance_id: InstanceId, before: Aggregate, decision: Decision) -> None:
        unchanged = decision.aggregate == before and decision.consequences == Consequences()
        if unchanged and instance_id in self.loaded.aggregates:
            return
        self.after[instance_id] = decision.aggregate
        self.consequences.setdefault(instance_id, []).append(decision.consequences)


def _claiming(loaded: Loaded, catalog: Catalog, asked: Sequence[Asked], claim: ClaimOf) -> Folded:
    """A claim: the lease must live, the number must be the next one, and a repeat gets the same answer."""
    folding = _Folding(loaded, catalog)
    lease = loaded.lease
    if lease is None or not lease.live or lease.incarnation != claim.incarnation:
        return folding.folded(tuple(Rejection(lease_ended(claim.lease_id)) for _ in asked))
    if claim.number <= lease.claim:
        return folding.folded(tuple(_held_again(loaded, lease, each, claim) for each in asked))
    results: list[Response] = []
    granted: list[tuple[str, int]] = []
    full = False
    for position, each in enumerate(asked):
        command = _claim_in(each)
        if full or len(granted) >= claim.want:
            results.append(DEFERRED)
            continue
        command = replace(command, holds_others=command.holds_others or bool(granted))
        result = folding.one(position, replace(each, command=command))
        if isinstance(result, Holding):
            granted.append((result.job.id, result.job.fence))
            full = result.job.alone
        results.append(result)
    renewed = replace(lease, claim=claim.number, claim_answer=tuple(granted))
    return folding.folded(tuple(results), renewed)


def _claim_in(asked: Asked) -> Claim:
    if not isinstance(asked.command, Claim):
        raise TypeError(f"a batch of a claim holds claims alone, not {type(asked.command).__name__}")
    return asked.command


def _held_again(loaded: Loaded, lease: Lease, asked: Asked, claim: ClaimOf) -> Response:
    """The same answer to the same claim number, for what is still held under it."""
    command = _claim_in(asked)
    aggregate = loaded.aggregates.get(command.instance_id)
    job = aggregate.jobs.get(command.job_id) if aggregate else None
    same = claim.number == lease.claim and job is not None and (job.id, job.fence) in lease.claim_answer
    if aggregate is None or job is None or not same or not job.owned:
        return Done(False)
    url = loaded.around[command.instance_id].target_url
    return Holding(job, aggregate.instance, loaded.now, url, keys_absent=keys_absent(aggregate.effects))

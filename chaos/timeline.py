"""When jobs were in somebody's hands again after their worker was lost, and whether in time: pure, from what was recorded.

All moments are seconds of this machine's clock, by which PostgreSQL decides too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chaos.nemesis import POSTGRES, Done, Kind, Organ
from chaos.parts import SERVERS, WORKERS
from spectrum.core.jobs.table import JobState

CLAIMED, RESCUED, ATTEMPT = "job.claimed", "job.rescued", "attempt"
_ENDED = tuple(f"job.{state}" for state in JobState if state.terminal)
_LOSING = (Kind.KILL, Kind.FREEZE, Kind.DEAF, Kind.MUTE)  # what may cost a worker its lease


@dataclass(frozen=True)
class Look:
    """A job as it was at a moment."""

    at: float
    state: JobState
    version: int
    fence: int
    lease: str | None
    worker: str | None


@dataclass(frozen=True)
class Fact:
    """What the log says of a job, written in the transaction that it tells of; or that its worker told of an `attempt`."""

    at: float
    type: str
    worker: str | None

    @property
    def ends(self) -> bool:
        return self.type in _ENDED


@dataclass(frozen=True)
class Records:
    """What was recorded while the faults lasted. `renewals`: when each lease was renewed. `facts` and `looks` are by job;
    `workers` are the workers' ids by part.
    """

    renewals: Mapping[str, Sequence[float]]
    facts: Mapping[str, Sequence[Fact]]
    looks: Mapping[str, Sequence[Look]]
    workers: Mapping[str, str]


@dataclass(frozen=True)
class Outage:
    """A fault with what came after it: `back` is when all parts that it touched answered again."""

    done: Done
    back: float

    @property
    def began(self) -> float:
        return self.done.began

    @property
    def seconds_to_answer(self) -> float:
        return self.back - self.done.mended


@dataclass(frozen=True)
class Claim:
    """`waited`: seconds from the part's return. `calm`: the longest time of those in which all other parts were well too."""

    job: str
    after: Outage
    waited: float
    calm: float


def outages(done: Sequence[Done], answers: Mapping[str, Sequence[float]]) -> Sequence[Outage]:
    """By their beginning. A part that never answered again counts as back when its fault was mended: nothing is excused by it."""

    def back(each: Done) -> float:
        firsts = [_first(answers.get(part, ()), each.mended) for part in _needed(each)]
        return max([each.mended, *(first for first in firsts if first is not None)])

    return sorted((Outage(each, back(each)) for each in done), key=lambda outage: outage.began)


def _needed(done: Done) -> Sequence[str]:
    """The parts that have to answer before the fault is over. A worker that was not killed is there at once."""
    part = done.fault.part
    if part == POSTGRES:
        return (POSTGRES, *SERVERS)
    if part in SERVERS and done.fault.organ in (Organ.PROCESS, Organ.WAY):
        return (part,)
    return (part,) if part in WORKERS and done.fault.kind is Kind.KILL else ()


def claims(all_outages: Sequence[Outage], records: Records) -> Iterator[Claim]:
    """For every job that a worker held when it was killed, frozen or cut off: how long nobody had it once that worker was back."""
    for outage in all_outages:
        fault = outage.done.fault
        if fault.kind not in _LOSING or fault.part not in WORKERS:
            continue
        others = [other for other in all_outages if other is not outage]
        for job, told in records.facts.items():
            if _holder(told, outage.began) != records.workers[fault.part]:
                continue
            taken = _taken_up(job, told, outage.done, records)
            if taken is not None:
                waited = max(0.0, taken - outage.back)
                yield Claim(job, outage, waited, _longest_calm(others, outage.back, taken))


def _holder(told: Sequence[Fact], moment: float) -> str | None:
    """The worker that had the job then; None where nobody had."""
    holder = None
    for fact in told:
        if fact.at > moment:
            break
        if fact.type == CLAIMED:
            holder = fact.worker
        elif fact.type == RESCUED or fact.ends:
            holder = None
    return holder


def _taken_up(job: str, told: Sequence[Fact], done: Done, records: Records) -> float | None:
    """When somebody had it again: it was claimed anew, had ended, or its holder came back and went on with it.

    None where it was let go meanwhile, to be taken up at a time of its own.
    """
    anew = next((fact.at for fact in told if fact.at > done.began and (fact.type == CLAIMED or fact.ends)), None)
    lost = next((fact.at for fact in told if fact.at > done.began and fact.type == RESCUED), None)
    went_on = _went_on(job, told, done, records)
    if went_on is not None and (lost is None or went_on < lost) and (anew is None or went_on < anew):
        return went_on
    if anew is None:
        return None
    free = any(done.began < look.at < anew and look.lease is None for look in records.looks.get(job, ()))
    return None if free and (lost is None or lost > anew) else anew


def _went_on(job: str, told: Sequence[Fact], done: Done, records: Records) -> float | None:
    """When the holder, back again, told something of the job or renewed the lease by which it has it."""
    worker = records.workers[done.fault.part]
    told_of = [fact.at for fact in told if fact.at > done.mended and fact.type == ATTEMPT and fact.worker == worker]
    before = [look.lease for look in records.looks.get(job, ()) if look.at <= done.began]
    renewed = _first(records.renewals.get(before[-1] or "", ()) if before else (), done.mended)
    return min([*told_of, *([renewed] if renewed is not None else [])], default=None)


def _longest_calm(others: Sequence[Outage], back: float, until: float) -> float:
    """The longest time between the return and `until` with every other part well."""
    edge, longest = back, 0.0
    for other in others:
        if other.began >= until:
            break
        longest = max(longest, min(other.began, until) - edge)
        edge = max(edge, other.back)
    return max(longest, until - edge, 0.0)


def _first(moments: Sequence[float], after: float) -> float | None:
    """Of sorted moments."""
    place = bisect_left(moments, after)
    return moments[place] if place < len(moments) else None

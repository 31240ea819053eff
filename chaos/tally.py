"""What happened, as a table for people and as one line of JSON for a ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from chaos.executions import Executions
from sim.ledger import Run

SLACK = 5.0  # seconds beyond a lease within which a job is claimed again


@dataclass(frozen=True)
class Tally:
    seed: int
    lease: float
    seconds: float
    faults: Mapping[str, int]
    left_out: Mapping[str, str]
    jobs: Mapping[str, int]  # by operation and how it ended
    failed: Mapping[str, int]  # jobs, by what they say of it
    refused: int
    attempts: Mapping[str, int]  # at steps, by cause
    spooled: int  # reports that waited on disk when PostgreSQL came back after long
    executions: Executions  # what the product saw, in a run without faults
    to_answer: Sequence[float]  # seconds from the mending of each fault until all that it touched answered again
    claims: Sequence[float]  # seconds from the part's return to the claim
    calm_claims: Sequence[float]  # the longest time of each of them with all parts well
    asked: int
    slowest: float
    latest: float  # how long the prober itself was behind its schedule at most
    unanswered: Sequence[str]
    not_measured: Sequence[str]
    restarted: Mapping[str, int]  # parts that ended by themselves
    checks: int
    broken: Sequence[str]

    @property
    def late(self) -> int:
        return sum(seconds > self.lease + SLACK for seconds in self.calm_claims)

    @property
    def held(self) -> bool:
        return not self.broken and not self.unanswered and not self.late

    def as_json(self) -> dict[str, Any]:
        return {
            "ring": 3,
            "seed": self.seed,
            "lease": self.lease,
            "seconds": round(self.seconds, 1),
            "faults": dict(self.faults),
            "left_out": dict(self.left_out),
            "jobs": dict(self.jobs),
            "failed": dict(self.failed),
            "refused": self.refused,
            "attempts": dict(self.attempts),
            "spooled": self.spooled,
            "executions": self.executions.count,
            "answer_seconds": _spread(self.to_answer),
            "claims": len(self.claims),
            "claim_seconds": _spread(self.claims),
            "claim_seconds_calm": _spread(self.calm_claims),
            "claims_late": self.late,
            "probes": self.asked,
            "probes_failed": len(self.unanswered),
            "probes_not_measured": len(self.not_measured),
            "probe_slowest": round(self.slowest, 3),
            "prober_latest": round(self.latest, 3),
            "restarted": dict(self.restarted),
            "checks": self.checks,
            "broken": list(self.broken),
        }

    def as_run(self) -> Run:
        """The line of the ledger."""
        return Run(
            ring="chaos",
            what=f"seed {self.seed}, lease {self.lease:g} s",
            count=sum(self.jobs.values()),
            unit="jobs",
            violations=len(self.broken) + len(self.unanswered) + self.late,
            faults=self.faults,
            extra={
                "seconds": round(self.seconds),
                "probes": self.asked,
                "probes not measured": len(self.not_measured),
                "executions that the product saw": self.executions.count,
                "jobs claimed again": len(self.claims),
                "reports that waited on disk": self.spooled,
                **{f"attempts, {cause}": count for cause, count in self.attempts.items()},
            },
        )

    def lines(self) -> Iterator[str]:
        yield f"seed {self.seed}, lease {self.lease:g} s, {self.seconds:.0f} s"
        yield f"\nfaults {sum(self.faults.values())}"
        yield from _rows(self.faults)
        yield from (f"  {kind:34} left out: {reason}" for kind, reason in self.left_out.items())
        yield f"\njobs {sum(self.jobs.values())}"
        yield from _rows(self.jobs)
        yield f"  {'refused commands':34} {self.refused:6}"
        yield from (f"  failed {count} times: {what}" for what, count in self.failed.items())
        yield f"\nattempts at steps {sum(self.attempts.values())}"
        yield from _rows(self.attempts)
        yield f"  {'reports that waited on disk':34} {self.spooled:6}"
        if self.executions.seen:
            yield f"\nexecutions that the product saw {self.executions.count}"
            yield from _rows({f"jobs claimed by {part}": count for part, count in self.executions.by_worker.items()})
            yield from _rows({f"answers of {part}": count for part, count in self.executions.by_copy.items()})
        yield f"\nuntil what a fault touched answered again: seconds, {_words(self.to_answer)}"
        yield f"\nclaimed again {len(self.claims)}"
        yield f"  {'seconds after the part was back':34} {_words(self.claims)}"
        yield f"  {'of them at a stretch, all well':34} {_words(self.calm_claims)}"
        yield f"  {f'later than {self.lease + SLACK:g} s':34} {self.late:6}"
        yield f"\nprobes {self.asked}"
        yield f"  {'not answered':34} {len(self.unanswered):6}"
        yield f"  {'not measured':34} {len(self.not_measured):6}"
        yield f"  {'slowest':34} {self.slowest:8.1f} s"
        yield f"  {'prober behind its schedule':34} {self.latest:8.1f} s at most"
        yield from (f"\n{part} ended by itself {count} times" for part, count in self.restarted.items() if count)
        yield f"\n{self.checks} promises over the database, answers, inventory: {len(self.broken)} broken"
        yield from (f"  {what}" for what in (*self.broken, *self.unanswered))
        yield from (f"  not measured: {what}" for what in self.not_measured)


def _rows(counts: Mapping[str, int]) -> Iterator[str]:
    return (f"  {name:34} {count:6}" for name, count in sorted(counts.items()))


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(seconds), 1), "longest": round(max(seconds), 1)} if seconds else {}


def _words(seconds: Sequence[float]) -> str:
    return f"median {median(seconds):.1f}, longest {max(seconds):.1f}" if seconds else "none"


def counted(words: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))

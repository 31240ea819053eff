"""What a copy of the control plane keeps of aggregates, so that it need not load again what it wrote itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from spectrum.core.evolve import evolve
from spectrum.core.ids import InstanceId
from spectrum.core.jobs.model import Aggregate
from spectrum.core.weighed import Weighed, weight_of

LIMIT = 128 * 1024 * 1024  # bytes, about: ten thousand instances with a job each
_BASE = 4096  # bytes of an instance without what its operations tell of it, about
_ROW = 1024  # of a job, a step or an effect without what it tells


@dataclass
class Kept:
    """Aggregates as they were committed. The version of the row that is locked decides whether one is still so: every command that
    changes anything of an aggregate raises it, in whatever copy.

    `era` names the run of the database. After another one begins, nothing is known: a standby that takes over may lack the last
    versions, and give them out again. Transactions on either side of that may overlap in one copy: each says in which it is.
    """

    limit: int = LIMIT
    era: str = ""
    _aggregates: Weighed[InstanceId, Aggregate] = field(init=False)

    def __post_init__(self) -> None:
        self._aggregates = Weighed(self.limit)

    def enter(self, era: str) -> None:
        """Forget everything unless the database still is in this run."""
        if era != self.era:
            self.era = era
            self._aggregates.clear()

    def known(self, era: str, instance_id: InstanceId, version: int) -> Aggregate | None:
        """The aggregate, if it is kept as it is in this run and this version."""
        if era != self.era or instance_id not in self._aggregates:
            return None
        kept = self._aggregates[instance_id]
        if kept.instance.version == version:
            return kept
        self._aggregates.drop(instance_id)
        return None

    def keep(self, era: str, aggregates: Iterable[Aggregate]) -> None:
        """What was committed, and acknowledged, without outlines: who loads has them. Jobs that have ended are nobody's concern."""
        if era != self.era:
            return
        for aggregate in aggregates:
            jobs = {job.id: job for job in aggregate.jobs.values() if not job.state.terminal}
            kept = evolve(aggregate, jobs=jobs, outlines={})
            self._aggregates.put(aggregate.instance.id, kept, _weight(kept))


def _weight(aggregate: Aggregate) -> int:
    """About how many bytes it takes: what programs tell can be of any length, and the rest is counted."""
    instance, jobs = aggregate.instance, aggregate.jobs.values()
    told = (instance.facts, instance.outputs, instance.services, instance.conditions)
    outputs = [step.output for job in jobs for step in job.steps if step.output]
    rows = len(aggregate.effects) + len(jobs) + sum(len(job.steps) for job in jobs)
    return _BASE + _ROW * rows + sum(map(weight_of, told)) + sum(map(weight_of, outputs))

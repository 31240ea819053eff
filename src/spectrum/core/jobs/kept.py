"""What a copy of the control plane keeps of aggregates, so that it need not load again what it wrote itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from spectrum.core.evolve import evolve
from spectrum.core.ids import InstanceId
from spectrum.core.jobs.model import Aggregate

LIMIT = 4096  # aggregates; those that were not used for the longest time go first


@dataclass
class Kept:
    """Aggregates as they were committed. The version of the row that is locked decides whether one is still so: every command that
    changes anything of an aggregate raises it, in whatever copy.

    `era` names the run of the database. After another one begins, nothing is known: a standby that takes over may lack the last
    versions, and give them out again.
    """

    limit: int = LIMIT
    era: str = ""
    _aggregates: dict[InstanceId, Aggregate] = field(default_factory=dict)

    def enter(self, era: str) -> None:
        """Forget everything unless the database still is in this run."""
        if era != self.era:
            self.era = era
            self._aggregates.clear()

    def known(self, instance_id: InstanceId, version: int) -> Aggregate | None:
        """The aggregate, if it is kept as it is in this version."""
        kept = self._aggregates.pop(instance_id, None)
        if kept is None or kept.instance.version != version:
            return None
        self._aggregates[instance_id] = kept
        return kept

    def keep(self, era: str, aggregates: Iterable[Aggregate]) -> None:
        """What was committed, and acknowledged. Jobs that have ended are nobody's concern any more."""
        if era != self.era:
            return
        for aggregate in aggregates:
            instance_id = aggregate.instance.id
            jobs = {job.id: job for job in aggregate.jobs.values() if not job.state.terminal}
            self._aggregates.pop(instance_id, None)
            self._aggregates[instance_id] = evolve(aggregate, jobs=jobs)
        for oldest in list(self._aggregates)[: max(0, len(self._aggregates) - self.limit)]:
            del self._aggregates[oldest]

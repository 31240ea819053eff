"""What the product itself says was done: a run that harms no worker and no instance is judged by more than the database.

`chaos/once` writes a line for each migration, start and end. Of each instance these lines must be those that its jobs ask for, in
their order: not one more, not one less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.load import Accepted

PRODUCT = Path(__file__).parent / "once" / "compose.yaml"
_DOES: Mapping[str, tuple[str, ...]] = {
    "create": ("migrated", "started"),
    "start": ("started",),
    "stop": ("ended",),
    "delete": ("ended",),  # of an instance that runs; no customer stops one and then deletes it
    "purge": (),
}


@dataclass(frozen=True)
class Executions:
    """`seen`: the lines of each instance, by its name. `by_worker`: jobs that each worker claimed; `by_copy`: answers of each
    control plane to the customers.
    """

    seen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    by_worker: Mapping[str, int] = field(default_factory=dict)
    by_copy: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(len(lines) for lines in self.seen.values())


def read(folder: Path) -> dict[str, list[str]]:
    return {path.name: path.read_text().split() for path in sorted(folder.iterdir())}


def differences(executions: Executions, accepted: Sequence[Accepted], ended: Mapping[str, str]) -> Iterator[str]:
    """What was not done just once, a sentence each."""
    asked: dict[str, list[str]] = {}
    for each in accepted:
        if ended.get(each.job_id) == "succeeded":
            asked.setdefault(each.name, []).extend(_DOES[each.verb])
        else:
            yield f"P1: {each.verb} of {each.name} is {ended.get(each.job_id, 'open')}, and no worker was harmed"
    for name in sorted(asked.keys() | executions.seen.keys()):
        want, saw = asked.get(name, []), list(executions.seen.get(name, []))
        if want != saw:
            yield f"P2: {name} saw {' '.join(saw) or 'nothing'}; its jobs ask for {' '.join(want) or 'nothing'}"


def idle(executions: Executions) -> Iterator[str]:
    """Who took no part."""
    for part, count in (*executions.by_worker.items(), *executions.by_copy.items()):
        if count == 0:
            yield f"P19: {part} took no part"

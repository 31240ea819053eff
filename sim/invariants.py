"""The promises of DESIGN §4 as checks over what the world exposes: one registry, judged after every change and at the end.

An invariant speaks of one type of watched thing (`over`). It is made once for each such thing and called again and again, so that
it can keep its place in a ledger; it yields a sentence for everything that is wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from sim.twins.provider import Act, MemoryTarget
from sim.twins.store import MemoryDatabase
from sim.world import Violation, World
from spectrum.core.ids import InstanceId
from spectrum.providers.protocol import Strength

T = TypeVar("T")
Check = Callable[[], Iterable[str]]

PROMISES = {
    "P1": "an accepted job reaches a terminal state, once what it depends on answers again or is declared gone",
    "P2": "at most one live external resource per slot",
    "P3": "once faults stop, the target's inventory equals the desired set",
    "P4": "no write, callback or provider call with a stale fence ever has an effect",
    "P5": "every transition is in the table, and raises the version by one; terminal is final",
    "P6": "an event is published if and only if its transaction committed",
    "P7": "a consumer applies one subject's events in order, each once; a gap is reconciled, never skipped",
    "P8": "replaying the whole log, shuffled and half duplicated, changes no row",
    "P9": "one Idempotency-Key, one job, the same answer",
    "P10": "every mutation leaves an audit row in its own transaction; the sealed chain verifies offline",
    "P11": "no organization reads or changes another's rows",
    "P12": "quotas and budgets are never exceeded, under any concurrency",
    "P13": "a forged, replayed, expired or altered callback changes nothing; an honest retry is not refused",
    "P14": "retries add at most 10 % to a dependency's successful calls, or 10 calls a minute",
    "P15": "a bad release ends on the last good one, with the customer's data intact",
    "P16": "nothing is deleted on a guess",
    "P17": "safety never depends on clocks being right",
    "P18": "no secret in a log, event, trace, error, process list or Kafka record",
    "P19": "a poison message or job is set aside; its neighbours go on",
    "P20": "every waiting thing can say what it waits for, since when, until when at most, and who could unblock it",
}


class When(StrEnum):
    EACH_CHANGE = "after every step that changed something"
    END = "when everything has come to its end"


@dataclass(frozen=True, slots=True)
class Invariant:
    promise: str
    says: str
    over: type[Any]
    when: When
    make: Callable[[Any], Check]


REGISTRY: list[Invariant] = []


def invariant(
    promise: str, over: type[T], when: When = When.EACH_CHANGE
) -> Callable[[Callable[[T], Check]], Callable[[T], Check]]:
    """Register a factory of checks. Its docstring is the sentence that a report quotes."""
    if promise not in PROMISES:
        raise ValueError(f"unknown promise {promise!r}: DESIGN §4 has P1 to P{len(PROMISES)}")

    def register(make: Callable[[T], Check]) -> Callable[[T], Check]:
        REGISTRY.append(Invariant(promise, (make.__doc__ or "").strip(), over, when, make))
        return make

    return register


OBSERVERS: list[tuple[type[Any], Callable[[Any], Callable[[], None]]]] = []


def observer(over: type[T]) -> Callable[[Callable[[T], Callable[[], None]]], Callable[[T], Callable[[], None]]]:
    """Register a factory of what looks on after every change and finds nothing wrong: it says which rare situations were met."""

    def register(make: Callable[[T], Callable[[], None]]) -> Callable[[T], Callable[[], None]]:
        OBSERVERS.append((over, make))
        return make

    return register


def unread(ledger: list[T]) -> Callable[[], list[T]]:
    """A reader that keeps its place: each call answers what was appended since the call before."""
    place = 0
    nothing: list[T] = []

    def read() -> list[T]:
        nonlocal place
        if place == len(ledger):
            return nothing
        new, place = ledger[place:], len(ledger)
        return new

    return read


def unwatched() -> tuple[str, ...]:
    """The promises that no invariant checks."""
    checked = {invariant.promise for invariant in REGISTRY}
    return tuple(promise for promise in PROMISES if promise not in checked)


class Judge:
    """Calls the invariants of one world, each where what it speaks of may have changed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._eyes: list[Eye] = []
        self._known = 0
        self._add(world)

    def after_change(self, changed: set[object]) -> None:
        """Judge what has changed: `None`, or the ids of things.

        Raises Violation, naming the promise.
        """
        self._refuse_complaints()
        for eye in self._eyes:
            if eye.of is None or eye.of in changed or None in changed:
                eye.look(When.EACH_CHANGE)

    def at_the_end(self) -> None:
        """Raises Violation, naming the promise."""
        self.after_change({None})
        for eye in self._eyes:
            eye.look(When.END)

    def _refuse_complaints(self) -> None:
        if self._world.verdict is not None:
            raise self._world.verdict
        if self._world.loop.complaints:
            raise Violation("exception", self._world.loop.complaints[0])
        while self._known < len(self._world.watched):
            self._add(self._world.watched[self._known])
            self._known += 1

    def _add(self, thing: object) -> None:
        eye = Eye(id(thing) if isinstance(thing, ALONE) else None)
        for known in REGISTRY:
            if isinstance(thing, known.over):
                eye.checks[known.when].append((known.promise, known.make(thing)))
        eye.observers += [make(thing) for over, make in OBSERVERS if isinstance(thing, over)]
        self._eyes.append(eye)


ALONE = (MemoryTarget, MemoryDatabase)
"""Things that say of themselves when they change; whatever else is watched is looked at after every change."""


@dataclass
class Eye:
    """What looks at one thing: at `of` alone (its id), or at all that there is."""

    of: int | None
    observers: list[Callable[[], None]] = field(default_factory=list)
    checks: dict[When, list[tuple[str, Check]]] = field(default_factory=lambda: {when: [] for when in When})

    def look(self, when: When) -> None:
        for look in self.observers:
            look()
        for promise, check in self.checks[when]:
            for what in check():
                raise Violation(promise, what)


@invariant("P2", MemoryTarget)
def one_thing_per_slot(target: MemoryTarget) -> Check:
    """No slot of a target ever holds two things."""

    def check() -> Iterator[str]:
        held = Counter((thing.call.instance, thing.call.slot) for thing in target.things.values())
        for (instance, slot), count in held.items():
            if count > 1:
                keys = sorted(thing.call.key for thing in target.living(instance, slot))
                yield f"{slot} of {instance} holds {count} things at once: {', '.join(keys)}"

    return check


@invariant("P4", MemoryTarget)
class StaleCallsHaveNoEffect:
    """On an atomic target nothing is made, started or removed under a lower fence, or by a lower token, than one that was there."""

    _EFFECTS = frozenset({Act.MADE, Act.STARTED, Act.REMOVED})

    def __init__(self, target: MemoryTarget) -> None:
        self._target = target
        self._new = unread(target.ledger)
        self._fences: defaultdict[InstanceId, int] = defaultdict(int)
        self._tokens: defaultdict[tuple[InstanceId, str], int] = defaultdict(int)

    def __call__(self) -> Iterator[str]:
        if self._target.strength is not Strength.ATOMIC:
            return
        for entry in self._new():
            call = entry.call
            slot = (call.instance, call.slot)
            if entry.act in self._EFFECTS and call.fence < self._fences[call.instance]:
                yield (
                    f"{call.slot} of {call.instance} was {entry.act.value} under fence {call.fence}, "
                    f"after fence {self._fences[call.instance]} had reached the target"
                )
            if entry.act in self._EFFECTS and call.token < self._tokens[slot]:
                yield (
                    f"{call.slot} of {call.instance} was {entry.act.value} by token {call.token}, "
                    f"after token {self._tokens[slot]} had reached the target"
                )
            self._fences[call.instance] = max(self._fences[call.instance], call.fence)
            if call.fence >= self._fences[call.instance]:  # what a zombie brings counts for nothing
                self._tokens[slot] = max(self._tokens[slot], call.token)

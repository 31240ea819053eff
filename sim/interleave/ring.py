"""The ring: any two transactions of the catalogue, one on each of two control planes, interleaved as a seed says, then judged."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from sim.choices import Choices
from sim.interleave import checks
from sim.interleave.catalogue import CATALOGUE, Transaction
from sim.interleave.conductor import Conductor, Order, Seeded, Stuck, Tally
from sim.interleave.copies import Copy
from sim.interleave.locks import Recorder
from sim.interleave.scenes import Scene, Stage
from sim.interleave.state import States
from sim.ledger import Run
from spectrum.control.commands import Reply
from spectrum.core.errors import Problem
from spectrum.core.jobs.commands import Holding
from spectrum.core.jobs.store import Unavailable
from spectrum.db.leading import LeadLost
from spectrum.db.pools import Role

TRIES = 8  # of somebody who is told that the database does not answer
RECORD_EVERY = 16  # interleavings; and every transaction alone
LEFT, RIGHT = "left", "right"

Pair = tuple[str, ...]
Served = tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """A definite no."""

    slug: str


@dataclass
class Outcome:
    """What one interleaving came to. `anomalies` is empty where all is well."""

    seed: int
    pair: Pair
    scene: str
    tally: Tally
    anomalies: list[str]
    story: list[str]
    answers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Equal for two interleavings in which the same happened in the same order."""
        return hashlib.sha256("\n".join(self.story).encode()).hexdigest()[:16]

    def said(self, side: str) -> str:
        """What one side was answered, in a word."""
        return _said(self.answers[side])

    def without_answers(self) -> Outcome:
        """Light enough to travel between processes."""
        return replace(self, answers={})


@dataclass
class Summary:
    """The sums over many interleavings."""

    pairs: set[Pair] = field(default_factory=set)
    interleavings: int = 0
    tally: Tally = field(default_factory=Tally)
    anomalies: int = 0
    cycles: set[str] = field(default_factory=set)
    queries: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.pairs.add(outcome.pair)
        self.interleavings += 1
        self.tally += outcome.tally
        self.anomalies += bool(outcome.anomalies)

    def close(self, ring: Ring) -> None:
        """What the ring knows at the end, over all its interleavings."""
        self.queries += ring.conductor.seen
        self.cycles |= set(ring.locks.cycles())

    def merge(self, other: Summary) -> None:
        self.pairs |= other.pairs
        self.interleavings += other.interleavings
        self.tally += other.tally
        self.anomalies += other.anomalies
        self.cycles |= other.cycles
        self.queries += other.queries

    def as_run(self) -> Run:
        """The line of the ledger of proof."""
        tally = self.tally
        return Run(
            "ring2",
            f"{len(self.pairs)} of {len(pairs())} pairs",
            self.interleavings,
            "interleavings",
            violations=self.anomalies + len(self.cycles),
            faults=tally.faults,
            extra={"statements": tally.steps, "waits": tally.waits, "deadlocks": tally.deadlocks},
        )

    def as_json(self) -> dict[str, Any]:
        """The sums, for programs."""
        return {
            "pairs": len(self.pairs),
            "pairs_in_all": len(pairs()),
            "interleavings": self.interleavings,
            "statements": self.tally.steps,
            "waits": self.tally.waits,
            "deadlocks": self.tally.deadlocks,
            "faults": dict(sorted(self.tally.faults.items())),
            "anomalies": self.anomalies,
            "cycles": sorted(self.cycles),
        }


def pairs(names: list[str] | None = None) -> list[Pair]:
    """All unordered pairs, with itself too. Generated: what is in the catalogue is in here."""
    return list(combinations_with_replacement(sorted(CATALOGUE) if names is None else names, 2))


def solos() -> list[tuple[str, str]]:
    """Every transaction, in each of its scenes."""
    return [(name, scene) for name, entry in sorted(CATALOGUE.items()) for scene in entry.scenes]


def scenes_of(pair: Pair) -> list[str]:
    """Where both matter; where there is no such scene, where either does."""
    first, second = (CATALOGUE[name].scenes for name in pair)
    return [scene for scene in first if scene in second] or sorted({*first, *second})


def meeting(seed: int) -> tuple[Pair, str]:
    """Who meets where: seeds go round all pairs, and with every round on to the next scene of each."""
    everything = pairs()
    round_, place = divmod(seed, len(everything))
    scenes = scenes_of(everything[place])
    return everything[place], scenes[round_ % len(scenes)]


@dataclass
class Ring:
    """One database with everything that is needed to interleave on it."""

    admin: Any
    conductor: Conductor
    states: States
    scenes: Mapping[str, Scene]
    copies: Mapping[str, Copy]
    locks: Recorder
    _serial: dict[tuple[Pair, str], set[Served]] = field(default_factory=dict)

    async def interleave(self, seed: int, pair: Pair | None = None, scene: str | None = None) -> Outcome:
        """One interleaving, and its judgement."""
        drawn_pair, drawn_scene = meeting(seed)
        pair, scene = pair or drawn_pair, scene or drawn_scene
        order = Seeded(Choices(seed))
        with self._recording(" beside ".join(pair)) if seed % RECORD_EVERY == 0 else nullcontext():
            outcome = await self._run(seed, pair, scene, order)
        if not outcome.anomalies:
            outcome.anomalies += await self._judge(outcome, order)
        return outcome

    async def record_locks(self) -> list[str]:
        """Every transaction alone, in each of its scenes: the cycles in the order in which all of them take their locks."""
        for name, scene in solos():
            await self.alone(name, scene)
        return self.locks.cycles()

    async def alone(self, name: str, scene: str) -> Outcome:
        """One transaction, with nobody beside it, and its locks recorded."""
        with self._recording(name):
            outcome = await self._run(0, (name,), scene, Order())
        if not outcome.anomalies:
            outcome.anomalies += await checks.broken(self.admin, scene)
        return outcome

    @contextmanager
    def _recording(self, who: str) -> Iterator[None]:
        self.locks.begin(who)
        self.conductor.watch = self.locks.watch
        try:
            yield
        finally:
            self.conductor.watch = None

    async def _run(self, seed: int, pair: Pair, scene: str, order: Order, first: str = LEFT) -> Outcome:
        self.conductor.now = await self.states.restore(scene)
        here = self.scenes[scene]
        sides = dict(zip((LEFT, RIGHT), (CATALOGUE[name] for name in pair), strict=False))
        for copy in self.copies.values():
            copy.begin(str(seed))
        actors = {
            name: _until_answered(sides[name], self.copies[name], here)
            for name in sorted(sides, key=lambda n: n != first)
        }
        try:
            answers = await self.conductor.run(actors, order)
            anomalies = [
                f"{sides[n].name} ({n}) ended with {a!r}" for n, a in answers.items() if isinstance(a, BaseException)
            ]
        except Stuck as stuck:
            answers, anomalies = {}, [f"stuck: {stuck}"]
        for copy in self.copies.values():
            await copy.end()
        return Outcome(seed, pair, scene, self.conductor.tally, anomalies, self.conductor.story, answers)

    # ---- judging

    async def _judge(self, outcome: Outcome, order: Seeded) -> list[str]:
        found = await checks.broken(self.admin, outcome.scene)
        found += _held_twice(outcome.answers)
        whole = not order.faulty and all(CATALOGUE[name].whole for name in outcome.pair)
        came = await self._served(outcome) if whole else ()
        found += await self._repeats(outcome)
        if whole:
            found += _unlike(came, await self._serial_orders(outcome.pair, outcome.scene))
        return found

    async def _serial_orders(self, pair: Pair, scene: str) -> set[Served]:
        """What the pair comes to, one after the other."""
        if (pair, scene) not in self._serial:
            self._serial[pair, scene] = {await self._one_after_the_other(pair, scene, first) for first in (LEFT, RIGHT)}
        return self._serial[pair, scene]

    async def _one_after_the_other(self, pair: Pair, scene: str, first: str) -> Served:
        return await self._served(await self._run(0, pair, scene, Order(), first))

    async def _served(self, outcome: Outcome) -> Served:
        answers = [f"{name}: {_said(outcome.answers[name])}" for name in sorted(outcome.answers)]
        return (*answers, *await self.states.picture())

    async def _repeats(self, outcome: Outcome) -> list[str]:
        """Whoever asks again under the same key gets the same answer, and nothing is done again (P9)."""
        found: list[str] = []
        for side, name in zip((LEFT, RIGHT), outcome.pair, strict=True):
            entry, answer = CATALOGUE[name], outcome.answers.get(side)
            if entry.keyed and isinstance(answer, Reply):
                self.copies[side].begin(f"{outcome.seed}/again")
                again = await _until_answered(entry, self.copies[side], self.scenes[outcome.scene])
                if not isinstance(again, Reply) or (again.status, again.body) != (answer.status, answer.body):
                    found.append(f"P9: {name} ({side}) was answered {answer}, and then {again}")
        return found


async def _until_answered(entry: Transaction, copy: Copy, scene: Scene) -> Any:
    """What somebody does who wants an answer: ask again where the database did not give one."""
    for _ in range(TRIES):
        try:
            return await entry.run(copy, scene)
        except (Unavailable, LeadLost):
            continue
        except Problem as problem:
            if problem.slug != "unavailable":
                return Refused(problem.slug)
    return Refused("unavailable")


def _unlike(came: Served, serial: set[Served]) -> list[str]:
    if came in serial:
        return []
    nearest = min(serial, key=lambda other: len(set(other) ^ set(came)))
    lacking, new = sorted(set(nearest) - set(came)), sorted(set(came) - set(nearest))
    return [f"it ended as no serial order does: serially {lacking}, here {new}"]


def _said(answer: Any) -> str:
    """The gist of an answer."""
    match answer:
        case Refused(slug):
            return slug
        case Reply(status=status, repeated=repeated):
            return f"{status}{' again' if repeated else ''}"
        case Holding(job=job, refused=refused):
            return f"{job.state} {dict(refused)}"
        case _:
            return type(answer).__name__


def _held_twice(answers: Mapping[str, Any]) -> list[str]:
    """No job is granted to two under one fence. The same claim again gets the same answer."""
    granted = {
        (held.job.id, held.job.fence, held.job.owner)
        for answer in answers.values()
        if isinstance(answer, list)
        for held in answer
        if isinstance(held, Holding)
    }
    times = Counter((job, fence) for job, fence, _ in granted)
    return [f"P4: job {job} was granted twice under {fence}" for (job, fence), n in times.items() if n > 1]


@asynccontextmanager
async def opened(admin_url: str, database: str, urls: Mapping[Role, str]) -> AsyncIterator[Ring]:
    """A ring on a migrated database that nobody else uses. `admin_url` is a superuser's."""
    url = urlunsplit(urlsplit(admin_url)._replace(path=f"/{database}"))
    # All that is asked once is asked again, however long it is.
    admin: Any = await asyncpg.connect(url, statement_cache_size=400, max_cacheable_statement_size=0)
    conductor = Conductor(admin)
    copies = {name: Copy(name, conductor, urls) for name in (LEFT, RIGHT, "stage")}
    try:
        # PostgreSQL's own detector sleeps: the seed picks the victim.
        await admin.execute(f"ALTER DATABASE {database} SET deadlock_timeout = '1h'")
        states = States(admin)
        conductor.now = await admin.fetchval("SELECT clock_timestamp()")
        stage = copies.pop("stage")
        scenes = await Stage(stage, states).make()
        await stage.close()
        conductor.seen.clear()
        locks = Recorder(admin)
        await locks.prepare()
        yield Ring(admin, conductor, states, scenes, copies, locks)
    finally:
        for copy in copies.values():
            await copy.close()
        await admin.close()

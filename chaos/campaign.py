"""One run from beginning to end: parts up, load and harm together, everything mended, everything ended, judged."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chaos import executions, judge
from chaos.executions import Executions
from chaos.load import PATIENCE, Crowd, Customer, Ledger
from chaos.machine import missing
from chaos.nemesis import DRAWN, Kind, Nemesis, faults, left_out
from chaos.parts import HOST, READY, SERVERS, WORKERS, Cell, ChaosError, cell, wait_until
from chaos.prober import Prober
from chaos.tally import Tally, counted
from chaos.timeline import CLAIMED, Fact, Records, claims, outages
from chaos.watcher import Watcher, facts, starts
from spectrum.sdk.folder import collect

HELLO = Path(__file__).parent.parent / "tests" / "products" / "hello" / "compose.yaml"


@dataclass(frozen=True)
class Wish:
    """`jobs` and `faults`: at least so many; `exactly`: no more faults, so that a slow machine gets done. `lease`: seconds.

    `customers`: instances at once that come and go; `residents`: instances that run throughout.
    """

    seed: int
    jobs: int
    faults: int
    customers: int = 6
    lease: float = 5.0
    only: tuple[Kind, ...] = DRAWN
    residents: int = 2
    exactly: bool = False

    @property
    def bounded(self) -> bool:
        """Whether so many faults are enough, however long the jobs take."""
        return self.exactly or self.faults == 0

    @property
    def spares_workers(self) -> bool:
        """Whether nothing is done for which a step might be done again: then the product itself says how often each was."""
        return self.faults == 0 or self.only == (Kind.AWAY,)


def campaign(wish: Wish, folder: Path) -> Tally:
    """Raises `ChaosError` where the parts don't come up."""
    absent = missing()
    kinds = tuple(kind for kind in wish.only if kind not in left_out(absent))
    with cell(folder, wish.lease, absent) as made, TemporaryDirectory(prefix="spectrum-evidence-") as evidence:
        Path(evidence).chmod(0o1777)  # every instance has an account of its own
        return _Run(wish, made, kinds, Path(evidence)).run(left_out(absent))


@dataclass
class _Run:
    wish: Wish
    made: Cell
    kinds: tuple[Kind, ...]
    evidence: Path
    ledger: Ledger = field(default_factory=Ledger)
    spec: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prober = Prober(self.made.namespaces.of(HOST))
        self.watcher = Watcher(self.made.admin_url, dict(zip(SERVERS, self.made.fronts, strict=True)))
        self.nemesis = Nemesis(self.made, faults(self.wish.seed, self.wish.lease, self.kinds))

    def run(self, absent: Mapping[Kind, str]) -> Tally:
        began = time.monotonic()
        product = _publish(self.made, executions.PRODUCT if self.wish.spares_workers else HELLO)
        self.spec = {"product": product, "target": "local"}
        if self.wish.spares_workers:
            self.spec["parameters"] = {"evidence": str(self.evidence)}
        broken = [*self._live(), *self._afterwards()]
        return self._tally(absent, time.monotonic() - began, broken)

    def _live(self) -> list[str]:
        """From the first instance to the last; what was broken by the end of the faults."""
        wish, made = self.wish, self.made
        with self.watcher.watching(), self.prober.probing():
            residents = self._settle()
            _say("the residents live")
            asyncio.run(judge.keep(made.admin_url))
            crowd = Crowd([self._customer(number, self._on) for number in range(wish.customers)])
            with crowd.at_work():
                wait_until(lambda: len(self.ledger.accepted) >= wish.customers, PATIENCE, "a job of every customer")
                self.nemesis.rage(lambda: crowd.busy() and (self._more_faults() if wish.bounded else self._on()))
                _say(f"{self.nemesis.begun} faults, {len(self.ledger.accepted)} jobs; everything is mended")
                _await_end(made, crowd)
            _say("every job has ended")
            broken = judge.all_of_it(made.admin_url, made.target, self.ledger)
            for name in residents.names:
                self.prober.forget(name)
        residents.customer.leave(residents.names)
        return broken

    def _on(self) -> bool:
        return len(self.ledger.accepted) < self.wish.jobs or self._more_faults()

    def _more_faults(self) -> bool:
        return self.nemesis.begun < self.wish.faults

    def _afterwards(self) -> Iterator[str]:
        yield from asyncio.run(judge.inventory_is_what_is_wanted(self.made.admin_url, self.made.target))
        yield from asyncio.run(judge.purged_means_gone(self.made.admin_url))
        yield from judge.history_is_whole(self.made)
        yield from self.watcher.broken()
        if self.wish.spares_workers:
            yield from executions.differences(self._executions(), self.ledger.accepted, self.ledger.ended)
        if not self.wish.faults:
            yield from asyncio.run(judge.without_faults(self.made.admin_url))
            yield from executions.idle(self._executions())

    def _executions(self) -> Executions:
        workers = _worker_ids(self.made)
        held = Counter(fact.worker for told in self._facts().values() for fact in told if fact.type == CLAIMED)
        return Executions(
            seen=executions.read(self.evidence),
            by_worker={name: held[worker] for name, worker in workers.items()},
            by_copy={name: self.ledger.answered.count(name) for name in SERVERS},
        )

    def _tally(self, absent: Mapping[Kind, str], seconds: float, broken: Sequence[str]) -> Tally:
        made, ledger, prober, nemesis = self.made, self.ledger, self.prober, self.nemesis
        out = outages(nemesis.done, self._answers())
        again = list(claims(out, self._records()))
        return Tally(
            seed=self.wish.seed,
            lease=self.wish.lease,
            seconds=seconds,
            faults=counted(each.fault.kind.value for each in nemesis.done),
            left_out={kind.value: reason for kind, reason in absent.items()},
            jobs=counted(f"{each.verb} {ledger.ended.get(each.job_id, 'open')}" for each in ledger.accepted),
            failed=counted(_kind(message) for message in ledger.failed.values()),
            refused=len(ledger.refused),
            spooled=nemesis.spooled,
            attempts=asyncio.run(judge.attempts(made.admin_url)),
            executions=self._executions(),
            to_answer=[outage.seconds_to_answer for outage in out],
            claims=[claim.waited for claim in again],
            calm_claims=[claim.calm for claim in again],
            asked=prober.asked,
            slowest=prober.slowest,
            latest=prober.latest,
            unanswered=prober.failures,
            not_measured=prober.not_measured,
            restarted={part.name: len(part.ended_by_itself) for part in made.parts.values()},
            checks=judge.COUNT + (0 if self.wish.faults else len(judge.ONCE)),
            broken=broken,
        )

    def _records(self) -> Records:
        return Records(self.watcher.renewals, self._facts(), self.watcher.seen, _worker_ids(self.made))

    def _answers(self) -> Mapping[str, Sequence[float]]:
        """When each part answered; of a worker, when its incarnations began."""
        begun = asyncio.run(starts(self.made.admin_url))
        workers = {name: begun.get(worker, ()) for name, worker in _worker_ids(self.made).items()}
        return {**self.watcher.answered, **workers}

    def _facts(self) -> Mapping[str, Sequence[Fact]]:
        return asyncio.run(facts(self.made.admin_url))

    def _settle(self) -> Residents:
        """Instances that nobody touches: they have to answer from the first fault to the last."""
        customer = self._customer(self.wish.customers, lambda: False)
        names = tuple(f"resident-{number}" for number in range(self.wish.residents))
        for name in names:
            if customer.act("create", name) != "succeeded":
                raise ChaosError(f"The instance {name} did not come to be, before any fault: {self.ledger.failed}.")
            customer.probe(name)
        return Residents(customer, names)

    def _customer(self, number: int, on: Callable[[], bool]) -> Customer:
        chance = random.Random(self.wish.seed * 1_000 + number)
        return Customer(number, self.made, self.spec, self.ledger, self.prober, on, chance)


@dataclass(frozen=True)
class Residents:
    customer: Customer
    names: tuple[str, ...]


def _kind(message: str) -> str:
    """What failures of one kind have in common: the words without names and numbers."""
    return re.sub(r"\d+|\S*-\S*|\S*/\S*", "…", message)[:100]


def _say(what: str) -> None:
    print(f"{time.strftime('%T')} {what}", file=sys.stderr, flush=True)


def _publish(made: Cell, file: Path) -> str:
    """The product's name."""
    bundle = collect(file)
    with made.client(patience=60) as client:
        client.products.publish(bundle.product, bundle.file, bundle.files)
    return bundle.product


def _await_end(made: Cell, crowd: Crowd) -> None:
    def ended() -> bool:
        made.look_after()
        return not crowd.busy()

    wait_until(ended, 2 * PATIENCE, "the end of every job")
    wait_until(made.ready, READY, "readiness of both control planes")


def _worker_ids(made: Cell) -> dict[str, str]:
    homes = {name: Path(made.parts[name].environment["SPECTRUM_HOME"]) for name in WORKERS}
    return {name: json.loads((home / "worker.json").read_text())["worker_id"] for name, home in homes.items()}

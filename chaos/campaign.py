"""One run from beginning to end: parts up, load and harm together, everything mended, everything ended, judged."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from chaos import judge
from chaos.load import PATIENCE, SPEC, Crowd, Customer, Ledger
from chaos.machine import missing
from chaos.nemesis import DRAWN, Kind, Nemesis, faults, left_out
from chaos.parts import HOST, READY, WORKERS, Cell, ChaosError, cell, wait_until
from chaos.prober import Prober
from chaos.tally import Tally, counted
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


def campaign(wish: Wish, folder: Path) -> Tally:
    """Raises `ChaosError` where the parts don't come up."""
    absent = missing()
    kinds = tuple(kind for kind in wish.only if kind not in left_out(absent))
    with cell(folder, wish.lease, absent) as made:
        return _run(wish, made, kinds, left_out(absent))


def _run(wish: Wish, made: Cell, kinds: tuple[Kind, ...], absent: Mapping[Kind, str]) -> Tally:
    ledger, prober, watcher = Ledger(), Prober(made.namespaces.of(HOST)), Watcher(made.admin_url)
    _publish(made)
    nemesis = Nemesis(made, faults(wish.seed, wish.lease, kinds))

    def on() -> bool:
        return len(ledger.accepted) < wish.jobs or nemesis.begun < wish.faults

    began = time.monotonic()
    with watcher.watching(), prober.probing():
        residents = _settle(wish, made, ledger, prober)
        _say("the residents live")
        asyncio.run(judge.keep(made.admin_url))
        crowd = Crowd([_customer(number, wish, made, ledger, prober, on) for number in range(wish.customers)])
        with crowd.at_work():
            wait_until(lambda: len(ledger.accepted) >= wish.customers, PATIENCE, "a job of every customer")
            nemesis.rage(lambda: crowd.busy() and (nemesis.begun < wish.faults if wish.bounded else on()))
            _say(f"{nemesis.begun} faults, {len(ledger.accepted)} jobs; everything is mended")
            _await_end(made, crowd)
        _say("every job has ended")
        broken = judge.all_of_it(made.admin_url, made.target, ledger)
        for name in residents.names:
            prober.forget(name)
    residents.customer.leave(residents.names)
    broken += asyncio.run(judge.inventory_is_what_is_wanted(made.admin_url, made.target))
    broken += asyncio.run(judge.purged_means_gone(made.admin_url))
    broken += judge.history_is_whole(made)
    broken += list(watcher.broken())
    told, begun = asyncio.run(facts(made.admin_url)), asyncio.run(starts(made.admin_url))
    claims = list(watcher.claims(nemesis.done, _worker_ids(made), told, begun))
    return Tally(
        seed=wish.seed,
        lease=wish.lease,
        seconds=time.monotonic() - began,
        faults=counted(each.fault.kind.value for each in nemesis.done),
        left_out={kind.value: reason for kind, reason in absent.items()},
        jobs=counted(f"{each.verb} {ledger.ended.get(each.job_id, 'open')}" for each in ledger.accepted),
        failed=counted(_kind(message) for message in ledger.failed.values()),
        refused=len(ledger.refused),
        spooled=nemesis.spooled,
        attempts=asyncio.run(judge.attempts(made.admin_url)),
        claims=[claim.waited for claim in claims],
        quiet_claims=[claim.quiet for claim in claims],
        asked=prober.asked,
        slowest=prober.slowest,
        unanswered=prober.failures,
        restarted={part.name: len(part.ended_by_itself) for part in made.parts.values()},
        checks=judge.COUNT,
        broken=broken,
    )


@dataclass(frozen=True)
class Residents:
    customer: Customer
    names: tuple[str, ...]


def _settle(wish: Wish, made: Cell, ledger: Ledger, prober: Prober) -> Residents:
    """Instances that nobody touches: they have to answer from the first fault to the last."""
    customer = _customer(wish.customers, wish, made, ledger, prober, lambda: False)
    names = tuple(f"resident-{number}" for number in range(wish.residents))
    for name in names:
        if customer.act("create", name) != "succeeded":
            raise ChaosError(f"The instance {name} did not come to be, before any fault: {ledger.failed}.")
        customer.probe(name)
    return Residents(customer, names)


def _customer(number: int, wish: Wish, made: Cell, ledger: Ledger, prober: Prober, on: Callable[[], bool]) -> Customer:
    return Customer(number, made, ledger, prober, on, random.Random(wish.seed * 1_000 + number))


def _kind(message: str) -> str:
    """What failures of one kind have in common: the words without names and numbers."""
    return re.sub(r"\d+|\S*-\S*|\S*/\S*", "…", message)[:100]


def _say(what: str) -> None:
    print(f"{time.strftime('%T')} {what}", file=sys.stderr, flush=True)


def _publish(made: Cell) -> None:
    bundle = collect(HELLO)
    with made.client(patience=60) as client:
        client.products.publish(bundle.product, bundle.file, bundle.files)
    assert bundle.product == SPEC["product"]


def _await_end(made: Cell, crowd: Crowd) -> None:
    def ended() -> bool:
        made.look_after()
        return not crowd.busy()

    wait_until(ended, 2 * PATIENCE, "the end of every job")
    wait_until(made.ready, READY, "readiness of both control planes")


def _worker_ids(made: Cell) -> dict[str, str]:
    homes = {name: Path(made.parts[name].environment["SPECTRUM_HOME"]) for name in WORKERS}
    return {name: json.loads((home / "worker.json").read_text())["worker_id"] for name, home in homes.items()}

"""The simulator's commands: `python -m sim run --seeds A-B`, `replay SEED | --tape FILE`, `digests SEED …`, and ring 2:
`pairs --seeds A-B`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from sim import ledger, marks, report, scenarios
from sim.choices import Tape
from sim.run import Outcome, run
from sim.shrink import shrink

CHUNK = 25  # seeds that a process runs before it hands back
AGAIN_EVERY = 99  # seeds: no multiple of the number of modes
AGAIN_TOGETHER = 10  # seeds in one fresh process


def main() -> int:
    arguments = _parser().parse_args()
    try:
        return int(arguments.command(arguments))
    except (LookupError, ValueError, OSError) as error:
        print(f"sim: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim", description="Run SPECTRUM in a seeded world.")
    parser.add_argument("--scenario", default=next(iter(scenarios.SCENARIOS)), help="a name, or module:function")
    verbs = parser.add_subparsers(required=True)
    running = verbs.add_parser("run", help="run seeds, shrink and keep what fails")
    running.add_argument("--seeds", type=_seeds, required=True, metavar="A-B")
    running.add_argument("--jobs", type=int, default=1, help="processes side by side")
    running.add_argument("--keep", type=int, default=3, help="how many failures to shrink and keep")
    running.add_argument("--budget", type=int, default=600, help="reruns that shrinking a failure may take")
    running.add_argument("--tapes", type=Path, default=Path(".cache/tapes"), help="where failing tapes go")
    running.add_argument(
        "--for", type=float, default=0.0, dest="seconds", help="begin nothing more after so many seconds"
    )
    running.add_argument("--marks", action="store_true", help="fail where a rare situation was never met")
    running.add_argument("--again", action="store_true", help="run 1 %% of the seeds once more, in fresh processes")
    running.add_argument("--ledger", action="store_true", help="add the run to docs/proof")
    running.set_defaults(command=_run)
    repeating = verbs.add_parser("digests", help="print the trace hashes of seeds")
    repeating.add_argument("these", type=int, nargs="+", metavar="SEED")
    repeating.set_defaults(command=_digests)
    replaying = verbs.add_parser("replay", help="run one seed or tape again and tell its story")
    replaying.add_argument("seed", type=int, nargs="?")
    replaying.add_argument("--tape", type=Path)
    replaying.set_defaults(command=_replay)
    pairing = verbs.add_parser("pairs", help="interleave pairs of transactions on a real PostgreSQL (ring 2)")
    pairing.add_argument("--seeds", type=_seeds, required=True, metavar="A-B", help="one seed alone tells its story")
    pairing.add_argument("--jobs", type=int, default=1, help="processes side by side")
    pairing.add_argument(
        "--seconds", type=float, help="begin no other interleaving after so long; the sums are of what was done"
    )
    pairing.add_argument("--json", type=Path, help="where to write the sums")
    pairing.add_argument("--ledger", action="store_true", help="add the run to docs/proof")
    pairing.set_defaults(command=_pairs)
    return parser


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _run(arguments: argparse.Namespace) -> int:
    scenarios.find(arguments.scenario)  # a wrong name is told before any process starts
    started, failures, totals = time.perf_counter(), 0, Totals()
    until = started + arguments.seconds if arguments.seconds else None
    for outcome in _outcomes(arguments.scenario, arguments.seeds, arguments.jobs, until):
        totals.add(outcome)
        if outcome.violation is not None:
            failures += 1
            print(report.verdict(outcome), flush=True)
            if failures <= arguments.keep:
                _keep(arguments, outcome)
    again = _again(arguments, totals.digests) if arguments.again else Again()
    print(totals.summary(arguments.scenario, time.perf_counter() - started, failures))
    for seed in again.differ:
        print(f"seed {seed} took other steps in a fresh process: something in it is no choice of the seed")
    if again.count:
        print(f"  {again.count} seeds were run twice, the second time in a fresh process: {len(again.differ)} differ")
    missed = totals.missed if arguments.marks else ()
    if missed:
        print(f"  {len(missed)} of the rare situations were met by no seed: run more, or mend what keeps them away")
    failures += len(again.differ)
    if arguments.ledger:
        ledger.add(totals.as_run(arguments.scenario, failures, again.count))
    return 1 if failures or missed else 0


def _keep(arguments: argparse.Namespace, outcome: Outcome) -> None:
    scenario = scenarios.find(arguments.scenario)
    # The outcome came without its tape: it is drawn anew from the seed.
    failing = run(scenario, outcome.seed)
    smallest = shrink(failing, lambda tape: run(scenario, outcome.seed, tape), arguments.budget)
    path = arguments.tapes / f"{arguments.scenario.replace(':', '-')}-{outcome.seed}.json"
    report.save(path, arguments.scenario, smallest)
    print(f"  shrunk to {sum(map(len, smallest.tape.values()))} choices: python -m sim replay --tape {path}\n")


def _replay(arguments: argparse.Namespace) -> int:
    tape: Tape | None = None
    name, seed = arguments.scenario, arguments.seed
    if arguments.tape is not None:
        name, seed, tape = report.load(arguments.tape)
    elif seed is None:
        raise ValueError("replay needs a SEED, or --tape FILE")
    outcome = run(scenarios.find(name), seed, tape)
    print(report.story(outcome))
    return 1 if outcome.violation else 0


def _pairs(arguments: argparse.Namespace) -> int:
    from sim.interleave import command  # the rest of the simulator needs no PostgreSQL

    if len(arguments.seeds) == 1:
        outcome = command.replay(arguments.seeds[0])
        print(command.story(outcome))
        return 1 if outcome.anomalies else 0
    started = time.perf_counter()
    summary, failures = command.run(arguments.seeds, arguments.jobs, arguments.seconds)
    for outcome in failures:
        print(command.story(outcome), end="\n\n")
    sums = json.dumps(summary.as_json(), indent=2)
    if arguments.json is not None:
        arguments.json.write_text(sums + "\n")
    print(sums)
    print(
        f"{summary.interleavings} interleavings of {len(arguments.seeds)} seeds in {time.perf_counter() - started:.1f} s"
    )
    if arguments.ledger:
        ledger.add(summary.as_run())
    return 1 if failures or summary.cycles else 0


def _outcomes(scenario: str, seeds: range, jobs: int, until: float | None) -> Iterator[Outcome]:
    """The outcomes in the order of the seeds. No chunk is begun after `until`."""
    chunks = deque(seeds[begin : begin + CHUNK] for begin in range(0, len(seeds), CHUNK))

    def next_chunk() -> range | None:
        late = until is not None and time.perf_counter() > until
        return chunks.popleft() if chunks and not late else None

    if jobs == 1:
        gc.freeze()
        while (chunk := next_chunk()) is not None:
            yield from _chunk(scenario, chunk)
        return
    # What was loaded so far is no garbage: it is not looked at again and again.
    with ProcessPoolExecutor(jobs, initializer=gc.freeze) as pool:
        running: deque[Future[list[Outcome]]] = deque()
        while True:
            while len(running) < 2 * jobs and (chunk := next_chunk()) is not None:
                running.append(pool.submit(_chunk, scenario, chunk))
            if not running:
                return
            yield from running.popleft().result()


@dataclass(frozen=True)
class Again:
    """Seeds that were run a second time, and those of them that took other steps."""

    count: int = 0
    differ: tuple[int, ...] = ()


def _again(arguments: argparse.Namespace, digests: Mapping[int, str]) -> Again:
    """Run one seed of a hundred in a fresh process, after others than before: its trace must be the same (DESIGN §2)."""
    chosen = [seed for seed in digests if seed % AGAIN_EVERY == 0]
    batches = [chosen[begin : begin + AGAIN_TOGETHER][::-1] for begin in range(0, len(chosen), AGAIN_TOGETHER)]
    afresh: dict[int, str] = {}
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for found in pool.map(_afresh, [arguments.scenario] * len(batches), batches):
            afresh |= found
    return Again(len(chosen), tuple(seed for seed in chosen if afresh[seed] != digests[seed]))


def _afresh(scenario: str, seeds: Sequence[int]) -> dict[int, str]:
    """The digests of seeds in a process of their own, which hashes texts otherwise."""
    command = [sys.executable, "-m", "sim", "--scenario", scenario, "digests", *map(str, seeds)]
    environment = {**os.environ, "PYTHONHASHSEED": str(seeds[0])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(zip(seeds, done.stdout.split(), strict=True))


def _digests(arguments: argparse.Namespace) -> int:
    for seed in arguments.these:
        print(run(scenarios.find(arguments.scenario), seed).digest)
    return 0


def _chunk(scenario: str, seeds: Iterable[int]) -> list[Outcome]:
    """The outcomes of some seeds, light enough to travel between processes."""
    found = scenarios.find(scenario)
    outcomes = [replace(run(found, seed), tape={}, story=()) for seed in seeds]
    gc.collect()
    return outcomes


class Totals:
    """The sums over a range of seeds."""

    def __init__(self) -> None:
        self._seeds = 0
        self._steps = 0
        self._seconds = 0.0
        self._faults: Counter[str] = Counter()
        self._marks: Counter[str] = Counter()
        self._work: Counter[str] = Counter()
        self.digests: dict[int, str] = {}

    @property
    def missed(self) -> tuple[str, ...]:
        """The rare situations that no seed met."""
        return marks.never_reached(self._marks)

    def as_run(self, scenario: str, violations: int, again: int) -> ledger.Run:
        """The line of the ledger."""
        extra = {**self._work, "steps": self._steps} | ({"seeds run twice": again} if again else {})
        faults, met = dict(self._faults), dict(self._marks)
        return ledger.Run(
            "sim", scenario, self._seeds, "seeds", round(self._seconds), violations, faults, met, {}, extra
        )

    def add(self, outcome: Outcome) -> None:
        self.digests[outcome.seed] = outcome.digest
        self._seeds += 1
        self._steps += outcome.steps
        self._seconds += outcome.seconds
        self._faults += outcome.injected
        self._marks += outcome.marks
        self._work += outcome.work

    def summary(self, scenario: str, took: float, failures: int) -> str:
        return (
            f"{scenario}: {self._seeds} seeds, {failures} failed, "
            f"{', '.join(f'{count} {what}' for what, count in sorted(self._work.items()))}, {self._faults.total()} faults, "
            f"{self._seconds / 3600:.1f} h of virtual time, {self._steps} steps in {took:.1f} s "
            f"({self._seeds / took:.0f} seeds/s, {self._steps / took:.0f} steps/s)\n" + report.missing(self.missed)
        ).rstrip()


if __name__ == "__main__":
    sys.exit(main())

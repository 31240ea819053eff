"""The ledger of proof: what every ring has run and found, one JSON line a run, summed up in `docs/proof.md`.

Tools of all rings call `add` (or `python -m sim ledger …`); the page is made from the lines by `make docs`, and its freshness is
checked. Sums grow from run to run: lines are appended and never changed.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs"
LINES = FOLDER / "proof.jsonl"
PAGE = FOLDER / "proof.md"
SHOWN = 20  # runs

RINGS = {
    "sim": "1: the whole system in one process, seeded, in virtual time",
    "ring2": "2: real PostgreSQL, statements interleaved by the seed",
    "chaos": "3: real processes, real faults",
    "sagas": "the saga harness: every situation of every operation",
    "mutants": "planted bugs",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one ring.

    `count` is of `unit`: seeds, interleavings, jobs, situations. `seconds` are virtual where the ring has virtual time. `mutants`:
    by planted bug, how it was found (empty: it survived). `extra`: other sums, such as the jobs that were played, so that a small
    seed can't pass for a large one. Fields are only ever added, at the end and with a default: lines of old runs have to be read.
    """

    ring: str
    what: str
    count: int
    unit: str = "seeds"
    seconds: float = 0.0
    violations: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)
    mutants: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, int] = field(default_factory=dict)
    commit: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug in production code that a ring has found. `seed` brings it back at the commit before the mend; `mended` is the mend."""

    ring: str
    seed: str
    promise: str
    what: str
    mended: str = ""


def add(entry: Run | Bug, lines: Path = LINES, page: Path | None = PAGE) -> None:
    """Append to the ledger, and make its page anew. A run without a commit is one of the checked out state.

    Raises ValueError for a ring that is not in `RINGS`.
    """
    kind = "run" if isinstance(entry, Run) else "bug"
    # Not `asdict`, which makes counts of pairs out of a Counter.
    document = {"kind": kind, **{each.name: getattr(entry, each.name) for each in fields(entry)}}
    if isinstance(entry, Run):
        if entry.ring not in RINGS:
            raise ValueError(f"no ring {entry.ring!r}: use one of {', '.join(RINGS)}")
        document |= {"commit": entry.commit or commit(), "date": entry.date or _git("log", "-1", "--format=%cs")}
    with lines.open("a", encoding="utf-8") as file:
        file.write(json.dumps({name: value for name, value in document.items() if value}, ensure_ascii=False) + "\n")
    if page is not None:
        page.write_text(render(lines), encoding="utf-8")


def commit() -> str:
    """The commit that is checked out; with a plus where files differ from it (the ledger's own aside)."""
    changed = _git("status", "--porcelain", "--", ".", ":!docs/proof.md", ":!docs/proof.jsonl")
    return _git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def read(lines: Path = LINES) -> tuple[list[Run], list[Bug]]:
    """All runs and bugs, oldest first."""
    runs: list[Run] = []
    bugs: list[Bug] = []
    for text in lines.read_text(encoding="utf-8").splitlines() if lines.exists() else ():
        document = json.loads(text)
        if document.pop("kind") == "run":
            runs.append(Run(**{"count": 0, **document}))
        else:
            bugs.append(Bug(**document))
    return runs, bugs


# ---- the page


def render(lines: Path = LINES) -> str:
    """The page, from the lines."""
    runs, bugs = read(lines)
    return "\n".join(
        [
            "# Proof",
            "",
            "Made from `proof.jsonl` by `make docs`: what the rings have run so far and found. Each tool adds its run with",
            "`LEDGER=1`, such as `make sim LEDGER=1`; nobody writes here by hand.",
            "",
            *_sums(runs),
            *_bugs(bugs),
            *_mutants(runs),
            *_counted("Faults", "fault", _total(run.faults for run in runs)),
            *_counted("Rare situations that were met", "situation", _total(run.marks for run in runs)),
            *_runs(runs),
        ]
    )


def _total(each: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counts in each:
        total.update(counts)
    return total


def _sums(runs: Sequence[Run]) -> list[str]:
    rows = []
    for ring, meaning in RINGS.items():
        for unit in dict.fromkeys(run.unit for run in runs if run.ring == ring):
            own = [run for run in runs if run.ring == ring and run.unit == unit]
            extra = _total(run.extra for run in own)
            rows.append(
                [
                    meaning,
                    f"{sum(run.count for run in own):,} {unit}",
                    f"{_total(run.faults for run in own).total():,}",
                    f"{sum(run.seconds for run in own) / 86_400:,.1f}",
                    str(sum(run.violations for run in own)),
                    "; ".join(f"{count:,} {what}" for what, count in sorted(extra.items())),
                ]
            )
    return _table("Sums", ["ring", "run", "faults", "simulated days", "violations", "also"], rows)


def _bugs(bugs: Sequence[Bug]) -> list[str]:
    rows = [[bug.what, bug.promise, bug.ring, bug.seed, bug.mended] for bug in bugs]
    return _table("Real bugs that the rings found", ["bug", "promise", "ring", "seed", "mended by"], rows)


def _mutants(runs: Sequence[Run]) -> list[str]:
    last = next((run for run in reversed(runs) if run.mutants), None)
    if last is None:
        return []
    rows = [[name, found or "**survived**"] for name, found in last.mutants.items()]
    return _table(f"Planted bugs, at {last.commit}", ["planted", "found by"], rows)


def _counted(title: str, what: str, counts: Counter[str]) -> list[str]:
    rows = [[name, f"{count:,}"] for name, count in sorted(counts.items())]
    return _table(title, [what, "times"], rows)


def _runs(runs: Sequence[Run]) -> list[str]:
    rows = [
        [run.date, run.commit, run.ring, run.what, f"{run.count:,} {run.unit}", str(run.violations)]
        for run in reversed(runs[-SHOWN:])
    ]
    return _table(f"The last {SHOWN} runs", ["commit of", "commit", "ring", "what", "run", "violations"], rows)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [
        f"## {title}",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(line)} |" for line in lines),
        "",
    ]

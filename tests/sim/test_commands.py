"""The simulator's commands, as a developer calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.postgres import PostgresServer
from tests.waiting import wait_until

LONGEST = 120.0  # seconds
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_seeds_that_hold_are_summed_up() -> None:
    done = sim("--scenario", "tests.sim.toy:fenced", "run", "--seeds", "1-6")

    assert done.returncode == 0, done.stderr
    assert "6 seeds, 0 failed" in done.stdout


def test_a_seed_that_fails_is_told_shrunk_and_kept_as_a_tape_that_replays(tmp_path: Path) -> None:
    toy = ("--scenario", "tests.sim.toy:ack_before_commit")
    done = sim(*toy, "run", "--seeds", "1-2", "--keep", "1", "--budget", "40", "--tapes", str(tmp_path))

    assert done.returncode == 1, done.stderr
    assert "broke P1" in done.stdout
    (tape,) = tmp_path.iterdir()
    assert f"replay --tape {tape}" in done.stdout

    replayed = sim("replay", "--tape", str(tape))

    assert replayed.returncode == 1
    assert "works on first from step 0 under fence 1" in replayed.stdout
    assert "broke P1" in replayed.stdout


def test_two_processes_find_what_one_finds() -> None:
    toy = ("--scenario", "tests.sim.toy:ack_before_commit", "run", "--seeds", "1-30", "--keep", "0")
    one, two = sim(*toy), sim(*toy, "--jobs", "2")

    assert one.stdout.count("broke P1") == two.stdout.count("broke P1") > 0


def test_an_unknown_scenario_is_refused_with_the_names_that_there_are() -> None:
    done = sim("--scenario", "nonsense", "run", "--seeds", "1-1")

    assert done.returncode == 2
    assert "everything, system-atomic, system-best-effort" in done.stderr


@pytest.mark.parametrize("limit", [("--seconds", "1"), ()])
def test_pairs_that_are_cut_off_are_summed_up_as_far_as_they_came(
    postgres: PostgresServer, tmp_path: Path, limit: tuple[str, ...]
) -> None:
    sums, seeds = tmp_path / "sums.json", range(1_000_000)
    asked = ["pairs", "--seeds", f"{seeds.start}-{seeds.stop - 1}", "--jobs", "2", "--json", str(sums), *limit]
    running = subprocess.Popen([sys.executable, "-m", "sim", *asked], env=ENVIRONMENT)
    try:
        if not limit:
            wait_until(psutil.Process(running.pid).children, LONGEST)  # PostgreSQL is being made
            running.terminate()
        assert running.wait(LONGEST) == 0
    finally:
        running.kill()
        running.wait()

    told: dict[str, Any] = json.loads(sums.read_text())
    assert told["anomalies"] == 0
    assert told["interleavings"] < len(seeds)

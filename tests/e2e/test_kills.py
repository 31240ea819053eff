"""Parts are killed in the middle of the work: it ends as it should, nothing is there twice, and running instances never notice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from spectrum.sdk import Client, ClientError
from spectrum.sdk.models import Job
from tests.e2e.installation import HELLO, PRODUCTS, SECONDS, Installation, Prober, step_state
from tests.providers.process.host import NOTHING, traces
from tests.waiting import wait_until

KILLS = int(os.environ.get("SPECTRUM_TEST_KILLS", "8"))


def runs_of(client: Client, name: str) -> int:
    """How often the migration of this instance ran, by its own account."""
    with urllib.request.urlopen(f"{client.instances.get(name).url}runs", timeout=10) as answer:
        return len(answer.read().split())


def migrating(installation: Installation, client: Client, name: str) -> Job:
    """A create whose migration has an intent, an effect, and no outcome."""
    job = installation.create(client, name, PRODUCTS / "slow")
    wait_until(lambda: step_state(client, job.id, "migrate-web") == "running", SECONDS)
    written = installation.home.instances / "instances" / job.subject.id / "volumes" / "data" / "runs"
    wait_until(written.exists, SECONDS)
    return job


def migration_of(job: Job) -> list[tuple[str, str | None]]:
    step = next(step for step in job.steps if step.name == "migrate-web")
    return [(attempt.cause, attempt.outcome) for attempt in step.attempts]


def test_a_worker_killed_between_intent_and_outcome_is_followed_by_one_that_finds_the_effect(
    installation: Installation, client: Client
) -> None:
    job = migrating(installation, client, "killed-worker")

    installation.kill("worker")

    ended = client.jobs.wait(job.id, timeout=120)
    assert ended.state == "succeeded"
    assert migration_of(ended) == [("first", "unknown"), ("rescue", "adopted")]
    assert runs_of(client, "killed-worker") == 1
    installation.remove(client, "killed-worker")


def test_a_control_plane_killed_in_the_middle_costs_time_only(installation: Installation, client: Client) -> None:
    job = migrating(installation, client, "killed-server")

    installation.kill("server")

    ended = client.jobs.wait(job.id, timeout=120)
    assert ended.state == "succeeded"
    assert migration_of(ended) == [("first", "done")]
    assert runs_of(client, "killed-server") == 1
    installation.remove(client, "killed-server")


def test_postgresql_killed_in_the_middle_costs_time_only(installation: Installation, client: Client) -> None:
    job = migrating(installation, client, "killed-database")

    installation.kill_postgres()

    ended = client.jobs.wait(job.id, timeout=120)
    assert ended.state == "succeeded"
    assert migration_of(ended) == [("first", "done")]
    assert runs_of(client, "killed-database") == 1
    installation.remove(client, "killed-database")


def second_worker(installation: Installation, client: Client, folder: Path) -> subprocess.Popen[bytes]:
    """Another worker on the same target, with a key of its own."""
    folder.mkdir(mode=0o700)
    token = folder / "join-token"
    token.write_text(f"{client.workers.join_token('local').token}\n")
    environment = {
        **installation.environment(),
        "SPECTRUM_HOME": str(folder),
        "SPECTRUM_URL": installation.home.api_url,
        "SPECTRUM_KEY_FILE": str(folder / "key"),
        "SPECTRUM_JOIN_TOKEN_FILE": str(token),
    }
    target = client.targets.get("local").url
    command = (sys.executable, "-m", "spectrum.cli", "worker", "run", "--target", target)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stderr=log)


def test_a_worker_that_wakes_after_its_lease_is_refused_and_harms_nothing(
    installation: Installation, client: Client, tmp_path: Path
) -> None:
    job = migrating(installation, client, "zombie")
    zombie = installation.pid("worker")
    os.kill(zombie, signal.SIGSTOP)
    other = second_worker(installation, client, tmp_path / "second")
    try:
        ended = client.jobs.wait(job.id, timeout=120)
        os.kill(zombie, signal.SIGCONT)
        wait_until(lambda: all(worker.state == "live" for worker in client.workers.list()), SECONDS)

        log = installation.home.log("worker").read_text()
        assert "incarnation ended" in log
        assert ended.state == "succeeded"
        assert client.jobs.get(job.id).version == ended.version
        assert (migration_of(ended), runs_of(client, "zombie")) == ([("first", "unknown"), ("rescue", "adopted")], 1)
        installation.remove(client, "zombie")
    finally:
        os.kill(zombie, signal.SIGCONT)
        other.terminate()
        other.wait(60)


def test_workers_killed_at_random_leave_nothing_doubled_and_running_instances_answer_throughout(
    installation: Installation, client: Client
) -> None:
    chance = random.Random(20261123)
    demo = client.instances.get("demo")
    ids = []
    with Prober(demo.url).probing() as prober:
        for number in range(KILLS):
            name = f"victim-{number}"
            job = installation.create(client, name, HELLO)
            time.sleep(chance.uniform(0.0, 1.5))
            installation.kill("worker")
            assert client.jobs.wait(job.id, timeout=120).state == "succeeded"
            ids.append(client.instances.get(name).id)
            job = client.instances.delete(name)
            time.sleep(chance.uniform(0.0, 0.5))
            installation.kill("worker")
            client.jobs.wait(job.id, timeout=120)
            client.jobs.wait(client.instances.purge(name).id, timeout=120)
    assert prober.asked > 10 * KILLS
    assert prober.failures == []
    wait_until(lambda: traces(*ids) == NOTHING, 30)


def test_down_stops_everything_and_up_brings_the_same_instances_back(
    installation: Installation, client: Client
) -> None:
    before = client.instances.get("demo")

    installation.down()
    assert traces(before.id, str(installation.home.root)).processes == frozenset()
    with pytest.raises(ClientError):
        client.instances.get("demo")
    installation.up()

    after = client.instances.get("demo")
    assert (after.id, after.url, after.lifecycle) == (before.id, before.url, "running")
    with urllib.request.urlopen(after.url, timeout=10) as answer:
        assert answer.status < 500

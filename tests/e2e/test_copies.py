"""Copies of the control plane come and go behind a plain load balancer: nobody who calls notices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spectrum.sdk import Client, ClientError
from spectrum.sdk.folder import collect
from tests.e2e.copies import Cell, cell
from tests.e2e.installation import HELLO

RESTARTS = 2
PACE = 0.05  # seconds between two calls of one caller
PROMPTLY = 8.0  # seconds: less than the time that is given to what is under way


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    folder = tmp_path_factory.mktemp("copies")
    folder.chmod(0o755)
    with cell(folder) as made:
        yield made


@contextmanager
def beside(*works: Callable[[], object]) -> Iterator[list[Exception]]:
    """Each of these again and again meanwhile, in threads of their own; what they fail with."""
    failures: list[Exception] = []
    over = threading.Event()

    def repeat(work: Callable[[], object]) -> None:
        while not over.wait(PACE):
            try:
                work()
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        over.set()
        for thread in threads:
            thread.join()


def waiting_job(client: Client, name: str) -> str:
    """A job that nobody works on."""
    bundle = collect(HELLO / "compose.yaml")
    client.products.publish(bundle.product, bundle.file, bundle.files)
    if client.targets.find("nowhere") is None:
        client.targets.add("nowhere", "process:///srv/nowhere")
    return client.instances.create(name, {"product": "hello", "target": "nowhere"}).id


def test_a_copy_that_is_told_to_end_lets_those_go_who_wait_and_goes_in_order(both: Cell) -> None:
    with both.client() as client:
        job = waiting_job(client, "never")
        seen: list[str] = []

        def wait() -> None:
            with both.client() as another:
                seen.append(another.jobs.get(job).state)
                for polled in another.jobs.follow(job, timeout=PROMPTLY):
                    seen.append(polled.state)

        threads = [threading.Thread(target=_until_time_is_up, args=(wait,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(seen) < len(threads):
            time.sleep(0.01)
        port = both.copies.ports[0]
        code, seconds = both.copies.stop(port)
        assert (code, seconds < PROMPTLY) == (0, True)
        assert client.jobs.get(job).state == "ready"
        both.copies.start(port)
        for thread in threads:
            thread.join()
        client.jobs.cancel(job)


def _until_time_is_up(wait: Callable[[], None]) -> None:
    try:
        wait()
    except ClientError as error:
        assert "still" in error.message or error.exit_code == 124


def test_copies_restart_in_turn_under_load_and_no_call_fails(both: Cell, tmp_path: Path) -> None:
    with both.client() as reader, both.client() as writer, both.client() as follower:
        job = waiting_job(reader, "steady")
        numbers = iter(range(1_000_000))

        def write() -> None:
            token = writer.tokens.create(f"t{next(numbers)}", scopes=("read",))
            writer.tokens.revoke(token.id)

        def command() -> None:
            ended = both.spectrum("instance", "list", "-o", "json")
            assert ended.returncode == 0, ended.stderr

        def follow() -> None:
            assert follower.jobs.get(job).state == "ready"

        with beside(lambda: list(reader.instances.list()), write, follow, command) as failures:
            for turn in range(RESTARTS):
                port = both.copies.ports[turn % 2]
                code, _ = both.copies.stop(port)
                assert code == 0
                both.copies.start(port)
        assert failures == []
        assert set(both.balancer.given) == set(both.copies.ports)
        assert '"level": "error"' not in both.copies.log()
        writer.jobs.cancel(job)


def test_a_worker_goes_on_with_its_job_while_copies_restart_and_leaves_in_order(both: Cell) -> None:
    with both.client() as client, both.worker() as worker:
        bundle = collect(HELLO / "compose.yaml")
        client.products.publish(bundle.product, bundle.file, bundle.files)
        jobs = [client.instances.create("acme", {"product": "hello", "target": "local"})]
        for turn, verb in enumerate(("stop", "start", "delete", "purge")):
            port = both.copies.ports[turn % 2]
            assert both.copies.stop(port)[0] == 0
            assert client.jobs.wait(jobs[-1].id, timeout=120).state == "succeeded"
            jobs.append(client.instances.act(verb, "acme"))
            both.copies.start(port)
        ended = [client.jobs.wait(job.id, timeout=120) for job in jobs]
        assert {attempt.cause for job in ended for step in job.steps for attempt in step.attempts} == {"first"}
        worker.terminate()
        assert worker.wait(30) == 0

"""What was told in confidence is kept, though the instance itself prints it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from spectrum.core.concealing import BLOT
from spectrum.local.home import Home
from spectrum.sdk import Client, JobFailed
from tests.e2e.installation import PRODUCTS, Installation
from tests.e2e.secrecy import Watch

LICENCE = "wren-4711-in-the-hedge-0815"


def test_an_instance_that_prints_its_secrets_fails_with_evidence_that_holds_none(
    installation: Installation, client: Client
) -> None:
    spec = {
        "product": installation.publish(PRODUCTS / "indiscreet"),
        "target": "local",
        "parameters": {"licence": LICENCE},
    }
    job = client.instances.create("gossip", spec)
    with pytest.raises(JobFailed):
        client.jobs.wait(job.id, timeout=180)

    error = client.jobs.get(job.id).error
    assert error is not None
    assert f"the licence is {BLOT} and the password {BLOT}" in error.evidence
    for command in ("job show", "job why"):
        assert LICENCE not in installation.spectrum(*command.split(), job.id, "-o", "json").stdout
    client.jobs.wait(client.instances.delete("gossip").id, timeout=60)
    assert {name for _, name, _ in installation.watch.opened} >= {"licence", "password"}
    assert installation.watch.canaries.found_in(LICENCE)


def test_the_search_sees_what_processes_are_called_with_and_what_files_hold(tmp_path: Path) -> None:
    watch = Watch(Home(tmp_path))
    watch.canaries.plant(LICENCE, "the licence")
    (tmp_path / "notes.log").write_text(f"started with {LICENCE.encode().hex()}")
    with subprocess.Popen(("cat", "-", LICENCE), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        assert process.stdout.read(1) == b"x"  # its name is set a moment after it has begun
        watch.look()
        process.kill()
    assert any(watch.canaries.found_in(command) for command in watch.commands)
    assert watch.leaks_in_files(tmp_path) == [f"{tmp_path}/notes.log: the licence, in hexadecimal"]

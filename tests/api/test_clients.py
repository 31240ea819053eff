"""The client library and the command against a real server: what they send is understood, what is answered they read."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from spectrum.api.app import create_app
from spectrum.sdk import Client, JobFailed
from spectrum.sdk.errors import ProblemError
from tests.api.support import Api
from tests.api.vendor import URL, Vendor, failing, vendor
from tests.cli.conftest import Ended, Shell

pytestmark = pytest.mark.anyio
LONG = 60.0


@dataclass
class Served:
    """A server on loopback, with a vendor who has a token for it, and a worker that works on what comes."""

    vendor: Vendor
    url: str
    token: str
    shell: Shell

    async def by_library(self, work: Callable[[Client], None]) -> None:
        def run() -> None:
            with Client(self.url, self.token) as client:
                work(client)

        await asyncio.to_thread(run)

    async def by_command(self, *arguments: str) -> Ended:
        return await asyncio.to_thread(self.shell.run, *arguments)


@pytest.fixture
async def served(api: Api, tmp_path: Path) -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(create_app(api.services, url), lifespan="off", log_config=None))
    async with vendor(api) as made:
        tasks = [asyncio.create_task(server.serve([listener])), asyncio.create_task(made.hands.serve())]
        assert made.admin.token is not None
        home = tmp_path / "person"
        home.mkdir(mode=0o700)
        shell = Shell(tmp_path, home, {"SPECTRUM_URL": url, "SPECTRUM_TOKEN": made.admin.token})
        yield Served(made, url, made.admin.token, shell)
        server.should_exit = True
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        listener.close()


async def test_the_library_takes_an_instance_through_its_life(served: Served) -> None:
    def work(client: Client) -> None:
        spec = {"product": "hello", "parameters": {"greeting": "Salve"}}
        plan = client.instances.plan("create", "acme", spec)
        job = client.jobs.wait(client.instances.create("acme", spec).id, timeout=LONG)
        assert (job.operation, job.plan_hash) == ("create", plan.plan_hash)
        assert client.instances.wait("acme", timeout=LONG).url == URL
        assert client.instances.apply("acme", spec) is None
        for verb in ("stop", "start", "restart", "delete", "undelete", "delete", "purge"):
            assert client.jobs.wait(client.instances.act(verb, "acme").id, timeout=LONG).operation == verb
        assert client.instances.find("acme") is None
        assert [instance.name for instance in client.instances.list()] == []
        assert len(list(client.jobs.list(operation="delete", state="succeeded"))) == 2

    await served.by_library(work)


async def test_the_library_tells_what_failed_and_what_was_refused(served: Served) -> None:
    served.vendor.hands.fails = {"start-web": failing()}

    def work(client: Client) -> None:
        job = client.instances.create("acme", {"product": "hello"})
        with pytest.raises(JobFailed):
            client.jobs.wait(job.id, timeout=LONG)
        assert client.jobs.why(job.id).summary.startswith("It has failed, because Step start-web")
        with pytest.raises(ProblemError) as refused:
            client.jobs.cancel(job.id)
        assert refused.value.slug == "not-allowed-now"

    await served.by_library(work)


async def test_the_command_makes_shows_plans_and_ends_an_instance(served: Served) -> None:
    dry = await served.by_command("instance", "create", "acme", "--product", "hello", "--dry-run", "-o", "json")
    assert (dry.code, json.loads(dry.out)["operation"]) == (0, "create"), dry.err
    made = await served.by_command("instance", "create", "acme", "--product", "hello", "--param", "greeting=Salve")
    assert made.code == 0, made.err
    assert URL in made.out
    shown = await served.by_command("instance", "show", "acme")
    assert "not_stopped" in shown.out and "Salve" in shown.out, shown.err
    sound = await served.by_command("instance", "resolve", "acme")
    assert (sound.code, sound.out) == (4, "")
    assert "not on hold" in sound.err
    listed = await served.by_command("job", "list", "--instance", "acme", "-o", "json")
    (job,) = json.loads(listed.out)["items"]
    why = await served.by_command("job", "why", job["id"])
    assert (why.code, why.out) == (0, "It has succeeded.\n")
    conflict = await served.by_command("instance", "start", "acme")
    assert conflict.code == 4, conflict.err
    deleted = await served.by_command("instance", "delete", "acme", "-o", "json")
    assert (deleted.code, json.loads(deleted.out)["lifecycle"]) == (0, "deleted"), deleted.err


async def test_the_command_applies_a_file_once(served: Served) -> None:
    (served.shell.folder / "acme.yaml").write_text("name: acme\nproduct: hello\nlabels: {tier: gold}\n")
    first = await served.by_command("instance", "apply", "-f", "acme.yaml")
    again = await served.by_command("instance", "apply", "-f", "acme.yaml")
    assert (first.code, again.code) == (0, 0), (first.err, again.err)
    assert "Instance acme is as acme.yaml says" in again.err
    assert await served.vendor.count("jobs") == 1

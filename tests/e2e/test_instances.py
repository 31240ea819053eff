"""A customer's environment from its creation to its purge, on a real installation with the real products."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from spectrum.sdk import Client, JobFailed
from tests.e2e.installation import PRODUCTS, Installation
from tests.providers.process.host import NOTHING, traces
from tests.waiting import wait_until


def ask(url: str, body: dict[str, Any] | None = None, method: str = "GET") -> Any:
    request = urllib.request.Request(url, method=method, headers={"Content-Type": "application/json"})
    request.add_header("Authorization", "Basic YWRtaW46c2VjcmV0")  # admin:secret
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(request, data, timeout=20) as answer:
        return json.load(answer)


def assert_gone(installation: Installation, instance_id: str) -> None:
    """Nothing of the instance is left on the host but its fence record. A supervisor with nothing to do leaves within seconds."""
    wait_until(lambda: traces(instance_id) == NOTHING, 30)
    assert left_behind(installation, instance_id) == {f"fences/{instance_id}.json", f"fences/{instance_id}.lock"}


def left_behind(installation: Installation, instance_id: str) -> set[str]:
    """Files and folders of the installation that still carry the instance's id."""
    return {
        str(path.relative_to(installation.home.instances))
        for path in installation.home.instances.rglob(f"*{instance_id}*")
    }


def test_kinto_keeps_its_data_over_stop_and_start_and_leaves_nothing_when_purged(
    installation: Installation, client: Client
) -> None:
    client.jobs.wait(client.instances.create("acme", {"product": "kinto", "target": "local"}).id, timeout=180)
    instance = client.instances.get("acme")
    ask(f"{instance.url}accounts/admin", {"data": {"password": "secret"}}, "PUT")
    assert any("ready to accept connections" in line.text for line in client.instances.logs("acme", service="db"))
    seen = client.instances.get("acme").observed_at
    wait_until(lambda: client.instances.get("acme").observed_at != seen, 30)
    record = f"{instance.url}buckets/default/collections/notes/records/one"
    ask(record, {"data": {"text": "keep me"}}, "PUT")

    client.jobs.wait(client.instances.stop("acme").id, timeout=60)
    with pytest.raises(OSError, match="refused"):
        ask(record)
    client.jobs.wait(client.instances.start("acme").id, timeout=60)
    assert ask(record)["data"]["text"] == "keep me"

    client.jobs.wait(client.instances.delete("acme").id, timeout=60)
    client.jobs.wait(client.instances.undelete("acme").id, timeout=60)
    assert ask(record)["data"]["text"] == "keep me"

    installation.remove(client, "acme")
    assert_gone(installation, instance.id)


def test_a_service_that_never_gets_healthy_ends_the_create_with_its_last_words_and_leaves_nothing(
    installation: Installation, client: Client
) -> None:
    job = installation.create(client, "sickly", PRODUCTS / "sick")

    with pytest.raises(JobFailed):
        client.jobs.wait(job.id, timeout=180)

    ended = client.jobs.get(job.id)
    instance = client.instances.get("sickly")
    assert (ended.state, ended.residue) == ("failed", ())
    assert ended.error is not None
    assert any("the licence key is missing" in line for line in ended.error.evidence), ended.error
    assert (instance.lifecycle, instance.hold) == ("failed", "none")
    client.jobs.wait(client.instances.delete("sickly").id, timeout=60)
    assert_gone(installation, instance.id)


def test_what_is_asked_on_the_command_line_is_done(installation: Installation) -> None:
    hello = Path(__file__).parent.parent / "products" / "hello" / "compose.yaml"
    assert installation.spectrum("product", "publish", str(hello)).returncode == 0

    created = installation.spectrum("instance", "create", "bonjour", "--product", "hello", "--wait", "-o", "json")
    assert created.returncode == 0, created.stderr
    url = json.loads(created.stdout)["endpoints"][0]["url"]
    identity = ask(f"{url}identity")
    assert identity == {"name": "bonjour", "id": json.loads(created.stdout)["id"]}

    assert installation.spectrum("instance", "logs", "bonjour").returncode == 0
    assert "there are web" in installation.spectrum("instance", "logs", "bonjour", "--service", "nonsense").stderr

    refused = installation.spectrum("instance", "start", "bonjour")
    assert refused.returncode == 4
    assert "bonjour is running" in refused.stderr
    assert installation.spectrum("instance", "show", "nobody").returncode == 3
    assert installation.spectrum("instance", "delete", "bonjour").returncode == 0
    assert installation.spectrum("instance", "purge", "bonjour", "--yes").returncode == 0

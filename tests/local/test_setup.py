"""What `up` does through the API: each step finds out first whether it is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectrum.local.home import Home, write
from spectrum.local.setup import Ready, set_up
from spectrum.sdk import ProblemError
from tests.canned import JOB_ID, Canned, Reply, Request, instance, job, problem


class Platform:
    """As much of a control plane as `up` needs, in a real server: it remembers what it was told."""

    def __init__(self, server: Canned, home: Home) -> None:
        self.server = server
        self.home = home
        self.targets: dict[str, dict[str, object]] = {}
        self.workers: list[dict[str, object]] = []
        self.releases: dict[str, str] = {}
        self.demo: dict[str, object] | None = None
        self.others: list[dict[str, object]] = []
        server.on("GET", "/readyz", Reply(200, {"status": "ok"}))
        server.on("GET", "/v1/targets/local", lambda _: self._found(self.targets.get("local")))
        server.on("POST", "/v1/targets", self._add_target)
        server.on("GET", "/v1/workers", lambda _: Reply(200, {"items": self.workers, "next_cursor": None}))
        server.on("POST", "/v1/workers:join-token", Reply(201, {"pool": "local", "token": "spj_secret"}))
        for product in ("kinto", "radicale"):
            server.on("GET", f"/v1/products/{product}/releases", self._list_releases)
            server.on("POST", f"/v1/products/{product}/releases", self._publish)
        server.on("GET", "/v1/instances/demo", lambda _: self._found(self.demo))
        server.on("GET", "/v1/instances", lambda _: Reply(200, {"items": self.others, "next_cursor": None}))
        server.on("POST", "/v1/instances", self._create)
        server.on("GET", f"/v1/jobs/{JOB_ID}", Reply(200, job("succeeded")))
        server.on("GET", "/demo/", problem(401, "unauthenticated", "The product asks for a password of its own."))

    def join(self) -> None:
        """The worker comes up: it takes its token and makes its key."""
        assert self.home.join_token.read_text() == "spj_secret\n"
        if not self.workers:
            write(self.home.worker_key, "a key\n")
            self.workers.append({"id": "wrk_1", "name": "w", "pool": "local", "state": "live"})

    def changes(self) -> list[str]:
        return [request.path for request in self.server.requests if request.method != "GET"]

    def _found(self, thing: dict[str, object] | None) -> Reply:
        return Reply(200, thing) if thing else problem(404, "not-found", "There is none.")

    def _add_target(self, request: Request) -> Reply:
        self.targets[request.body["name"]] = request.body
        return Reply(201, request.body)

    def _list_releases(self, request: Request) -> Reply:
        product = request.path.split("/")[3]
        if product not in self.releases:
            return problem(404, "not-found", "There is none.")
        return Reply(200, {"items": [{"product": product, "version": self.releases[product]}], "next_cursor": None})

    def _publish(self, request: Request) -> Reply:
        product = request.path.split("/")[3]
        text = request.body["files"][request.body["file"]]
        version = next(line.split()[1] for line in text.splitlines() if line.strip().startswith("version:"))
        self.releases[product] = version
        return Reply(201, {"product": product, "version": version})

    def _create(self, request: Request) -> Reply:
        endpoint = {"name": "web", "url": f"{self.server.url}/demo/", "primary": True}
        self.demo = instance(**request.body, endpoints=[endpoint])
        return Reply(202, job("ready"), {"location": f"/v1/jobs/{JOB_ID}"})


@pytest.fixture
def platform(home: Home) -> Iterator[Platform]:
    with Canned() as server:
        home.ports.write_text(json.dumps({"api": server.port, "database": 1}))
        yield Platform(server, home)


def run(platform: Platform) -> Ready:
    return set_up(platform.home, lambda _: None, platform.join)


def test_a_first_run_provides_everything_and_tells_where_it_is(platform: Platform) -> None:
    ready = run(platform)
    assert ready.instance == "demo"
    assert ready.instance_url == f"{platform.server.url}/demo/"
    assert ready.api_url == platform.home.url.read_text().strip() == platform.server.url
    assert platform.targets["local"]["url"] == f"process://{platform.home.instances}"
    assert set(platform.releases) == {"kinto", "radicale"}
    assert platform.demo
    assert platform.demo["product"] == "radicale"


def test_a_newcomer_can_sign_in_to_the_first_instance(platform: Platform) -> None:
    ready = run(platform)
    assert platform.demo
    file = Path(ready.password_file)
    assert platform.demo["parameters"] == {"password": file.read_text().strip()}
    assert file.stat().st_mode & 0o077 == 0


def test_a_second_run_changes_nothing(platform: Platform) -> None:
    first = run(platform)
    platform.server.requests.clear()
    assert run(platform) == first
    assert platform.changes() == []


@pytest.mark.parametrize("count", range(1, 9))
def test_a_run_that_ends_early_is_gone_on_with(platform: Platform, count: int) -> None:
    """The platform refuses everything after `count` answers: as if `up` had been interrupted there."""
    seen = 0
    answer = platform.server.answer

    def limited(request: Request) -> Reply:
        nonlocal seen
        seen += 1
        return answer(request) if seen <= count else problem(403, "forbidden", "Interrupted here.")

    platform.server.answer = limited  # type: ignore[method-assign]
    with pytest.raises(ProblemError, match="Interrupted here"):
        run(platform)
    platform.server.answer = answer  # type: ignore[method-assign]
    assert run(platform).instance == "demo"
    assert sorted(platform.changes()) == sorted(set(platform.changes()))


def test_up_ends_once_the_other_instances_answer_again_too(platform: Platform) -> None:
    run(platform)
    endpoint = {"name": "api", "url": f"{platform.server.url}/acme/", "primary": True}
    platform.others = [instance(name="acme", endpoints=[endpoint])]
    starting = problem(503, "unavailable", "It is being started again.")
    platform.server.on("GET", "/acme/", starting, starting, Reply(200, {}))
    said: list[str] = []
    set_up(platform.home, said.append, platform.join)
    assert said == ["Waiting for acme to answer"]
    assert len(platform.server.of("GET", "/acme/")) == 3


def test_an_instance_that_a_person_stopped_is_left_alone(platform: Platform) -> None:
    run(platform)
    assert platform.demo
    platform.demo |= {"desired_state": "stopped", "lifecycle": "stopped"}
    platform.server.requests.clear()
    assert run(platform).instance == "demo"
    assert platform.changes() == []


def test_a_worker_that_lost_its_key_is_invited_again(platform: Platform) -> None:
    run(platform)
    platform.home.worker_key.unlink()
    platform.server.requests.clear()
    run(platform)
    assert platform.changes() == ["/v1/workers:join-token"]

"""What `spectrum up` does once the parts run, through the API like everybody else: target, worker, products, first instance."""

from __future__ import annotations

import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spectrum.local.errors import LocalError
from spectrum.local.home import Home, write
from spectrum.local.system import TARGET, examples, target_url
from spectrum.sdk import Client, ProblemError
from spectrum.sdk.folder import Bundle, collect
from spectrum.sdk.models import Instance

DEMO = "demo"
LIGHTEST_FIRST = ("radicale", "kinto")
ASKS_TO_SIGN_IN = "radicale"
WORKER_SECONDS = 60.0
DEMO_SECONDS = 600.0
ANSWER_SECONDS = 120.0
PAUSE = 0.2

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """What a newcomer needs to go on."""

    api_url: str
    instance: str
    instance_url: str
    token_file: str
    password_file: str = ""


def set_up(home: Home, report: Report, join: Callable[[], None]) -> Ready:
    """Every step finds out first whether it is done: interrupted anywhere, the next run goes on.

    `join` is called once a join token lies where the worker looks for it. Raises `ClientError` or `LocalError`.
    """
    with Client(home.api_url, home.token.read_text().strip()) as client:
        client.ready()
        write(home.url, home.api_url + "\n")
        if client.targets.find(TARGET) is None:
            report(f"Adding target {TARGET}")
            client.targets.add(TARGET, target_url(home), key=f"up-target-{TARGET}")
        enrol(home, client, report, join)
        bundles = publish_examples(client, report)
        instance = provide_demo(home, client, bundles, report)
        await_all(client, report)
        password_file = str(home.demo_password) if home.demo_password.exists() else ""
        return Ready(home.api_url, instance.name, instance.url, str(home.token), password_file)


def enrol(home: Home, client: Client, report: Report, join: Callable[[], None]) -> None:
    """Have a living worker on the target; a join token is made only where the worker has no key of its own yet."""
    known = any(client.workers.list())
    if not (known and home.worker_key.exists()):
        _invite(home, client, report)
    join()
    if _await_worker(client, WORKER_SECONDS):
        return
    _invite(home, client, report)
    join()
    if not _await_worker(client, WORKER_SECONDS):
        raise LocalError("The worker does not report to the control plane", f"Look into {home.log('worker')}")


def publish_examples(client: Client, report: Report) -> tuple[Bundle, ...]:
    """Publish each example that is not there in its version yet."""
    folder = examples()
    if folder is None:
        return ()
    bundles = tuple(collect(file) for file in sorted(folder.glob("*/compose.yaml")))
    for bundle in bundles:
        if bundle.version not in _versions(client, bundle.product):
            report(f"Publishing {bundle.product} {bundle.version}")
            client.products.publish(bundle.product, bundle.file, bundle.files)
    return bundles


def provide_demo(home: Home, client: Client, bundles: tuple[Bundle, ...], report: Report) -> Instance:
    """The first instance, of the lightest example, answering at its URL. One that a person stopped is left alone."""
    instance = client.instances.find(DEMO)
    if instance is None or instance.lifecycle in ("failed", "purged"):
        bundle = _lightest(bundles)
        report(f"Creating instance {DEMO} of {bundle.product}")
        spec: dict[str, Any] = {"product": bundle.product, "release": bundle.version, "target": TARGET}
        if bundle.product == ASKS_TO_SIGN_IN:
            spec["parameters"] = {"password": _password(home)}
        client.jobs.wait(client.instances.create(DEMO, spec).id, timeout=DEMO_SECONDS)
    elif instance.active_job_id:
        report(f"Waiting for the job that works on {DEMO}")
        client.jobs.wait(instance.active_job_id, timeout=DEMO_SECONDS)
    instance = client.instances.get(DEMO)
    if instance.desired_state == "running" and instance.lifecycle == "running" and instance.hold == "none":
        _await_answer(client, instance)
    return instance


def await_all(client: Client, report: Report) -> None:
    """The instances that run come back after `down` with their worker: until then, what is known of their health is of before.

    One that does not come back keeps nobody from working: it is named.
    """
    silent = [each for each in client.instances.list(lifecycle="running") if _should_answer(each)]
    deadline = time.monotonic() + ANSWER_SECONDS
    told = False
    while silent := [each for each in silent if not _answers(each.url)]:
        if time.monotonic() >= deadline:
            names = ", ".join(each.name for each in silent)
            report(f"Not answering yet: {names}. Look into it: spectrum instance logs {silent[0].name}")
            return
        if not told:
            report(f"Waiting for {', '.join(each.name for each in silent)} to answer")
            told = True
        time.sleep(PAUSE)


def _should_answer(instance: Instance) -> bool:
    return instance.hold == "none" and instance.active_job_id is None and instance.url.startswith("http")


def _password(home: Home) -> str:
    """The password of the demo's only user: no API shows a secret again, and a newcomer wants to sign in."""
    if not home.demo_password.exists():
        write(home.demo_password, secrets.token_hex(12) + "\n")
    return home.demo_password.read_text().strip()


def _invite(home: Home, client: Client, report: Report) -> None:
    report("Inviting the worker")
    token = client.workers.join_token(TARGET).token
    write(home.join_token, f"{token}\n")


def _await_worker(client: Client, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not any(worker.state == "live" for worker in client.workers.list()):
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE)
    return True


def _versions(client: Client, product: str) -> set[str]:
    try:
        return {release.version for release in client.products.releases(product)}
    except ProblemError as problem:
        if problem.status == 404:
            return set()
        raise


def _lightest(bundles: tuple[Bundle, ...]) -> Bundle:
    by_name = {bundle.product: bundle for bundle in bundles}
    for name in LIGHTEST_FIRST:
        if name in by_name:
            return by_name[name]
    if bundles:
        return bundles[0]
    raise LocalError(
        "There are no example products beside this installation", "Publish one: spectrum product publish FILE"
    )


def _await_answer(client: Client, instance: Instance) -> None:
    """An instance that is being started again after `down` answers a moment later."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while not _answers(instance.url):
        if time.monotonic() >= deadline:
            raise LocalError(
                f"Instance {instance.name} does not answer at {instance.url}", "spectrum instance logs " + DEMO
            )
        time.sleep(PAUSE)
        instance = client.instances.get(instance.name)


def _answers(url: str) -> bool:
    """Any answer of the product's own counts, also one that asks for a password; the server's failures do not."""
    if not url:
        return False
    try:
        with urllib.request.urlopen(url, timeout=5.0):  # noqa: S310 - the address that our own API gave
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        return False

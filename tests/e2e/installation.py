"""A whole installation for tests: `spectrum up` in a folder of its own, its parts within reach of a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from spectrum.local import lifecycle
from spectrum.local.home import Home
from spectrum.sdk import Client, ClientError
from spectrum.sdk.folder import collect
from spectrum.sdk.models import Job
from tests.e2e.secrecy import Watch
from tests.waiting import wait_until

UP_SECONDS = 300.0
SECONDS = 60.0  # within which a part or a job comes to where it is waited for
PRODUCTS = Path(__file__).parent / "products"
HELLO = Path(__file__).parent.parent / "products" / "hello"


@dataclass
class Installation:
    """One `spectrum up`, with a client that is signed in."""

    home: Home
    published: set[Path] = field(default_factory=set)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(self.home)

    def spectrum(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command line, as a person would."""
        finished = subprocess.run(
            (sys.executable, "-m", "spectrum.cli", *words),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
        )
        self.watch.said += [finished.stdout, finished.stderr]
        return finished

    def environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SPECTRUM_")}
        return {**kept, "SPECTRUM_HOME": str(self.home.root), "NO_COLOR": "1"}

    def up(self, *options: str) -> None:
        finished = self.spectrum("up", *options)
        assert finished.returncode == 0, finished.stderr

    def down(self) -> None:
        finished = self.spectrum("down")
        assert finished.returncode == 0, finished.stderr

    @contextmanager
    def client(self) -> Iterator[Client]:
        with Client(self.home.api_url, self.home.token.read_text().strip(), patience=90.0) as client:
            yield client

    # ---- parts

    def pid(self, part: str) -> int:
        """The process of a running part."""
        found = wait_until(
            lambda: next((p for p in lifecycle.read(self.home).parts if p.name == part and p.pid), None), SECONDS
        )
        assert found.pid is not None
        return found.pid

    def kill(self, part: str) -> None:
        """kill -9. Its supervisor starts it again."""
        os.kill(self.pid(part), signal.SIGKILL)

    def kill_postgres(self) -> None:
        """kill -9 of the postmaster: every backend ends, nothing is flushed in order."""
        pid = int((self.postgres_data() / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

    def postgres_data(self) -> Path:
        place = self.home.database / "location"
        root = Path(place.read_text().strip()) if place.exists() else self.home.database
        return next(path.parent for path in root.rglob("postmaster.pid"))

    # ---- products and jobs

    def publish(self, folder: Path) -> str:
        """The product of a folder, published once."""
        bundle = collect(folder / "compose.yaml")
        if folder not in self.published:
            with self.client() as client:
                client.products.publish(bundle.product, bundle.file, bundle.files)
            self.published.add(folder)
        return bundle.product

    def create(self, client: Client, name: str, folder: Path) -> Job:
        return client.instances.create(name, {"product": self.publish(folder), "target": "local"})

    def remove(self, client: Client, name: str) -> None:
        """Delete and purge, to the end."""
        client.jobs.wait(client.instances.delete(name).id, timeout=120)
        client.jobs.wait(client.instances.purge(name).id, timeout=120)


def step_state(client: Client, job_id: str, step: str) -> str:
    try:
        job = client.jobs.get(job_id)
    except ClientError:
        return ""  # the control plane is being killed, too
    return next((each.state for each in job.steps if each.name == step), "")


@dataclass
class Prober:
    """Asks a URL ten times a second, as a customer's traffic would, and remembers what did not answer."""

    url: str
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def probing(self) -> Iterator[Prober]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.asked += 1
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    pass
            except urllib.error.HTTPError as error:
                if error.code >= 500:
                    self.failures.append(f"request {self.asked}: {error}")
            except OSError as error:
                self.failures.append(f"request {self.asked}: {error}")


@contextmanager
def installed(folder: Path, *options: str) -> Iterator[Installation]:
    """Up with these options, and down afterwards. Fails where a secret stands anywhere but where it belongs."""
    installation = Installation(Home(folder / "home"))
    watch = installation.watch
    try:
        with watch.watching():
            installation.up(*options)
            yield installation
        leaks, data = watch.leaks_while_up(), installation.postgres_data()
        installation.down()
        leaks += watch.leaks_in_files(installation.home.root, installation.home.instances, data)
        assert not leaks, "\n".join(leaks)
    finally:
        installation.spectrum("down")
        shutil.rmtree(installation.home.instances, ignore_errors=True)

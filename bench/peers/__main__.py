"""Sets the other engines up, has each play the rounds that ours plays, and tells them side by side.

They come from their registries into `.cache/peers`, and are no dependencies of the project. One that can't be had is told as such.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.jobs import REPOSITORY, at, free_port, ground, staged
from spectrum.db.embedded import Embedded

PLACE = REPOSITORY / ".cache" / "peers"
PYTHON = PLACE / "python" / "bin" / "python"
PACKAGES = ("dbos==3.4.0", "temporalio==1.35.0", "restate-sdk==1.3.0", "hypercorn==0.18.0", "httpx==0.28.1")
RESTATE = "@restatedev/restate-server@1.7.12"
TEMPORAL = "github.com/temporalio/cli/cmd/temporal@v1.5.1"
START_SECONDS = 60.0


class Missing(Exception):
    """An engine can't be had here, and why."""


@dataclass(frozen=True)
class Told:
    """What one round of one engine came to; milliseconds."""

    engine: str
    in_flight: int
    rate: float
    whole: Sequence[float]
    commit: Sequence[float]


@dataclass(frozen=True)
class Given:
    """How long, and with how many jobs in flight."""

    levels: Sequence[int]
    warm: float
    seconds: float

    def environment(self, **more: str) -> dict[str, str]:
        told = {
            "BENCH_LEVELS": ",".join(map(str, self.levels)),
            "BENCH_WARM": str(self.warm),
            "BENCH_SECONDS": str(self.seconds),
            "PYTHONPATH": str(REPOSITORY),
        }
        return {**os.environ, **told, **more}


# ---- having them


def _had(*command: str, **options: str) -> None:
    """Raises Missing."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **options}, check=False)
    except OSError as error:
        raise Missing(f"{command[0]}: {error.strerror}") from None
    if ended.returncode:
        raise Missing(f"{' '.join(command[:3])}: {(ended.stderr or ended.stdout).strip().splitlines()[-1]}")


def _have_python() -> None:
    if not PYTHON.exists():
        _had(sys.executable, "-m", "venv", str(PYTHON.parent.parent))
    _had(str(PYTHON), "-m", "pip", "install", "--quiet", *PACKAGES)


def _have_restate() -> Path:
    folder = PLACE / "restate"
    folder.mkdir(parents=True, exist_ok=True)
    _had("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), RESTATE)
    found = [path for path in folder.rglob("bin/restate-server") if path.is_file() and not path.is_symlink()]
    if not found:
        raise Missing("its package brings no program for this machine")
    return found[0]


def _have_temporal() -> Path:
    program = PLACE / "temporal" / "temporal"
    if not program.exists():
        _had("go", "install", TEMPORAL, GOBIN=str(program.parent))
    return program


# ---- playing


def _play(engine: str, program: str, environment: Mapping[str, str]) -> Iterator[Told]:
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [PYTHON, "-m", f"bench.peers.{program}"],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                told = json.loads(line)
                whole, commit = _milliseconds(told["took"]), _milliseconds(told["commits"])
                yield Told(engine, told["in_flight"], told["rate"], whole, commit)
        if process.wait():
            said.seek(0)
            raise Missing(f"its program ended: {said.read().strip().splitlines()[-1:]}")


def _milliseconds(seconds: Sequence[float]) -> list[float]:
    return sorted(1000.0 * each for each in seconds)


@contextmanager
def _running(command: Sequence[str | Path], folder: Path, ready: str, **options: str) -> Iterator[None]:
    """A server in `folder`, once it answers at `ready`, until the context ends."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **options}, stdout=log, stderr=log)
        try:
            _await(process, ready)
            yield
        finally:
            process.terminate()
            process.wait()


def _await(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=1.0).close()
        except urllib.error.HTTPError:
            return  # it answers
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"its server does not come: {error}") from None
            time.sleep(0.1)
        else:
            return


def ours(given: Given, folder: Path) -> Iterator[Told]:
    with staged(folder, max(given.levels)) as stage:
        print(ground(stage), flush=True)
        for level in given.levels:
            found = stage.measure(level, given.warm, given.seconds)
            yield Told("SPECTRUM", level, found.rate, found.whole, found.commit)


def dbos(given: Given, folder: Path) -> Iterator[Told]:
    _have_python()
    embedded = Embedded(folder / "database")
    try:
        url = embedded.start().url("dbos").replace("postgres://", "postgresql://")
        yield from _play("DBOS", "on_dbos", given.environment(BENCH_DATABASE_URL=url))
    finally:
        embedded.remove()


def restate(given: Given, folder: Path) -> Iterator[Told]:
    _have_python()
    program = _have_restate()
    port, ingress, admin, node = (free_port() for _ in range(4))
    options = {
        "RESTATE_BASE_DIR": str(folder),
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_PORT": str(node),
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "DO_NOT_TRACK": "1",
    }
    addresses = {"BENCH_INGRESS": f"http://127.0.0.1:{ingress}", "BENCH_ADMIN": f"http://127.0.0.1:{admin}"}
    with _running([program], folder, f"http://127.0.0.1:{ingress}/restate/health", **options):
        yield from _play("Restate", "on_restate", given.environment(BENCH_PORT=str(port), **addresses))


def temporal(given: Given, folder: Path) -> Iterator[Told]:
    _have_python()
    program = _have_temporal()
    port, http = free_port(), free_port()
    command: list[str | Path] = [program, "server", "start-dev", "--headless", "--db-filename", folder / "history"]
    command += ["--port", str(port), "--http-port", str(http), "--log-level", "error"]
    with _running(command, folder, f"http://127.0.0.1:{http}/api/v1/namespaces/default"):
        yield from _play("Temporal", "on_temporal", given.environment(BENCH_SERVER=f"127.0.0.1:{port}"))


ENGINES: dict[str, Callable[[Given, Path], Iterator[Told]]] = {
    "SPECTRUM": ours,
    "DBOS": dbos,
    "Restate": restate,
    "Temporal": temporal,
}


# ---- telling


def table(told: Sequence[Told]) -> str:
    head = ("engine", "in flight", "jobs/s", "job p50 ms", "p99", "step commit p50 ms", "p99")
    lines = [head, *(_line(each) for each in told)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _line(told: Told) -> tuple[str, ...]:
    figures = (told.rate, at(0.5, told.whole), at(0.99, told.whole), at(0.5, told.commit), at(0.99, told.commit))
    return (told.engine, str(told.in_flight), *(f"{figure:,.1f}" for figure in figures))


def _played(name: str, given: Given, place: Path | None) -> list[Told]:
    folder = Path(tempfile.mkdtemp(prefix="spectrum-peers-", dir=place))
    folder.chmod(0o711)  # as root, PostgreSQL runs as another account
    found: list[Told] = []
    try:
        for each in ENGINES[name](given, folder):
            found.append(each)
            print("  ".join(_line(each)), flush=True)
    except Missing as missing:
        print(f"{name} is missing: {missing}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # as an interrupt does: nothing stays behind
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=list(ENGINES), help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--levels", default="1,16,256")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="where the data lies meanwhile: a real disk")
    asked = parser.parse_args()
    given = Given([int(level) for level in asked.levels.split(",")], asked.warm, asked.seconds)
    told = [each for name in asked.engines for each in _played(name, given, asked.folder)]
    print(table(told), flush=True)


if __name__ == "__main__":
    main()

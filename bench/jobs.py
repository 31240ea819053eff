"""How many jobs a second, and how long until they are claimed and their steps are committed: `make bench`.

Jobs of six steps that do nothing, through the real API, engine, worker, signed reports and a PostgreSQL that flushes every commit,
all on this machine. Rounds of the levels are interleaved and the median of each figure is told, since a machine is not equally fast
all day.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from bench.noop import SAMPLE, STEPS
from spectrum.core.access import TOKEN_ENTROPY, make_token
from spectrum.db.embedded import Embedded, Server
from spectrum.ports import SystemEntropy
from spectrum.sdk import Client
from spectrum.sdk.folder import collect
from spectrum.settings import POLL

REPOSITORY = Path(__file__).parent.parent
HELLO = REPOSITORY / "tests" / "products" / "hello" / "compose.yaml"
LEVELS = (1, 16, 256)
PY_SPY = Path(sys.executable).with_name("py-spy")
STATISTICS_SECONDS = 1.5  # until PostgreSQL's processes have told their counts
START_SECONDS = 180.0  # on a machine that others use too

_DISPATCH = """
SELECT extract(epoch FROM started_at - created_at)::float8 AS seconds FROM jobs
WHERE operation = 'restart' AND finished_at BETWEEN to_timestamp($1) AND to_timestamp($2)"""
_STATEMENTS = """
SELECT query, calls, rows, (total_exec_time + total_plan_time)::float8 AS spent FROM pg_stat_statements
ORDER BY total_exec_time + total_plan_time DESC LIMIT 30"""
_COUNTS = """
SELECT xact_commit AS transactions, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 AS wal
FROM pg_stat_database WHERE datname = 'spectrum'"""


@dataclass(frozen=True)
class Round:
    """What one round at one level came to. Times are milliseconds; the rest is for each job."""

    in_flight: int
    rate: float
    whole: Sequence[float]
    dispatch: Sequence[float]
    commit: Sequence[float]
    transactions: float
    wal: float
    refused: float
    processor: Mapping[str, float]
    busy: float  # of the whole machine's time, whoever used it


@dataclass
class Stage:
    """The processes, and what is asked of them."""

    folder: Path
    database: Server
    bus: str = POLL
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # ---- asking

    def order(self, **what: Any) -> dict[str, Any]:
        """Have the load do something, and wait for what came of it."""
        load = self.processes["load"]
        assert load.stdin is not None and load.stdout is not None
        load.stdin.write(json.dumps(what).encode() + b"\n")
        load.stdin.flush()
        line = load.stdout.readline()
        if not line:
            raise RuntimeError(f"the load ended: {(self.folder / 'load.log').read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, statement: str, *arguments: Any, database: str = "spectrum") -> list[Any]:
        async def asked() -> list[Any]:
            connection = await asyncpg.connect(self.database.url(database))
            try:
                return list(await connection.fetch(statement, *arguments))
            finally:
                await connection.close()

        return asyncio.run(asked())

    def processor(self) -> dict[str, float]:
        """Seconds of processor time that each part has used so far."""
        used = {name: _used(psutil.Process(process.pid)) for name, process in self.processes.items()}
        postgres = psutil.Process(self.database.pid)
        return {**used, "postgres": _used(postgres) + sum(map(_used, postgres.children()))}

    # ---- a round

    def measure(self, in_flight: int, warm: float, seconds: float) -> Round:
        counts, used, machine = self.ask(_COUNTS)[0], self.processor(), psutil.cpu_times()
        began = time.time()
        told = self.order(do="run", in_flight=in_flight, warm=warm, seconds=seconds)
        spent = time.time() - began
        used = {name: now - used[name] for name, now in self.processor().items()}
        busy = 1.0 - (psutil.cpu_times().idle - machine.idle) / (spent * (psutil.cpu_count() or 1))
        time.sleep(STATISTICS_SECONDS)
        then, jobs = self.ask(_COUNTS)[0], told["all"]
        window = (told["from"], told["until"])
        return Round(
            in_flight,
            len(told["took"]) / seconds,
            _milliseconds(told["took"]),
            _milliseconds(row["seconds"] for row in self.ask(_DISPATCH, *window)),
            _milliseconds(took for at, took in self._samples() if window[0] <= at <= window[1]),
            (then["transactions"] - counts["transactions"]) / jobs,
            (then["wal"] - counts["wal"]) / jobs,
            told["refused"] / jobs,
            {name: 1000.0 * value / jobs for name, value in used.items()},
            busy,
        )

    def _samples(self) -> Iterator[tuple[float, float]]:
        for at, took in SAMPLE.iter_unpack((self.folder / "samples").read_bytes()):
            yield float(at), float(took)


def _milliseconds(seconds: Any) -> list[float]:
    return sorted(1000.0 * each for each in seconds)


def _used(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


# ---- setting the stage


@contextmanager
def staged(folder: Path, callers: int, *, statements: bool = False, bus: str = POLL) -> Iterator[Stage]:
    """A whole system in `folder`, with an instance for each caller; it ends with the context. PostgreSQL may count `statements`.

    `bus` is as in SPECTRUM_BUS.
    """
    with ExitStack() as stack:
        embedded = Embedded(folder / "database")
        stack.callback(embedded.remove)
        stage = Stage(folder, embedded.start(), bus)
        if statements:
            stage.ask("ALTER SYSTEM SET shared_preload_libraries = pg_stat_statements", database="postgres")
            embedded.stop()
            stage.database = embedded.start()
        stack.callback(_end_all, stage)
        url = _start_server(stage)
        token = (folder / "token").read_text().strip()
        with Client(url, token) as client:
            _publish_and_join(stage, client, url)
        _start(stage, "load", [sys.executable, "-m", "bench.load", url], {})
        load = stage.processes["load"]
        assert load.stdin is not None
        load.stdin.write(token.encode() + b"\n")
        stage.order(do="prepare", count=callers, spec={"product": "hello", "target": "nowhere"})
        yield stage


def _start_server(stage: Stage) -> str:
    folder, port = stage.folder, free_port()
    (folder / "token").write_text(make_token(SystemEntropy().token(TOKEN_ENTROPY)).text)
    _start(
        stage,
        "server",
        [sys.executable, "-m", "bench.noop", "server", str(folder / "token")],
        {
            "SPECTRUM_HOME": str(folder),
            "SPECTRUM_LISTEN": f"127.0.0.1:{port}",
            "SPECTRUM_DATABASE_URL": stage.database.url(),
            "SPECTRUM_RATE_LIMIT": "0",  # one token for all callers
            "SPECTRUM_BUS": stage.bus,
        },
    )
    _await_port(stage.processes["server"], port, folder / "server.log")
    return f"http://127.0.0.1:{port}"


def _publish_and_join(stage: Stage, client: Client, url: str) -> None:
    bundle = collect(HELLO)
    client.products.publish(bundle.product, bundle.file, bundle.files)
    client.targets.add("nowhere", "process:///srv/nowhere")
    folder = stage.folder
    (folder / "join").write_text(client.workers.join_token("nowhere").token or "")
    home = folder / "worker"
    home.mkdir()
    _start(
        stage,
        "worker",
        [sys.executable, "-m", "bench.noop", "worker", str(folder / "samples")],
        {
            "SPECTRUM_HOME": str(home),
            "SPECTRUM_URL": url,
            "SPECTRUM_JOIN_TOKEN_FILE": str(folder / "join"),
            "SPECTRUM_BUS": stage.bus,
        },
    )
    deadline = time.monotonic() + START_SECONDS
    while not any(worker.state == "live" for worker in client.workers.list()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the worker does not come: {(folder / 'worker.log').read_text()[-2000:]}")
        time.sleep(0.1)


def _start(stage: Stage, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SPECTRUM_")}
    with (stage.folder / f"{name}.log").open("wb") as log:
        stage.processes[name] = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**kept, **environment},
            stdin=subprocess.PIPE if name == "load" else subprocess.DEVNULL,
            stdout=subprocess.PIPE if name == "load" else log,
            stderr=log,
        )


def _end_all(stage: Stage) -> None:
    for name in ("load", "worker", "server"):
        if (process := stage.processes.get(name)) is None:
            continue
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not come: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- where the time goes


def statements(stage: Stage, given: argparse.Namespace) -> str:
    """What PostgreSQL did longest in one more round of the last level, for each job."""
    stage.ask("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    stage.ask("SELECT pg_stat_statements_reset()")
    order = {
        "do": "run",
        "in_flight": int(given.levels.rpartition(",")[2]),
        "warm": given.warm,
        "seconds": given.seconds,
    }
    jobs = stage.order(**order)["all"]
    lines = [f"{'calls per job':>14}{'ms per job':>12}{'rows per call':>15}  statement"]
    for row in stage.ask(_STATEMENTS):
        text = " ".join(row["query"].split())[:110]
        rows = row["rows"] / row["calls"]
        lines.append(f"{row['calls'] / jobs:>14.2f}{row['spent'] / jobs:>12.3f}{rows:>15.1f}  {text}")
    return "\n".join(lines)


@contextmanager
def flames(stage: Stage, folder: Path, seconds: float) -> Iterator[None]:
    """Meanwhile py-spy looks at the server and the worker, and draws what it saw into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    watchers = {}
    for name in ("server", "worker"):
        pid, picture = str(stage.processes[name].pid), folder / f"{name}.svg"
        command: list[str | Path] = [PY_SPY, "record", "-r", "250", "-d", f"{seconds:.0f}", "-p", pid, "-o", picture]
        watchers[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield
    for name, watcher in watchers.items():
        failed = watcher.wait() != 0
        picture = folder / f"{name}.svg"
        print(
            f"no flame graph of the {name}: this account may not trace (kernel.yama.ptrace_scope)"
            if failed
            else picture
        )


# ---- telling


def table(rounds: Sequence[Round]) -> str:
    """The median of each figure over the rounds of its level."""
    levels = sorted({each.in_flight for each in rounds})
    return columns("jobs in flight", {str(n): [each for each in rounds if each.in_flight == n] for n in levels})


def columns(title: str, rounds: Mapping[str, Sequence[Round]]) -> str:
    """The same, of rounds that were put together under the names of the columns."""
    rows = [(title, list(rounds))]
    for name, figure in _FIGURES:
        cells = [statistics.median(figure(each) for each in column) for column in rounds.values()]
        rows.append((name, [f"{cell:,.1f}" if cell < 100 else f"{cell:,.0f}" for cell in cells]))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in cells) for name, cells in rows)


def at(share: float, values: Sequence[float]) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


_PARTS = ("server", "worker", "postgres", "kafka", "load")
_FIGURES: tuple[tuple[str, Any], ...] = (
    ("jobs/s", lambda r: r.rate),
    ("steps/s", lambda r: r.rate * STEPS),
    ("submit to end, p50 ms", lambda r: at(0.5, r.whole)),
    ("submit to end, p99 ms", lambda r: at(0.99, r.whole)),
    ("submitted to claimed, p50 ms", lambda r: at(0.5, r.dispatch)),
    ("submitted to claimed, p99 ms", lambda r: at(0.99, r.dispatch)),
    ("step commit, p50 ms", lambda r: at(0.5, r.commit)),
    ("step commit, p99 ms", lambda r: at(0.99, r.commit)),
    ("transactions per job", lambda r: r.transactions),
    ("WAL per job, KiB", lambda r: r.wal / 1024),
    ("refused with 503, per job", lambda r: r.refused),
    *((f"processor per job, {part}, ms", lambda r, part=part: r.processor.get(part, 0.0)) for part in _PARTS),
    ("processor per job, all, ms", lambda r: sum(r.processor.values())),
    ("machine busy, %", lambda r: 100.0 * r.busy),
)


def ground(stage: Stage) -> str:
    """On what this was measured."""
    shown = {name: stage.ask(f"SHOW {name}")[0][0] for name in ("server_version", "fsync", "synchronous_commit")}
    if (shown["fsync"], shown["synchronous_commit"]) != ("on", "on"):
        raise RuntimeError(f"PostgreSQL does not flush: {shown}")
    model = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), "?")
    cores, load = psutil.cpu_count(), os.getloadavg()[0]
    python = sys.version.partition(" ")[0]
    return (
        f"{cores} cores ({model}), PostgreSQL {shown['server_version']} with fsync and synchronous_commit on, "
        f"Python {python}, load before: {load:.1f}"
    )


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # as an interrupt does: nothing stays behind
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="that count of each round")
    parser.add_argument("--warm", type=float, default=2.0, help="seconds before them")
    parser.add_argument("--levels", default=",".join(map(str, LEVELS)), help="jobs in flight, such as 1,16")
    parser.add_argument("--folder", type=Path, help="where the data lies meanwhile: a real disk")
    parser.add_argument("--statements", action="store_true", help="tell what PostgreSQL did longest")
    parser.add_argument("--flames", type=Path, help="draw flame graphs of the last level into this folder")
    given = parser.parse_args()
    levels = [int(level) for level in given.levels.split(",")]
    folder = Path(tempfile.mkdtemp(prefix="spectrum-bench-", dir=given.folder))
    folder.chmod(0o711)  # as root, PostgreSQL runs as another account
    try:
        with staged(folder, max(levels), statements=given.statements) as stage:
            print(ground(stage), flush=True)
            rounds = [stage.measure(n, given.warm, given.seconds) for _ in range(given.rounds) for n in levels]
            print(table(rounds), flush=True)
            if given.statements:
                print(statements(stage, given), flush=True)
            if given.flames is not None:
                with flames(stage, given.flames, given.seconds):
                    stage.measure(levels[-1], given.warm, given.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

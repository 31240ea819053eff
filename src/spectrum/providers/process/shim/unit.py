"""One unit: a service that is kept running, or a hook that runs once; started, watched, restarted, adopted, ended."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time

from . import durable, health, listeners
from .durable import Identity
from .launch import KEEPER
from .logs import Pump
from .processes import Scope
from .refusals import FATAL, TRANSIENT, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .instance import Instance

FIRST_BACKOFF, LAST_BACKOFF = 0.1, 30.0  # seconds between restarts
STEADY = 10.0  # seconds of running after which the backoff starts again
START_SECONDS = 10.0
KEEPER_SECONDS = 5.0
LOST = 255  # the exit code of a unit that ended without leaving one
TIMED_OUT = 124  # as timeout(1)
TAIL = 20


class Unit:
    """A slot's processes. One thread watches them; calls reach it through `stopping`, `kick` and a wake-up."""

    def __init__(self, home: Instance, slot: str) -> None:
        self.home = home
        self.slot = slot
        self.folder = home.unit_folder(slot)
        self.spec: dict[str, Any] = durable.read_json(os.path.join(self.folder, "spec.json"))
        self.pump = Pump(self.folder, home.log, self.spec["log"])
        self.leaves = home.groups.leaf(self.spec["log"].replace("/", "~"))
        self.unlimited = home.groups.limit(self.leaves, self.spec["limits"])
        self.scope = Scope(f"{home.mark}/{slot}", home.account.own_uid, self.leaves)
        self.counter = health.Counter(self.spec["health"], time.monotonic())
        self.wake = os.eventfd(0, os.EFD_NONBLOCK)
        self.stopping = False
        self.asked = False  # to start again although it has ended
        self.over = False  # its thread has decided to end
        self.keeper: Identity | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.started = threading.Event()
        self.settled = threading.Event()  # healthy, or ended: those that wait for it may go on
        self.begun = threading.Lock()
        self.backoff = FIRST_BACKOFF
        self.proved = 0.0
        self.thread = threading.Thread(target=self._run, name=slot, daemon=True)

    @property
    def record(self) -> dict[str, Any]:
        return self.home.journal.slots.get(self.slot, {})

    def change(self, **fields: Any) -> None:
        self.home.journal.change(self.slot, **fields)

    @property
    def is_hook(self) -> bool:
        return bool(self.spec["hook"])

    # What calls do with it

    def start(self) -> None:
        """Once; nothing to do where it was told to stop before."""
        with self.begun:
            if not self.stopping and self.thread.ident is None:
                self.thread.start()

    def held(self) -> bool:
        """True where a keeper of an earlier supervisor runs."""
        return durable.is_locked(self.folder + ".lock")

    def kick(self) -> bool:
        """Have it running: it does, or it starts again now. False where it is over, and needs a new unit."""
        with self.begun:
            if self.over or self.thread.ident is None:
                return False
            if not self.running():
                self.asked = True
                self._wake()
            return True

    def interrupt(self) -> None:
        """End it for the time being. A hook is run anew when it is wanted again: how far it has come is unknown."""
        if self.is_hook and self.record.get("ended") is False:
            self.change(interrupted=True)
        self.stop()

    def stop(self) -> None:
        """End it gracefully, then for sure, with all that it left behind. Returns when nothing of it runs."""
        with self.begun:
            self.stopping = True
        if self.thread.ident is None and self.held():
            self._adopt()
            self._terminate()
        self._wake()
        self.settled.set()
        while self.thread.is_alive():
            self.thread.join(1.0)
        self.scope.kill(self.main())

    def close(self) -> None:
        os.close(self.wake)
        self.home.groups.drop(self.leaves)

    def _wake(self) -> None:
        os.eventfd_write(self.wake, 1)

    def main(self) -> Identity | None:
        """The program itself; None before it was started for the first time."""
        return Identity.parse(durable.read(os.path.join(self.folder, "main")))

    def running(self) -> bool:
        main = self.main()
        return self.keeper is not None and self.keeper.alive() and (main is None or main.alive())

    # The thread

    def _run(self) -> None:
        try:
            while self._live():
                self._pause()
        finally:
            self.started.set()
            self.settled.set()

    def _live(self) -> bool:
        """One run; True where another one is wanted, after a pause."""
        try:
            code = self._one_run()
            # A hook may outlive the shutdown that broke it off, where the supervisor died over it: it is run anew.
            return not self.stopping and (bool(self.record.get("interrupted")) or self._again(code))
        except Exception as problem:  # whatever it is: a service that is wanted is tried again
            self._say(f"could not be started or watched: {type(problem).__name__}: {problem}")
            self.started.set()
            return not self.stopping

    def _one_run(self) -> int:
        """From start (or adoption) to end. Returns the exit code, which is in the journal by then."""
        code = self._find()
        if code is None:
            began = time.monotonic()
            self.counter = health.Counter(self.spec["health"], began)
            self.proved = 0.0
            code = self._watch()
            if time.monotonic() - began >= STEADY:
                self.backoff = FIRST_BACKOFF
        main = self.main()
        self.scope.kill(main, self._spare())
        self._collect()
        self.pump.take(last=True)
        if not self.record.get("interrupted"):
            self.change(code=code, ended_at=time.time(), ended=self.is_hook)
        for name in ("keeper", "exit", "main"):
            durable.unlink(os.path.join(self.folder, name))
        self._say(f"ended with exit code {code}")
        return code

    def _find(self) -> int | None:
        """Adopts what runs, or starts it: None. Else the exit code of a run that ended while nobody looked."""
        lock = os.open(self.folder + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            self._adopt()
            return None
        try:
            keeper = Identity.parse(durable.read(os.path.join(self.folder, "keeper")))
            known = keeper is not None and (self.is_hook or keeper.boot == durable.boot_id())
            if known and not self.record.get("interrupted"):
                return self._exit_code()
            self._launch(lock)
            return None
        finally:
            os.close(lock)

    def _exit_code(self) -> int:
        text = (durable.read(os.path.join(self.folder, "exit")) or "").strip()
        return int(text) if text.isdigit() else LOST

    def _adopt(self) -> None:
        """A keeper holds the slot's lock: wait until it has written down who it is."""
        deadline = time.monotonic() + START_SECONDS
        while (
            keeper := Identity.parse(durable.read(os.path.join(self.folder, "keeper")))
        ) is None or not keeper.alive():
            if time.monotonic() > deadline:
                raise Refusal(
                    TRANSIENT, "keeper-lost", f"{self.slot}: its lock is held, but its keeper does not answer"
                )
            time.sleep(0.02)
        self.keeper = keeper
        self._wait_for_main()
        self._say(f"found again, process {keeper.pid}")

    def _launch(self, lock: int) -> None:
        self.asked = False
        self.change(began=time.clock_gettime(time.CLOCK_BOOTTIME), interrupted=False)
        self.scope.kill(self.main())
        for name in ("keeper", "exit", "main"):
            durable.unlink(os.path.join(self.folder, name))
        streams = [self.pump.open(stream, self.spec["uid"], self.spec["gid"]) for stream in ("stdout", "stderr")]
        python, code = self.home.command.split("\n")[0], self.home.command.split("\n")[-1]
        try:
            self.child = subprocess.Popen(
                ["/bin/sh", "-c", KEEPER, "keeper", self.folder, python, code, *self.leaves],
                stdin=subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[1],
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                start_new_session=True,
                pass_fds=(lock,),
            )
        finally:
            for handle in streams:
                os.close(handle)
        self.keeper = Identity.of(self.child.pid)
        main = self._wait_for_main()
        durable.sync_folder(self.folder)
        self._say(f"started, process {main.pid}" if main else "ended before it was started")

    def _wait_for_main(self) -> Identity | None:
        """The program, once it was started; None where it ended at once."""
        deadline = time.monotonic() + START_SECONDS
        while self.main() is None and self.keeper is not None and self.keeper.alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        self.started.set()
        return self.main()

    def _watch(self) -> int:
        """Until it ended, by itself, by its timeout or because it was told to. Returns its exit code."""
        handle = self.keeper.open() if self.keeper is not None else None
        if handle is None:
            return self._exit_code()
        poller = select.poll()
        try:
            for number in (handle, self.wake):
                poller.register(number, select.POLLIN)
            while True:
                ready = [number for number, _ in poller.poll(self._seconds_to_next() * 1000)]
                if self.wake in ready:
                    os.eventfd_read(self.wake)
                if handle in ready:
                    return self._exit_code()
                if self.stopping:
                    return self._terminate()
                if self._seconds_to_next() <= 0:
                    if self.is_hook:
                        return self._time_out()
                    self._check(handle)
        finally:
            os.close(handle)

    def _seconds_to_next(self) -> float:
        if self.is_hook:
            began = float(self.record.get("began", 0.0))
            return max(0.0, began + float(self.spec["timeout"]) - time.clock_gettime(time.CLOCK_BOOTTIME))
        return max(0.0, self.counter.due - time.monotonic())

    def _check(self, handle: int) -> None:
        """One tick: prove the port, run the health check, count."""
        good, said = self._prove()
        if good and self.spec["health"] is not None:
            good, said = health.run(self.spec, [handle, self.wake])
        if not good:
            self.proved = 0.0
        if not self.stopping:
            self.counter.count(good, time.monotonic(), said)
        if self.counter.status == health.HEALTHY:
            self.settled.set()

    def _prove(self) -> tuple[bool, str]:
        """Whether everything that listens on the service's ports is the instance's own."""
        if self.proved and time.monotonic() < self.proved + health.PROOF_EVERY:
            return True, ""
        if problem := self.port_problem():
            return False, problem[1]
        self.proved = time.monotonic()
        return True, ""

    def port_problem(self) -> tuple[str, str] | None:
        """Reason and message, where a port of the service isn't answered by the instance itself."""
        for port in self.spec["ports"].values():
            match listeners.belongs(port, self.home.roots(), self.home.account.own_uid):
                case False:
                    return "port_taken", f"port {port} is held by {listeners.holder(port)}, not by this instance"
                case None:
                    return "nobody_listens", f"nothing of this instance listens on port {port}"
                case True:
                    continue
        return None

    def _terminate(self) -> int:
        """The stop signal to the program alone, the grace, then SIGKILL to all of it."""
        main = self.main()
        if main is not None:
            main.signal(getattr(signal, self.spec["stop_signal"], signal.SIGTERM))
            if self.keeper is not None and not self.keeper.wait(self.spec["stop_grace"]):
                self._say(f"did not end within {self.spec['stop_grace']:g} s of {self.spec['stop_signal']}: killed")
        self._kill()
        return self._exit_code()

    def _time_out(self) -> int:
        self._say(f"did not end within its timeout of {self.spec['timeout']:g} s: killed")
        self._kill()
        return TIMED_OUT

    def _kill(self) -> None:
        self.scope.kill(self.main(), self._spare())
        if self.keeper is not None and not self.keeper.wait(KEEPER_SECONDS):
            self.keeper.signal(signal.SIGKILL)
        self._collect()
        self.scope.kill(self.main())

    def _spare(self) -> set[int]:
        return {self.keeper.pid} if self.keeper is not None and self.keeper.alive() else set()

    def _collect(self) -> None:
        if self.child is not None:
            self.child.wait()
            self.child = None
        self.keeper = None

    def _again(self, code: int) -> bool:
        """Whether a call or the restart policy wants it started again; written down either way."""
        with self.begun:
            if self.asked:
                return True
            restarts, wanted = self._policy(code)
            self.over = not wanted
        if not wanted:
            self.change(ended=True)
            return False
        self.change(restarts=restarts + 1)
        self._say(f"is started again in {self.backoff:g} s (restart {restarts + 1})")
        return True

    def _policy(self, code: int) -> tuple[int, bool]:
        """How often it was restarted, and whether it is to be once more."""
        restarts = int(self.record.get("restarts", 0))
        policy, most = self.spec["restart"], self.spec["restart_attempts"]
        wanted = policy in ("always", "unless-stopped") or (
            policy == "on-failure" and code != 0 and (most is None or restarts < most)
        )
        return restarts, wanted and not self.is_hook

    def _pause(self) -> None:
        if self.asked:
            return
        poller = select.poll()
        poller.register(self.wake, select.POLLIN)
        if poller.poll(self.backoff * 1000) and not self.stopping:
            os.eventfd_read(self.wake)
        self.backoff = min(LAST_BACKOFF, self.backoff * 2)

    def _say(self, text: str) -> None:
        self.home.log.append(self.spec["log"], "supervisor", [f"{self.slot} {text}"])

    # What an observation says

    def health(self, running: bool) -> str:
        if self.is_hook:
            return "unknown"
        return self.counter.status if running else health.UNHEALTHY

    def conditions(self, running: bool) -> list[dict[str, Any]]:
        found = []
        if self.unlimited:
            names = ", ".join(self.unlimited)
            message = f"this machine offers no control group for {names}: run as root or with a delegated cgroup"
            found.append({"type": "limits_enforced", "status": False, "reason": "no_cgroup", "message": message})
        if self.spec["read_only"]:
            message = "the process target can't make a root or a volume read-only"
            found.append({"type": "read_only_enforced", "status": False, "reason": "not_supported", "message": message})
        if not self.is_hook and self.counter.status != health.HEALTHY and (problem := self.port_problem()):
            found.append({"type": "port_owned", "status": False, "reason": problem[0], "message": problem[1]})
        if running and self.counter.said:
            found.append({"type": "healthy", "status": False, "reason": "check_failed", "message": self.counter.said})
        return found

    def tail(self) -> list[str]:
        self.pump.take()
        return [
            str(line["text"]) for line in self.home.log.tail(self.spec["log"], TAIL, self.record.get("made_at", 0.0))
        ]


def own_command(folder: str) -> str:
    """How this program starts one of its own short helpers: interpreter, flags and code, joined by newlines."""
    if not sys.executable:
        raise Refusal(FATAL, "no-interpreter", "the supervisor does not know its own interpreter")
    return "\n".join([sys.executable, "-I", "-S", folder])

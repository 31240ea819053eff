"""Whether a service is healthy: Compose's counting of checks, and one run of a check."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OUTPUT = 64 * 1024  # bytes that a check may say
FIRST_DELAY = 0.2  # seconds; a quick service is seen quickly
PATIENCE = 0.25  # while it starts, the next check waits for this part of the time that has passed, up to the interval
PROOF_EVERY = 30.0  # seconds between two proofs that the port is still ours

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


class Counter:
    """Compose's rule: one success makes healthy, `retries` failures in a row after the start period make unhealthy."""

    def __init__(self, check: dict[str, Any] | None, now: float) -> None:
        self.check = check
        self.status = STARTING
        self.failures = 0
        self.started = now
        self.said = ""
        self.due = now + self._delay(now)

    def count(self, good: bool, now: float, said: str = "") -> None:
        """Count one result (`now` is monotonic, in seconds) and say in `due` when to check again."""
        self._judge(good, now, said)
        self.due = now + self._delay(now)

    def _judge(self, good: bool, now: float, said: str) -> None:
        if good:
            self.status, self.failures, self.said = HEALTHY, 0, ""
            return
        self.said = said
        starting = self.status == STARTING
        period = self.check["start_period"] if self.check else 0.0
        if starting and now < self.started + period:
            return
        self.failures += 1
        if self.failures >= (self.check["retries"] if self.check else 3):
            self.status = UNHEALTHY

    def _delay(self, now: float) -> float:
        if self.check is None:
            usual = PROOF_EVERY if self.status == HEALTHY else 5.0
        elif self.status == STARTING and now < self.started + self.check["start_period"]:
            usual = self.check["start_interval"]
        else:
            usual = self.check["interval"]
        soon = max(FIRST_DELAY, PATIENCE * (now - self.started))
        return float(min(usual, soon) if self.status == STARTING else usual)


class Check:
    """One run of a check's command, as the account, in a session of its own."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.output = os.memfd_create("check", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.output, OUTPUT)
        fcntl.fcntl(self.output, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        identity = (
            {"user": spec["uid"], "group": spec["gid"], "extra_groups": [spec["gid"]]} if os.geteuid() == 0 else {}
        )
        try:
            self.process = subprocess.Popen(
                spec["health"]["test"],
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=self.output,
                cwd=spec["working_dir"],
                env=spec["environment"],
                start_new_session=True,
                umask=0o077,
                **identity,
            )
        except OSError:
            os.close(self.output)
            raise

    def wait(self, seconds: float, interrupts: list[int]) -> int | None:
        """The exit code; None where it took longer than `seconds` or one of the `interrupts` became readable: then it is killed."""
        poller = select.poll()
        handle = os.pidfd_open(self.process.pid)
        try:
            for number in (handle, *interrupts):
                poller.register(number, select.POLLIN)
            ended = handle in [number for number, _ in poller.poll(seconds * 1000)]
        finally:
            os.close(handle)
        if not ended:
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        return code if ended else None

    def said(self) -> str:
        text = os.pread(self.output, OUTPUT, 0).rstrip(b"\0").decode("utf-8", "replace")
        return " ".join(text.split())[-500:]

    def close(self) -> None:
        os.close(self.output)


def run(spec: dict[str, Any], interrupts: list[int]) -> tuple[bool, str]:
    """Whether the check succeeded, and what it said."""
    try:
        check = Check(spec)
    except OSError as error:
        return False, f"the health check could not be started: {error}"
    try:
        began = time.monotonic()
        code = check.wait(spec["health"]["timeout"], interrupts)
        if code is None:
            return False, f"the health check did not end within {time.monotonic() - began:.1f} s"
        return code == 0, f"the health check ended with {code}: {check.said()}"
    finally:
        check.close()

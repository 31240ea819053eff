"""`up` may be killed at any moment: the next one converges to one process per part, and `down` leaves none."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest

from spectrum.local import identity, lifecycle, parts
from spectrum.local.home import Home
from spectrum.local.supervisor import living_supervisor
from tests.local.conftest import free_ports, listener, processes_of
from tests.waiting import wait_until

STARTER = """
import sys
from pathlib import Path
from spectrum.local import lifecycle, parts
from spectrum.local.home import Home
home = Home(Path(sys.argv[1]))
wanted = parts.load(home)
lifecycle.start(home, wanted)
lifecycle.await_running(home, tuple(part.name for part in wanted))
"""
ROUNDS = 10


@pytest.mark.parametrize("seed", [1, 2])
def test_a_start_killed_at_random_moments_converges(home: Home, seed: int) -> None:
    chance = random.Random(seed)
    one, two = free_ports(2)
    wanted = (listener(home, "one", one), listener(home, "two", two, needs_ports=(one,)))
    parts.store(home, wanted)
    killed: identity.Identity | None = None
    for _ in range(ROUNDS):
        starter = subprocess.Popen([sys.executable, "-c", STARTER, str(home.root)])
        time.sleep(chance.uniform(0.0, 0.8))  # the moment is the test's subject, not something that is waited for
        starter.kill()
        starter.wait()
        if chance.random() < 0.7 and (supervisor := living_supervisor(home)):
            identity.send(supervisor, signal.SIGKILL)
            killed = supervisor
    if killed:  # one that is dying still counts as alive
        assert identity.wait(killed, 20.0)
    lifecycle.start(home, wanted)
    lifecycle.await_running(home, ("one", "two"), timeout=60.0)
    status = lifecycle.read(home)
    assert status.running
    expected = sorted(filter(None, [status.supervisor, *(part.pid for part in status.parts)]))
    wait_until(lambda: sorted(processes_of(home)) == expected)
    assert len(expected) == 3

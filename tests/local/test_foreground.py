"""An attended installation shows its logs and goes down when it is asked to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from spectrum.local import lifecycle
from spectrum.local.home import Home
from tests.local.conftest import free_ports, listener, processes_of, program
from tests.waiting import wait_until

ATTEND = "import sys; from spectrum.local import commands; commands.attend(lambda text: print(text, flush=True))"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_brings_an_attended_installation_down(home: Home, number: int) -> None:
    (port,) = free_ports(1)
    chatty = program(home, "chatty", "import time\nwhile True: print('a line', flush=True); time.sleep(0.05)")
    lifecycle.start(home, (listener(home, "quiet", port), chatty))
    lifecycle.await_running(home, ("quiet", "chatty"), timeout=30.0)
    attended = subprocess.Popen(
        [sys.executable, "-c", ATTEND],
        env=os.environ | {"SPECTRUM_HOME": str(home.root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert attended.stderr
    assert attended.stderr.readline() == "chatty  a line\n"
    attended.send_signal(number)
    said, _ = attended.communicate(timeout=30.0)
    assert attended.returncode == 0
    assert "is stopped; its data is kept" in said
    wait_until(lambda: processes_of(home) == [])

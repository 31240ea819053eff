"""Says how many situations the saga harness has played; with `SPECTRUM_LEDGER`, the ledger of proof is told too."""

import os

import pytest

from sim import ledger


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = [report for report in terminalreporter.stats.get("passed", ()) if report.when == "call"]
    played = sum(value for report in passed for name, value in report.user_properties if name == "situations")
    if played:
        terminalreporter.write_line(f"saga harness: {played} situations ended as they should")
    part_of_a_run = "PYTEST_XDIST_WORKER" in os.environ  # whose whole is told by the process that started this one
    if played and os.environ.get("SPECTRUM_LEDGER") and not part_of_a_run:
        failed = len(terminalreporter.stats.get("failed", ()))
        ledger.add(ledger.Run("sagas", "every operation", played, "situations", violations=failed))

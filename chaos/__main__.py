"""`python -m chaos --seed S --jobs N --faults M`: exits with 1 where a promise was broken."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import stamina

from chaos.campaign import Wish, campaign
from chaos.nemesis import DRAWN, Kind
from sim import ledger
from spectrum.core.errors import SpectrumError


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stamina.instrumentation.set_on_retry_hooks([])  # what clients try again is no news here
    kinds = tuple(options.only or DRAWN)
    wish = Wish(
        options.seed, options.jobs, options.faults, options.customers, options.lease, kinds, exactly=options.exactly
    )
    folder = Path(tempfile.mkdtemp(prefix="spectrum-chaos-"))
    folder.chmod(0o755)
    try:
        tally = campaign(wish, folder)
    except SpectrumError as error:
        print(f"{error} The parts' logs are in {folder}.", file=sys.stderr)
        return 2
    print("\n".join(tally.lines()))
    print(json.dumps(tally.as_json()))
    if options.ledger:
        ledger.add(tally.as_run())
    if tally.held:
        shutil.rmtree(folder)
        return 0
    print(f"logs: {folder}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2_000, help="at least so many accepted jobs")
    parser.add_argument("--faults", type=int, default=200, help="at least so many faults; 0: none")
    parser.add_argument("--customers", type=int, default=6, help="how many instances live at once")
    parser.add_argument("--lease", type=float, default=5.0, help="seconds")
    parser.add_argument("--only", type=Kind, action="append", help=f"one of: {', '.join(kind.value for kind in Kind)}")
    parser.add_argument("--exactly", action="store_true", help="no more faults than that")
    parser.add_argument("--ledger", action="store_true", help="add the run to docs/proof")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.mutants`: hunt every planted bug from seed 1 on, print the table, and fail where one survives."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from statistics import median

from sim import ledger
from tests.mutants.hunt import Found, by_name, hunt, hunt_in_sagas, remember
from tests.mutants.library import MUTANTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--within", type=int, default=600, help="seeds after which a bug has survived")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--only", default="", help="those whose name holds this text")
    parser.add_argument("--remember", action="store_true", help="write down the seeds that found them")
    parser.add_argument("--ledger", action="store_true", help="add the run to docs/proof")
    arguments = parser.parse_args()
    names = [mutant.name for mutant in MUTANTS if arguments.only in mutant.name]
    found: list[Found] = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        hunts = [pool.submit(_hunt, name, arguments.within) for name in names]
        if not arguments.only:
            hunts.append(pool.submit(hunt_in_sagas))
        for each in hunts:
            found.append(each.result())
            print(_row(found[-1]), flush=True)
    survivors = [each.mutant for each in found if not each.promise]
    needed = [each.tried for each in found if each.promise] or [0]
    print(
        f"{len(found)} bugs planted, {len(found) - len(survivors)} found; seeds needed: "
        f"median {median(needed):g}, at most {max(needed)}"
    )
    for name in survivors:
        print(f"survived: {name}", file=sys.stderr)
    if arguments.remember:
        remember(found)
    if arguments.ledger:
        how = {
            each.mutant: f"{each.ring}, {each.promise}, after {each.tried}" if each.promise else "" for each in found
        }
        survived, tried = len(survivors), sum(each.tried for each in found)
        ledger.add(
            ledger.Run("mutants", "all", len(found), "bugs", violations=survived, mutants=how, extra={"seeds": tried})
        )
    return 1 if survivors or not all(each.right for each in found) else 0


def _hunt(name: str, within: int) -> Found:
    return hunt(by_name(name), range(1, within + 1))


def _row(found: Found) -> str:
    verdict = f"{found.promise:<9} seed {found.seed:<4}" if found.promise else f"SURVIVED {found.tried} seeds"
    wrong = "" if found.right else f"  (was not planted to break that: {found.what[:150]})"
    return f"{found.ring:<6} {verdict} {found.tried:>4} tried  {found.mutant}{wrong}"


if __name__ == "__main__":
    sys.exit(main())

"""Plants each defect and prints who caught it."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.mutations.catalogue import MUTATIONS
from tests.mutations.hunt import Caught, hunt_timed

_SEEDS = 10_000
"""As many as the ordinary suite runs: a mutation that it would not notice in them has survived."""

_WHY_CHARACTERS = 110


def main() -> int:
    """Status 1 when a mutation survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description="Planted defects of delivery.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: all)")
    parser.add_argument("--seeds", type=int, default=_SEEDS, help="schedules for each (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="how many at the same time (default 1)")
    given = parser.parse_args()
    names = given.names or list(MUTATIONS)
    if unknown := sorted(set(names) - set(MUTATIONS)):
        parser.error(f"there is no mutation {', '.join(unknown)}; there are {', '.join(MUTATIONS)}")
    survived = 0
    with ProcessPoolExecutor(given.jobs, max_tasks_per_child=1) as pool:
        for name, caught, took_s in pool.map(hunt_timed, names, [range(given.seeds)] * len(names)):
            survived += not caught.by
            sys.stdout.write(_line(name, caught, took_s))
            sys.stdout.flush()
    sys.stdout.write(f"{len(names)} mutations, {survived} survived\n")
    return 1 if survived else 0


def _line(name: str, caught: Caught, took_s: float) -> str:
    by = caught.by or "SURVIVED"
    why = caught.why.partition("\n")[0][:_WHY_CHARACTERS]
    return f"{name:<28} {by:<12} {caught.seeds:>6} seeds {took_s:6.1f} s  {why}\n"


if __name__ == "__main__":
    sys.exit(main())

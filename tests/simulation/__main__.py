"""Runs schedules from the command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.simulation.schedule import SimulationFailure, run_schedule
from tests.simulation.trace import Trace

_REPORT_EVERY_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs as many seeds as asked for; status 1 at the first that fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Seeded schedules of Khala.")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many schedules (default 1000)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--published", action="store_true", help="sources publish live frames for all gateways")
    given = parser.parse_args(arguments)
    seeds = range(given.first, given.first + given.seeds)
    try:
        sys.stdout.write(_alone(seeds[0], given.published) if len(seeds) == 1 else _all(seeds, given.published))
    except SimulationFailure as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    return 0


def _alone(seed: int, published: bool) -> str:
    """One seed, with everything that happened."""
    trace = Trace(None)
    outcome = run_schedule(seed, trace, published=published)
    return f"{trace}\nseed {seed} held: {outcome.applied} events applied in {outcome.virtual_s:.1f} virtual seconds\n"


def _all(seeds: range, published: bool) -> str:
    began = reported = time.monotonic()
    applied, virtual_s = 0, 0.0
    for seed in seeds:
        outcome = run_schedule(seed, published=published)
        applied += outcome.applied
        virtual_s += outcome.virtual_s
        if time.monotonic() - reported > _REPORT_EVERY_S:
            reported = time.monotonic()
            sys.stdout.write(f"seed {seed}: {applied} events applied in {virtual_s / 3600:.1f} virtual hours\n")
    return (
        f"{len(seeds)} schedules held: {applied} events applied in {virtual_s / 3600:.1f} virtual hours, "
        f"{time.monotonic() - began:.1f} s of ours\n"
    )


if __name__ == "__main__":
    sys.exit(main())

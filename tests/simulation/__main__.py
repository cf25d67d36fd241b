"""Runs schedules from the command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

from tests.simulation.client import python_session
from tests.simulation.foreign import typescript_sessions
from tests.simulation.schedule import Outcome, SimulationFailure, run_schedule
from tests.simulation.trace import Trace

_REPORT_EVERY_S = 10.0
Run = Callable[..., Outcome]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs as many seeds as asked for; status 1 at the first that fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Seeded schedules of Khala.")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many schedules (default 1000)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--published", action="store_true", help="sources publish live frames for all gateways")
    parser.add_argument("--typescript", action="store_true", help="clients of TypeScript (`make typescript` first)")
    given = parser.parse_args(arguments)
    seeds = range(given.first, given.first + given.seeds)
    clients = typescript_sessions() if given.typescript else nullcontext(python_session)
    try:
        with clients as sessions:
            held = _alone if len(seeds) == 1 else _all
            sys.stdout.write(held(seeds, partial(run_schedule, sessions=sessions, published=given.published)))
    except SimulationFailure as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    return 0


def _alone(seeds: range, run: Run) -> str:
    """One seed, with everything that happened."""
    trace = Trace(None)
    (seed,) = seeds
    outcome = run(seed, trace)
    return f"{trace}\nseed {seed} held: {outcome.applied} events applied in {outcome.virtual_s:.1f} virtual seconds\n"


def _all(seeds: range, run: Run) -> str:
    began = reported = time.monotonic()
    applied, virtual_s = 0, 0.0
    for seed in seeds:
        outcome = run(seed)
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

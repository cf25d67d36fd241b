"""Runs schedules from the command line."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.schedule import SimulationFailure, run_schedule

_REPORT_EVERY_S = 10.0


def main() -> int:
    """Runs as many seeds as asked for; status 1 at the first that fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Seeded schedules of Khala.")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many schedules (default 1000)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed (default 0)")
    arguments = parser.parse_args()
    began = reported = time.monotonic()
    applied, virtual_s = 0, 0.0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        try:
            outcome = run_schedule(seed)
        except SimulationFailure as failure:
            sys.stderr.write(f"{failure}\n")
            return 1
        applied += outcome.applied
        virtual_s += outcome.virtual_s
        if time.monotonic() - reported > _REPORT_EVERY_S:
            reported = time.monotonic()
            sys.stdout.write(f"seed {seed}: {applied} events applied in {virtual_s / 3600:.1f} virtual hours\n")
    took_s = time.monotonic() - began
    sys.stdout.write(
        f"{arguments.seeds} schedules held: {applied} events applied in {virtual_s / 3600:.1f} virtual hours, "
        f"{took_s:.1f} s of ours\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

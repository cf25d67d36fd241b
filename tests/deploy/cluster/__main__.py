"""Rolls of the staging overlay under load, as many as wanted: `python -m tests.deploy.cluster --rolls 20`.

Prints what users notice: how long appends wait, when followers reconnect, and how long they are without a connection.
Exit status 0 when nothing was lost, doubled or refused.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys

from oa_testing.postgres import scratch_directory
from tests.deploy.cluster.rolls import campaign
from tests.deploy.cluster.sandbox import cannot_run


def main() -> int:
    """Run once and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.cluster", description=__doc__)
    parser.add_argument("--rolls", type=int, default=5)
    parser.add_argument("--followers", type=int, default=20)
    arguments = parser.parse_args()
    if why := cannot_run():
        sys.stderr.write(f"{why}\n")
        return 2
    folder = scratch_directory()
    try:
        done = asyncio.run(campaign(folder, rolls=arguments.rolls, followers=arguments.followers))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write("".join(f"{line}\n" for line in done.figures.lines()))
    sys.stdout.write("".join(f"{line}\n" for line in done.wrong) or "clean\n")
    return 1 if done.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

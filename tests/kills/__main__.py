"""Kills at random moments, as many as wanted: `python -m tests.kills --kills 500 --seed 7`.

Exit status 0 when nothing was lost, doubled, or half there.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

import structlog

from oa_testing.postgres import Databases, SessionServer
from tests.kills.campaign import Report, campaign


def _run(arguments: argparse.Namespace, folder: str) -> Report:
    server = SessionServer()
    try:
        databases = Databases(server.address, "kills")
        database = databases.create(("runtime",))
        life_s = arguments.max_life_s
        work = campaign(database, Path(folder), kills=arguments.kills, max_life_s=life_s, seed=arguments.seed)
        report = asyncio.run(work)
        databases.close()
    finally:
        server.stop()
    return report


def main() -> int:
    """Run once and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--longest-life-s", type=float, default=1.0, help="of a process, from when it is ready")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="oa-kills-") as folder:
        report = _run(arguments, folder)
    seen = f"{report.kills} kills, of which {report.caught} left something half done to be seen"
    came = f"{report.archived[-1]} were archived and {report.merged[-1]} merged at the last kill"
    sys.stdout.write(f"{seen}; {report.ended} runs ended; {came}\n")
    sys.stdout.write("".join(f"{line}\n" for line in report.wrong) or "clean\n")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())

"""Worlds of companies, as many as wanted: `python -m tests.companies --worlds 3000 --seed 7`.

Exit status 0 when every call ended as the model says, and the walks came to everything that they are for.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import structlog

from oa_testing.postgres import Databases, SessionServer
from tests.companies.campaign import Report, campaign


def _run(arguments: argparse.Namespace, folder: str) -> Report:
    server = SessionServer()
    try:
        databases = Databases(server.address, "companies")
        database = databases.create(("control",))
        steps = [arguments.steps] * arguments.worlds
        report = asyncio.run(campaign(database, Path(folder), arguments.seed, steps))
        databases.close()
    finally:
        server.stop()
    return report


def main() -> int:
    """Run once and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.companies", description=__doc__)
    parser.add_argument("--worlds", type=int, default=3_000)
    parser.add_argument("--steps", type=int, default=12, help="in each world; up to a few hundred")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory(prefix="oa-companies-") as folder:
        report = _run(arguments, folder)
    refused = report.calls - sum(number for (_, reason), number in report.seen.items() if not reason)
    sys.stdout.write(f"{report.worlds} worlds, {report.calls} calls, {refused} of them refused as foreseen\n")
    gaps = report.gaps()
    sys.stdout.write("".join(f"{line}\n" for line in gaps) or "no disagreement\n")
    return 1 if gaps else 0


if __name__ == "__main__":
    sys.exit(main())

"""The adversarial order test, as long as wanted: `python -m tests.order --appends 1000000 --seed 7`.

Exit status 0 when nothing was lost, doubled, out of order or invented.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

import structlog

from oa_testing.postgres import Database, Databases, SessionServer
from tests.order import harness
from tests.order.harness import Report, Trouble
from tests.order.runtime_log import RuntimeLog


async def _run(database: Database, arguments: argparse.Namespace) -> Report:
    trouble = Trouble(max_delay_s=arguments.delay_ms / 1000, appends_per_kill=arguments.appends_per_kill)
    async with RuntimeLog(database.runtime, database.admin, arguments.writers, trouble, arguments.seed) as log:
        return await harness.run(
            log,
            writers=arguments.writers,
            appends=arguments.appends,
            readers=arguments.readers,
            trouble=trouble,
            seed=arguments.seed,
            settle_s=60,
        )


def main() -> int:
    """Run once and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.order", description=__doc__)
    parser.add_argument("--appends", type=int, default=100_000)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--readers", type=int, default=3)
    parser.add_argument("--delay-ms", type=float, default=1.0, help="longest delay of a commit")
    parser.add_argument("--appends-per-kill", type=float, default=500, help="mean number between killed connections")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    server = SessionServer()
    try:
        databases = Databases(server.address, "order")
        report = asyncio.run(_run(databases.create(("runtime",)), arguments))
        databases.close()
    finally:
        server.stop()
    sys.stdout.write(f"{report}\n{'clean' if report.is_clean else 'NOT CLEAN'}\n")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())

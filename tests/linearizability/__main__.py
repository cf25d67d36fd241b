"""As many histories as wanted: `python -m tests.linearizability --histories 10000 --seed 7`.

Exit status 0 when every one can be explained by a single copy.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

import structlog

from oa_testing.postgres import Database, Databases, SessionServer

from .campaign import Outcome, check_many
from .grpc_replicas import GrpcReplicas
from .replicas import Replicas
from .workload import Plan


async def _run(database: Database, arguments: argparse.Namespace) -> Outcome:
    seeds = range(arguments.seed, arguments.seed + arguments.histories)
    plans = [Plan(seed, arguments.clients, arguments.operations) for seed in seeds]
    kind = GrpcReplicas if arguments.grpc else Replicas
    async with kind(database, arguments.seed) as replicas:
        return await check_many(replicas.new_run, plans, stop_at_failure=True)


def main() -> int:
    """Record, check, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.linearizability", description=__doc__)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--operations", type=int, default=30, help="calls of a history")
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of the first history; the next has the next")
    parser.add_argument("--grpc", action="store_true", help="whole replicas over gRPC, instead of their logs alone")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    server = SessionServer()
    try:
        databases = Databases(server.address, "linearizability")
        outcome = asyncio.run(_run(databases.create(("runtime",)), arguments))
        databases.close()
    finally:
        server.stop()
    sys.stdout.write(f"{outcome}\n{'NOT LINEARIZABLE' if outcome.failures else 'linearizable'}\n")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())

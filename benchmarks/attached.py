"""What do workers cost that are attached and have nothing to do? `python -m benchmarks.attached [--json FILE]`

One replica, and 1,000 workers of the SDK in a few processes, each attached over a connection of its own with the
defaults of both sides: a heartbeat every 10 s, and a ping of the connection every 5. All of them have the agent that is
called, so any of them may get the run. Beside it the same with one worker.

- **idle**: memory of the replica, and the CPU that it and Postgres take while nothing is done.
- **created → handler running**: as in `benchmarks.dispatch`, one run after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop

from benchmarks.caller import caller, until_attached, worker_process
from benchmarks.dispatch import until_running
from benchmarks.measure import Figures, report
from benchmarks.sizing.meter import MIB, Meters, Subject, process
from benchmarks.sockets import allow_sockets
from benchmarks.stage import Replica, Stage, stage
from oa_localstack.postgres.server import processes_in

PROCESSES = 4
"""Number of processes for the workers. A single one would be busy with so many."""
_SETTLED_S = 2.0
_WARM_UP = 20


async def series(scene: Stage, replica: Replica, workers: int, seconds: float, runs: int) -> list[Figures]:
    """Measure `workers` workers: idle, and with one run at a time."""
    data = scene.postgres.data
    meters = Meters({"replica": process(replica.process.pid), "postgres": Subject(lambda: processes_in(data))})
    before = meters.subjects["replica"].memory_bytes()
    setting = f"{workers:,} workers attached"
    with ExitStack() as processes:
        started = time.monotonic()
        for number in range(PROCESSES):
            if count := (workers + number) // PROCESSES:
                processes.enter_context(worker_process(scene, replica, slots=1, count=count))
        await until_attached(replica, workers)
        attached_s = time.monotonic() - started
        await asyncio.sleep(_SETTLED_S)
        span = meters.span()
        await asyncio.sleep(seconds)
        cores, after = span.cores(), meters.subjects["replica"].memory_bytes()
        note = (
            f"replica {after / MIB:.0f} MiB, {(after - before) / workers / 1024:.0f} KiB a worker; of a core: "
            f"replica {100 * cores['replica']:.1f} %, Postgres {100 * cores['postgres']:.1f} %; "
            f"all attached after {attached_s:.1f} s"
        )
        async with caller(scene, replica) as by:
            await until_running(by, setting, _WARM_UP)
            dispatched = await until_running(by, setting, runs)
    return [Figures("idle", setting, 0, seconds, note=note), dispatched]


async def measured(scene: Stage, workers: int, seconds: float, runs: int) -> list[Figures]:
    """One worker, then many, each on a replica of its own."""
    rows = []
    for count in (1, workers):
        with scene.replica() as replica:
            rows += await series(scene, replica, count, seconds, runs)
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long they are watched while idle")
    parser.add_argument("--runs", type=int, default=200, help="runs of a series")
    arguments = parser.parse_args()
    allow_sockets(arguments.workers)
    with stage() as scene:
        rows = uvloop.run(measured(scene, arguments.workers, arguments.seconds, arguments.runs))
    report("attached: what do workers cost that have nothing to do?", rows, arguments.json)


if __name__ == "__main__":
    main()

"""How fast is a run with steps, from its start to its end? `python -m benchmarks.steps [--json FILE]`

One replica and one worker, each a process of its own, and a durable Postgres (`fsync` and `synchronous_commit` on). A
caller creates runs of an agent as control creates them, and sees their end in the log: the time is from before
CreateRun is called until the caller has `run.finished`. An agent does 1 step, or 10; a step costs nothing itself.

- **dbos** (peer): the same steps in a durable function of the library, awaited in the caller's process, on the same
  Postgres. There is no worker to give it to, nobody who watches, and no receipt.
- **bare commits** (floor): as many messages to another process, each stored and answered before the next is sent, as a
  run has appends, and nothing else. See `benchmarks.peers.bare_commits`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from benchmarks.caller import caller, worker_process
from benchmarks.measure import Figures, report
from benchmarks.peers import bare_commits, dbos_library
from benchmarks.readers import one_partition
from benchmarks.stage import Replica, Stage, stage

SLOTS = 32
STEPS = (1, 10)
AT_A_TIME = (1, SLOTS)
Call = Callable[[int], Awaitable[object]]
"""Does that many steps, from the start to the end that the caller sees."""


async def series(subject: str, call: Call, steps: int, at_a_time: int, runs: int) -> Figures:
    """Make `runs` runs, `at_a_time` at a time."""
    latencies: list[float] = []
    left = iter(range(runs))

    async def one_after_the_other() -> None:
        for _ in left:
            begin = time.perf_counter()
            await call(steps)
            latencies.append((time.perf_counter() - begin) * 1000)

    await call(steps)
    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(at_a_time)))
    seconds = time.perf_counter() - started
    return Figures(subject, f"{steps} steps, {at_a_time} at a time", runs, seconds, latencies)


async def measured(scene: Stage, replica: Replica, flow: dbos_library.Flow, floor_at: str, runs: int) -> list[Figures]:
    """Every series: ours, the peer's and the floor's in turns."""
    rows = []
    async with caller(scene, replica) as by_caller, bare_commits.flow(floor_at) as floor:

        async def ours(steps: int) -> None:
            assert await by_caller.result(await by_caller.start("adding", steps)) == steps

        for _ in range(20):  # until the worker's process is there, and both have their code and statements ready
            await asyncio.gather(ours(1), flow(1), floor(1))
        for steps in STEPS:
            for at_a_time in AT_A_TIME:
                count = runs if at_a_time == 1 else runs * 4
                rows.append(await series("runtime and worker", ours, steps, at_a_time, count))
                rows.append(await series(f"dbos {dbos_library.version()}", flow, steps, at_a_time, count))
                rows.append(await series("bare commits", floor, steps, at_a_time, count))
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--runs", type=int, default=200, help="runs of a series; four times as many at once")
    arguments = parser.parse_args()
    with stage() as scene, dbos_library.flow(scene.database.admin) as flow:
        asyncio.run(one_partition(scene))
        with (
            scene.replica() as replica,
            worker_process(scene, replica, slots=SLOTS),
            bare_commits.server(scene.database.admin) as floor_at,
        ):
            rows = uvloop.run(measured(scene, replica, flow, floor_at, arguments.runs))
    report("steps: how fast is a run with steps? (a row's events are runs)", rows, arguments.json)


if __name__ == "__main__":
    main()

"""How soon do watchers see what is appended, and how much do they get? `python -m benchmarks.tail [--json FILE]`

256-byte events of 4 producers go through one replica (durable Postgres of its own, everything on this machine) while 1,
4 and 16 watchers read along from another process:

- **TailLog**: one gRPC stream for each watcher.
- **bare SELECT** (the floor): for each watcher a connection that asks `position > last` again and again, with a pause
  of 1 ms when there was nothing. It costs the database a query each time, watched or not.

*steady* is a load that leaves room: a batch of 5 events from each producer, each 10 ms or as soon as the last one is
acknowledged. *flat out* is as much as the
producers get in, 32 events an append, one append in flight each. Events/s are what all watchers together received;
latency is from before the append was sent until a watcher had it, for the oldest event of each message.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.measure import Figures, report
from benchmarks.producers import Producer, producers
from benchmarks.readers import Watch, head, one_partition, stamped_events, watch
from benchmarks.stage import Replica, Stage, stage

EVENT_BYTES = 256
MAX_RUN_S = 300
"""After this time the benchmark prints where it hangs, and ends."""
PRODUCERS = 4
WATCHERS = (1, 4, 16)
_SETTLE_S = 0.7
"""Time for watchers to connect, and for the load to become steady."""


@dataclass(frozen=True)
class Load:
    """The load of each producer: `batch` events an append; the next append `every_s` after the last, or at once."""

    name: str
    batch: int
    every_s: float


STEADY, FLAT_OUT = Load("steady", 5, 0.010), Load("flat out", 32, 0.0)


async def produce(producer: Producer, load: Load, until_ns: int) -> list[float]:
    """Append until `until_ns`. Returns how long each append took (s). A late append does not speed up the next ones."""
    spent = []
    while (now_ns := time.monotonic_ns()) < until_ns:
        await producer.append(stamped_events(load.batch, EVENT_BYTES, now_ns))(0)
        spent.append((time.monotonic_ns() - now_ns) / 1e9)
        await asyncio.sleep(max(0.0, load.every_s - spent[-1]))
    return spent


async def series(
    made: Sequence[Producer], load: Load, watchers: int, where: str, after: int, seconds: float, pool: Executor
) -> Figures:
    """One row of the table. `where` is a gRPC target or a DSN."""
    is_bare = "://" in where
    begin_ns = time.monotonic_ns() + int(_SETTLE_S * 1e9)
    end_ns = begin_ns + int(seconds * 1e9)
    task = Watch(where, is_bare, watchers, after, begin_ns, end_ns)
    watching = asyncio.get_running_loop().run_in_executor(pool, watch, task)
    started_ns = time.monotonic_ns()
    each = await asyncio.gather(*(produce(producer, load, end_ns) for producer in made))
    spent = list(chain.from_iterable(each))
    rate = len(spent) * load.batch / ((time.monotonic_ns() - started_ns) / 1e9)
    seen = await watching
    note = f"{rate:,.0f}/s appended, acknowledged after p50 {median(spent) * 1000:.1f} ms"
    subject = "bare SELECT" if is_bare else "TailLog"
    return Figures(subject, f"{watchers} watchers, {load.name}", seen.events, seconds, seen.ages_ms, note)


async def run(stage: Stage, replica: Replica, seconds: float, pool: Executor) -> list[Figures]:
    """Every series."""
    rows = []
    async with producers(stage, [replica.target], PRODUCERS) as made:
        for load in (STEADY, FLAT_OUT):
            for watchers in WATCHERS:
                for where in (replica.target, stage.database.runtime):
                    after = await head(replica.target)
                    rows.append(await series(made, load, watchers, where, after, seconds, pool))
    return rows


def main() -> None:
    """Run all series and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tail", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each series")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(MAX_RUN_S, exit=True)
    with stage() as made, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        asyncio.run(one_partition(made))
        pool.submit(time.monotonic_ns).result(30)  # so that no series pays for the start of the process
        with made.replica() as replica:
            rows = uvloop.run(run(made, replica, arguments.seconds, pool))
    setting = f"{PRODUCERS} producers, {EVENT_BYTES}-byte events, one partition, {arguments.seconds:g} s a series"
    report(f"Live tail: {setting}", rows, arguments.json)


if __name__ == "__main__":
    main()

"""How fast does a reader get through what it has missed? `python -m benchmarks.catchup [--json FILE]`

100,000 events of 256 bytes lie in one partition of a durable Postgres; then, in turns, on the same machine:

- **TailLog**: LogService.TailLog from position 0 to the head, through a replica that has just started.
- **bare SELECT** (the floor): one `SELECT … WHERE partition = $1 AND position > $2 ORDER BY position` by a cursor that
  fetches as many rows at a time as a replica reads in one page.

Each reader is a connection in this process; with several, they read at once, and events/s are those of all together.
Rows are the median of the rounds. Both have to deliver the same bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.measure import Figures, report
from benchmarks.producers import producers, text_events
from benchmarks.readers import Page, by_cursor, head, one_partition, through_replica
from benchmarks.stage import UNPACED, Stage, stage
from services.runtime.log.limits import TailLimits

EVENT_BYTES = 256
MAX_RUN_S = 300
"""After this time the benchmark prints where it hangs, and ends."""
READERS = (1, 4)
ROUNDS = 3
_PRODUCERS, _BATCH = 8, 100
_ONE_PASS_S = 60.0

Reading = Callable[[], AsyncIterator[Page]]


async def fill(stage: Stage, target: str, events: int) -> None:
    """Append at least `events` events, as workers do."""
    batch = text_events(_BATCH, EVENT_BYTES)
    async with producers(stage, [target], _PRODUCERS) as made:
        appends = [producer.append(batch) for producer in made]
        for call in range(-(-events // (_PRODUCERS * _BATCH))):
            await asyncio.gather(*(append(call) for append in appends))


async def read_all(pages: AsyncIterator[Page], until: int) -> int:
    """Read positions 1 … `until` without a hole; returns the bytes of the events."""
    expected, size = 1, 0
    async for first, page in pages:
        assert first == expected, f"position {first} came where {expected} was due"
        expected += len(page)
        size += sum(map(len, page))
        if expected > until:
            return size
    raise AssertionError(f"the log ended before {until}, at {expected - 1}")


async def one_pass(reading: Reading, readers: int, until: int) -> tuple[float, int]:
    """Run `readers` readers at once. Returns the seconds until the last has finished, and the bytes that each got."""
    begin = time.perf_counter()
    async with asyncio.timeout(_ONE_PASS_S):
        sizes = await asyncio.gather(*(read_all(reading(), until) for _ in range(readers)))
    assert len(set(sizes)) == 1, "readers got different bytes"
    return time.perf_counter() - begin, sizes[0]


def summary(subject: str, readers: int, until: int, seconds: Sequence[float]) -> Figures:
    """The row of all rounds: the median, with the fastest and the slowest as a note."""
    rates = sorted(readers * until / one for one in seconds)
    note = f"{len(seconds)} rounds, {rates[0]:,.0f} to {rates[-1]:,.0f} events/s"
    return Figures(subject, f"{readers} readers", readers * until, median(seconds), (), note)


async def run(stage: Stage, target: str, until: int) -> list[Figures]:
    """Every row; the subjects take turns, so that other work of the machine affects both."""
    page = TailLimits().page_entries
    readings: dict[str, Reading] = {
        "TailLog": lambda: through_replica(target, 0),
        "bare SELECT": lambda: by_cursor(stage.database.runtime, 0, page),
    }
    rows, sizes = [], set()
    for readers in READERS:
        seconds: dict[str, list[float]] = {subject: [] for subject in readings}
        for _ in range(ROUNDS):
            for subject, reading in readings.items():
                spent, size = await one_pass(reading, readers, until)
                seconds[subject].append(spent)
                sizes.add(size)
        rows += [summary(subject, readers, until, spent) for subject, spent in seconds.items()]
    assert len(sizes) == 1, "TailLog and SELECT gave different bytes"
    return rows


async def _measure(made: Stage, events: int) -> tuple[int, list[Figures]]:
    """The head of the log, and the figures of reading up to it."""
    with made.replica(UNPACED) as replica:
        await fill(made, replica.target, events)
    with made.replica(UNPACED) as replica:
        until = await head(replica.target)
        return until, await run(made, replica.target, until)


def main() -> None:
    """Run all series and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catchup", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(MAX_RUN_S, exit=True)
    with stage() as made:
        asyncio.run(one_partition(made))
        until, rows = uvloop.run(_measure(made, arguments.events))
    report(f"Catch-up: {until:,} events of {EVENT_BYTES} bytes, one partition", rows, arguments.json)
    for readers in READERS:
        ours, floor = (row.per_second for row in rows if row.setting == f"{readers} readers")
        print(f"{readers} readers: x {ours / floor:.2f} of the bare SELECT")


if __name__ == "__main__":
    main()

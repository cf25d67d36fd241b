"""How fast does one worker's stream get into the log? `python -m benchmarks.worker_stream [--json FILE]`

One replica and one worker of the SDK, each a process of its own, and a durable Postgres (`fsync` and
`synchronous_commit` on). The worker's agent says as much as the log takes for some seconds, in one run and in 16 at
once: pieces of text of 256 bytes (`run.assistant`), or events with a text of 256 bytes (`run.emit`). The time is from
the first piece until all of them are stored. The table counts what is stored: the SDK joins pieces of text into larger
ones, and makes a message of them again; the note says how many pieces were said, and what they come to.

- **bare group commit** (floor): as in `benchmarks.append`, with as many appends a transaction, events an append and
  bytes an event as ours had on average, right after each.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import grpc.aio
import uvloop

from benchmarks.append import batched, floor
from benchmarks.caller import Caller, until_attached, worker_process
from benchmarks.measure import Figures, report
from benchmarks.stage import Stage, stage

PIECE_BYTES = 256
RUNS = (1, 16)
KINDS = ("text", "events")
_MB = 1_000_000
_WARM_UP_S = 0.2
_STORED = """
SELECT count(*) AS events, sum(length(body)) AS bytes FROM runtime.events
WHERE run_id = ANY($1) AND type IN ('text.delta', 'message', 'custom')
"""


@dataclass(frozen=True)
class Stored:
    """The events that the log has of some runs, and the appends and transactions that stored them."""

    events: int
    body_bytes: int
    appends: float
    transactions: float


async def talk(scene: Stage, kind: str, runs: int, seconds: float) -> tuple[Figures, Stored]:
    """Have `runs` runs talk at once, on a replica of their own."""
    given = {"kind": kind, "seconds": seconds, "piece_bytes": PIECE_BYTES}
    with scene.replica() as replica, worker_process(scene, replica, slots=runs):
        await until_attached(replica, 1)
        async with grpc.aio.insecure_channel(replica.target) as channel:
            by = Caller(scene, channel)  # a caller that listened would take its share of the machine
            await by.polled_result(await by.start("talking", {**given, "seconds": _WARM_UP_S}))
            before = batched(replica)
            run_ids = await asyncio.gather(*(by.start("talking", given) for _ in range(runs)))
            talked = await asyncio.gather(*(by.polled_result(run_id) for run_id in run_ids))
            appends, transactions = (after - was for after, was in zip(batched(replica), before, strict=True))
    connection = await asyncpg.connect(scene.database.runtime)
    row = await connection.fetchrow(_STORED, run_ids)
    await connection.close()
    assert row is not None  # an aggregate always has a row
    stored = Stored(row["events"], row["bytes"], appends, transactions)
    taken_s = max(one["stored"] for one in talked) - min(one["began"] for one in talked)
    pieces = sum(one["pieces"] for one in talked)
    note = (
        f"{pieces / taken_s:,.0f} pieces/s, {pieces * PIECE_BYTES / taken_s / _MB:.1f} MB/s said; "
        f"{stored.body_bytes / taken_s / _MB:.1f} MB/s stored, {appends / transactions:.1f} appends a transaction"
    )
    return Figures(f"worker, {kind}", f"{runs} runs", stored.events, taken_s, note=note), stored


async def bare(scene: Stage, stored: Stored, seconds: float) -> Figures:
    """Measure the floor of a series."""
    per_transaction = max(1, round(stored.appends / stored.transactions))
    per_append = max(1, round(stored.events / stored.appends))
    return await floor(scene, per_transaction, per_append, seconds, stored.body_bytes // stored.events)


async def measured(scene: Stage, seconds: float) -> list[Figures]:
    """Every series, each followed by its floor."""
    rows = []
    for kind in KINDS:
        for runs in RUNS:
            row, stored = await talk(scene, kind, runs, seconds)
            rows += [row, await bare(scene, stored, seconds)]
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each series")
    arguments = parser.parse_args()
    with stage() as scene:
        rows = uvloop.run(measured(scene, arguments.seconds))
    report("worker_stream: how fast does one worker's stream get into the log?", rows, arguments.json)
    for ours, below in zip(rows[::2], rows[1::2], strict=True):
        print(f"{ours.subject}, {ours.setting}: x {ours.per_second / below.per_second:.2f} of the bare group commit")


if __name__ == "__main__":
    main()

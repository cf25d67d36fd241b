"""How fast does the log take events, and how soon are they acknowledged? `python -m benchmarks.append [--json FILE]`

256-byte events, on a Postgres of its own with `fsync` and `synchronous_commit` on, everything on this machine:

- **ours**: a runtime replica as a process, producers as workers over gRPC, one stream each. A call is one append. The
  setting says how many events an append holds and how many appends a producer has in flight.
- **bare group commit** (the floor): the same rows into the same table with the same statement, by asyncpg alone, in
  batches as large as ours were on average. No decisions, no chain, no runs to update, no gRPC.
- **message-db** with one category (its writers take turns) and with 16, **eventsourcing**: as their documentation says,
  one event a call, each producer with a connection of its own.

Peers have no way to put several appends of several writers into one transaction; that is what is compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import asyncpg
import uvloop

from benchmarks.measure import Append, Figures, closed_loop, report
from benchmarks.peers import eventsourcing_library, message_db
from benchmarks.producers import producers, text_events
from benchmarks.stage import Replica, Stage, stage
from oa_platform.system.ids import new_id
from services.runtime.authority.domain import Head
from services.runtime.log.store import sql
from services.runtime.log.store.fanout import PostgresNotification

EVENT_BYTES = 256
BODY_BYTES = EVENT_BYTES + 80
"""Bytes of such an event's body as stored."""
SERIES = (
    # producers, appends in flight of each, events of an append
    (1, 1, 1),
    (4, 1, 1),
    (16, 1, 1),
    (64, 1, 1),
    (1, 4, 16),
    (4, 4, 16),
    (16, 1, 16),
    (16, 2, 16),
    (64, 1, 16),
)
HEADLINE = (16, 1, 28)
"""The setting that the floor and the peers are compared with."""
ROUNDS = 5
"""Number of rounds, each with its floor right after it, because the speed of a machine changes over time."""


async def ours(stage: Stage, count: int, window: int, size: int, seconds: float) -> Figures:
    """One series against a replica of its own, so that all series begin alike."""
    with stage.replica() as replica:
        async with producers(stage, [replica.target], count) as made:
            before = batched(replica)
            appends = [producer.append(text_events(size, EVENT_BYTES)) for producer in made for _ in range(window)]
            row = await closed_loop("runtime", _setting(count, window, size), appends, seconds)
            commands, batches = (after - was for after, was in zip(batched(replica), before, strict=True))
    return replace(row, note=f"{commands / batches:.1f} appends a transaction")


def _setting(count: int, window: int, size: int) -> str:
    return f"{count} producers, {window} in flight, {size} events each"


def batched(replica: Replica) -> tuple[float, float]:
    """Commands committed and transactions made so far, from the replica's metrics."""
    commands, batches = (replica.metric(f"oa_runtime_batch_commands_{what}") for what in ("sum", "count"))
    return commands, batches


async def floor(stage: Stage, appends: int, size: int, seconds: float, body_bytes: int = BODY_BYTES) -> Figures:
    """Measure the runtime's own statement by one writer: in each transaction, `appends` appends of `size` events."""
    connection = await asyncpg.connect(stage.database.runtime)
    try:
        append = await bare_append(connection, appends, size, body_bytes)
        setting = f"1 connection, {appends} appends of {size} a transaction"
        return await closed_loop("bare group commit", setting, [append], seconds)
    finally:
        await connection.close()


async def bare_append(
    connection: asyncpg.Connection[asyncpg.Record],
    appends: int,
    size: int,
    body_bytes: int = BODY_BYTES,
    *,
    may_lose_commits: bool = False,
) -> Append:
    """A function that stores the next batch each time that it is called."""
    partition, batch = 0, appends * size
    row = await connection.fetchrow("SELECT position, chain FROM runtime.log_heads WHERE partition = $1", partition)
    assert row is not None  # the migration inserts it
    head: int = row["position"]
    body, chain, notice = b"x" * body_bytes, b"c" * 32, PostgresNotification("bench")
    statement = sql.store_batch(notice.expression, more=False)
    runs = [new_id("run") for _ in range(appends)]
    no_key = (None, None, None)

    async def append(call: int) -> int:
        before = head + call * batch
        stored = await connection.fetchval(
            statement,
            datetime.now(UTC),
            [
                (partition, before + n + 1, runs[n // size], call * size + n % size + 1, "text.delta", body, chain)
                + (no_key if n % size else (f"k{call}", chain, size))
                for n in range(batch)
            ],
            [],
            [partition],
            [before],
            [chain if call else row["chain"]],
            [],
            [before + batch],
            [chain],
            may_lose_commits,
            *notice.arguments({partition: Head(before + batch, chain)}),
        )
        assert stored
        return batch

    return append


async def against_message_db(stage: Stage, categories: int, seconds: float) -> Figures:
    """16 producers in `categories` categories."""
    async with AsyncExitStack() as stack:
        appends = []
        for number in range(16):
            connection, append = await message_db.producer(
                stage.database.admin, number, categories, "x" * (EVENT_BYTES - len('{"text": ""}'))
            )
            stack.push_async_callback(connection.close)
            appends.append(append)
        return await closed_loop("message-db", _category_setting(categories), appends, seconds)


async def against_eventsourcing(stage: Stage, seconds: float) -> Figures:
    """16 producers, one event a call."""
    peer = eventsourcing_library.Peer(stage.database.admin, 16)
    try:
        appends = [peer.producer("x" * EVENT_BYTES) for _ in range(16)]
        setting = "16 producers, 1 event each"
        return await closed_loop(f"eventsourcing {eventsourcing_library.version()}", setting, appends, seconds)
    finally:
        peer.close()


def verdicts(rows: list[Figures]) -> Iterator[str]:
    """The figures of the headline beside floor and peers: the median of the rounds, and their range."""
    heads = [row for row in rows if row.setting == _setting(*HEADLINE)]
    floors = [row for row in rows if row.subject.startswith("bare")]
    speed = median(row.per_second for row in heads)
    single, many = (next(row for row in rows if row.setting == _category_setting(count)) for count in (1, 16))
    yield f"headline: {_setting(*HEADLINE)}, {ROUNDS} rounds"
    yield f"{_range([row.per_second for row in heads], ',.0f')} events/s"
    yield f"p99 {_range([row.percentile(0.99) for row in heads], '.1f')} ms (wanted: ≤ 15)"
    yield f"x {speed / single.per_second:.1f} of message-db with one category (wanted: ≥ 8)"
    yield f"x {speed / many.per_second:.1f} of message-db with 16 categories (wanted: ≥ 2.5)"
    shares = [ours.per_second / bare.per_second for ours, bare in zip(heads, floors, strict=True)]
    yield f"x {_range(shares, '.2f')} of the bare group commit (wanted: ≥ 0.5)"


def _range(values: list[float], form: str) -> str:
    low, middle, high = (format(value, form) for value in (min(values), median(values), max(values)))
    return f"{middle} ({low} to {high})"


def _category_setting(categories: int) -> str:
    return f"16 producers, {categories} categories, 1 event each"


async def _run(stage: Stage, seconds: float) -> list[Figures]:
    rows = [await ours(stage, *series, seconds) for series in SERIES]
    for _ in range(ROUNDS):
        headline = await ours(stage, *HEADLINE, seconds)
        appends = round(float(headline.note.split()[0]))
        rows += [headline, await floor(stage, appends, HEADLINE[2], seconds)]
    await message_db.install(stage.database.admin)
    rows.append(await against_message_db(stage, 1, seconds))
    rows.append(await against_message_db(stage, 16, seconds))
    rows.append(await against_eventsourcing(stage, seconds))
    return rows


def main() -> None:
    """Run all series and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.append", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each series")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    started = time.monotonic()
    with stage() as made:
        rows = uvloop.run(_run(made, arguments.seconds))
    report("Append", rows, arguments.json)
    for line in verdicts(rows):
        print(line)
    print(f"took {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()

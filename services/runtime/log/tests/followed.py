"""A table that a tail follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oa_base.refusal import Refusal
from oa_runlog.events import EventType
from oa_testing.metrics import value_of
from services.runtime.authority.domain import Head
from services.runtime.log import metrics
from services.runtime.log.app.tail import Tail
from services.runtime.log.domain.records import LogRecord
from services.runtime.log.limits import TailLimits

LIMITS = TailLimits(ring_entries=8, ring_bytes=1024, page_entries=5, page_bytes=1024, repair_retry_ms=10)


def entry(position: int, size: int = 10) -> LogRecord:
    return LogRecord(position, "run", position, EventType.TEXT_DELTA, position.to_bytes(4) + b"x" * (size - 4))


def behind() -> int:
    """Entries of partition 0 that are known to be stored and were not followed yet."""
    return int(value_of(metrics.TAIL_BEHIND.labels("0")))


class FakeLog:
    """A table: what was committed. `broken` reads are refused, and all of the partitions in `damaged` fail as `damage`
    does."""

    def __init__(self, partitions: int = 1) -> None:
        self.table: dict[int, list[LogRecord]] = {partition: [] for partition in range(partitions)}
        self.reads = 0
        self.broken = 0
        self.damaged: set[int] = set()
        self.damage: Exception = Refusal("archive_damaged", "damaged by the test")

    def commit(self, count: int, partition: int = 0) -> dict[int, list[LogRecord]]:
        rows = self.table[partition]
        new = [entry(len(rows) + number) for number in range(1, count + 1)]
        rows.extend(new)
        return {partition: new}

    async def heads(self) -> dict[int, Head]:
        return {partition: Head(len(rows), b"") for partition, rows in self.table.items()}

    async def log_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[LogRecord]:
        await asyncio.sleep(0)
        self.reads += 1
        if self.broken:
            self.broken -= 1
            raise Refusal("unavailable", "broken by the test")
        if partition in self.damaged:
            raise self.damage
        return self.table[partition][after : after + max_entries]

    async def bytes_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[bytes]:
        return [record.data for record in await self.log_page(partition, after, max_entries, max_bytes)]


@asynccontextmanager
async def following(log: FakeLog, limits: TailLimits = LIMITS) -> AsyncIterator[tuple[Tail, list[int]]]:
    """A tail that follows, and the positions of partition 0 that it has handed out."""
    tail, heard = Tail(log, limits), list[int]()
    await tail.start()
    tail.listen(lambda records: heard.extend(record.position for record in records))
    task = asyncio.create_task(tail.run())
    try:
        yield tail, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

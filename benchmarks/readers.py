"""Readers of one partition of the log: through a replica, and by the bare statement that is their floor.

Events carry the moment at which their append began, by the machine's monotonic clock. All processes share that clock,
so a reader in another process can tell how old events are when they arrive.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import asyncpg
import grpc.aio
import uvloop

from benchmarks.stage import PROJECTOR_TOKEN, Stage
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import event_pb2, log_service_pb2
from openagents.runtime.v1.log_service_pb2_grpc import LogServiceStub

Page = tuple[int, Sequence[bytes]]
"""Position of the first event, and the bytes of all."""
PARTITION = 0
AS_PROJECTOR = [("x-oa-service-token", PROJECTOR_TOKEN)]
SELECT = "SELECT position, body FROM runtime.events WHERE partition = $1 AND position > $2 ORDER BY position"
POLL_S = 0.001
"""Pause of the bare reader after it has found nothing."""

_MARK = b"\x00begun:\x00"
_STAMP_BYTES = len(_MARK) + 8
MESSAGE_LIMIT = [("grpc.max_receive_message_length", 8 << 20)]


# ------------------------------------------------------------------------------------------------- stamps


def stamped_events(count: int, size: int, now_ns: int) -> list[event_pb2.EventBody]:
    """`count` text deltas of `size` bytes that carry the moment at which their append began."""
    data = _MARK + now_ns.to_bytes(8, "big") + b"x" * (size - _STAMP_BYTES)
    delta = event_pb2.TextDelta(stream=event_pb2.TEXT_STREAM_STDOUT, data=data)
    return [event_pb2.EventBody(text_delta=delta) for _ in range(count)]


def begun_ns(event: bytes) -> int | None:
    """The moment in a stored event's stamp; None if it has no stamp. Faster than decoding the event."""
    at = event.find(_MARK)
    if at < 0:
        return None
    return int.from_bytes(event[at + len(_MARK) : at + _STAMP_BYTES], "big")


# ------------------------------------------------------------------------------------------------- readers


async def one_partition(stage: Stage) -> None:
    """Put all runs of this installation in `PARTITION`, because the floor reads one. Call before a replica starts."""
    admin = await asyncpg.connect(stage.database.admin)
    await admin.execute("UPDATE runtime.installation SET partitions = 1")
    await admin.close()


async def head(target: str) -> int:
    """Newest position of the partition."""
    async with grpc.aio.insecure_channel(target) as channel:
        request = log_service_pb2.DescribeLogRequest()
        heads = (await LogServiceStub(channel).DescribeLog(request, metadata=AS_PROJECTOR)).heads
    return next(place.position for place in heads if place.partition == PARTITION)


async def through_replica(target: str, after: int) -> AsyncGenerator[Page, None]:
    """Pages from LogService.TailLog."""
    async with grpc.aio.insecure_channel(target, options=MESSAGE_LIMIT) as channel:
        stub = LogServiceStub(channel)
        epoch = (await stub.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=AS_PROJECTOR)).epoch
        place = cursor_pb2.LogPosition(partition=PARTITION, position=after)
        request = log_service_pb2.TailLogRequest(epoch=epoch, after=[place])
        async for message in stub.TailLog(request, metadata=AS_PROJECTOR):
            yield message.first_position, message.events


async def by_polling(dsn: str, after: int) -> AsyncGenerator[Page, None]:
    """Pages from the bare statement, repeated: the floor of a live tail."""
    connection = await asyncpg.connect(dsn)
    try:
        statement = await connection.prepare(SELECT)
        while True:
            rows = await statement.fetch(PARTITION, after)
            if not rows:
                await asyncio.sleep(POLL_S)
                continue
            yield after + 1, [row["body"] for row in rows]
            after = rows[-1]["position"]
    finally:
        await connection.close()


async def by_cursor(dsn: str, after: int, prefetch: int) -> AsyncGenerator[Page, None]:
    """Pages from the bare statement, by a cursor that fetches `prefetch` rows at a time: the floor of a catch-up."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(readonly=True):
            cursor = await connection.cursor(SELECT, PARTITION, after)
            while rows := await cursor.fetch(prefetch):
                yield after + 1, [row["body"] for row in rows]
                after = rows[-1]["position"]
    finally:
        await connection.close()


# ------------------------------------------------------------------------------------------------- watchers


@dataclass(frozen=True)
class Watch:
    """The task of `count` watchers at once, measured between two moments of the monotonic clock (ns)."""

    where: str
    """A replica's gRPC target, or the DSN of the database for the bare statement."""
    is_bare: bool
    count: int
    after: int
    begin_ns: int
    end_ns: int


@dataclass
class Seen:
    """What all watchers together got in their time: the events, and the age (ms) of each page's oldest event."""

    events: int = 0
    ages_ms: list[float] = field(default_factory=list)

    def add(self, page: Sequence[bytes], now_ns: int) -> None:
        """Add a page that arrived at `now_ns`."""
        self.events += len(page)
        begun = begun_ns(page[0])
        if begun is not None:
            self.ages_ms.append((now_ns - begun) / 1e6)


def watch(task: Watch) -> Seen:
    """Carry out a task in this process, in an event loop of its own. Asserts that no position is left out."""
    return uvloop.run(_watch_all(task))


async def _watch_all(task: Watch) -> Seen:
    seen = Seen()
    await asyncio.gather(*(_watch(task, seen) for _ in range(task.count)))
    return seen


async def _watch(task: Watch, seen: Seen, now: Callable[[], int] = time.monotonic_ns) -> None:
    pages = (by_polling if task.is_bare else through_replica)(task.where, task.after)
    expected = task.after + 1
    try:
        async with asyncio.timeout((task.end_ns - now()) / 1e9):
            async for first, page in pages:
                assert first == expected, f"position {first} came where {expected} was due"
                expected += len(page)
                arrived = now()
                if task.begin_ns <= arrived <= task.end_ns:
                    seen.add(page, arrived)
    except TimeoutError:
        pass
    finally:
        await pages.aclose()

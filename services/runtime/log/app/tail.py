"""The log as this replica follows it: its own commits and those of other replicas, merged by position without a hole.

Own commits come from the sequencers (`publish`). Hints of other commits come from a fan-out (`hint`) and contain no
entries. A gap between the head and a known position is a hole, and holes are read from the table, so hints may get
lost, repeat or come late. They may also be wrong, because whoever reaches the fan-out can send one: a position that the
table does not have is forgotten.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import structlog
from prometheus_client import Gauge

from oa_base.refusal import Refusal
from oa_base.ring import Ring
from oa_platform.health.failures import note_survived, reason_of
from oa_platform.telemetry.tracing import sampled_traceparent
from services.runtime.authority.domain import Head
from services.runtime.log import metrics
from services.runtime.log.app.ports import LogPages
from services.runtime.log.app.traces import follow_span
from services.runtime.log.domain.records import LogRecord
from services.runtime.log.limits import TailLimits

_log = structlog.get_logger(__name__)
Listener = Callable[[Sequence[LogRecord]], None]
"""Takes consecutive records of one partition. Must not block. An error of one is logged, and holds up no other."""
MAX_TRACED = 64
"""Maximum number of traced commits of a partition that readers learn of: the newest, because they read what is new."""


@cache  # finding a metric by its label costs more than setting it
def _behind_of(partition: int) -> Gauge:
    return metrics.TAIL_BEHIND.labels(str(partition))


class _Partition(Ring[LogRecord]):
    """The head of one partition, with the chain value there, and the newest records."""

    def __init__(self, number: int, head: Head, limits: TailLimits) -> None:
        super().__init__(head.position, _size, limits.ring_entries, limits.ring_bytes)
        self.number = number
        # The `traceparent` of the first traced commit that was hinted at since a page was read.
        self.traceparent = ""
        # The newest traced commits: position of the last entry, and the span in which it arrived here.
        self._traced: deque[tuple[int, str]] = deque(maxlen=MAX_TRACED)
        self._chain = head.chain

    def offer(self, records: Sequence[LogRecord]) -> Sequence[LogRecord]:
        """Take and return the records that directly follow the head; note how far the partition is known to go."""
        new = self.take(records[0].position, records)
        if new:
            self._chain = new[-1].chain
            if traceparent := sampled_traceparent():
                self._traced.append((self.head, traceparent))
        return new

    def traced(self, after: int, up_to: int) -> str:
        """`traceparent` of the first traced commit that ends in these entries; else empty."""
        return next((traceparent for last, traceparent in self._traced if after < last <= up_to), "")

    @property
    def followed(self) -> Head:
        """The head, with the chain value there."""
        return Head(self.head, self._chain)


def _size(record: LogRecord) -> int:
    return len(record.data)


class Tail:
    """Follows all partitions. Call `start` first; `run` repairs holes until canceled."""

    def __init__(self, reader: LogPages, limits: TailLimits) -> None:
        self._reader = reader
        self._limits = limits
        self._partitions: dict[int, _Partition] = {}
        self._listeners: list[Listener] = []
        self._bells: set[TailBell] = set()
        self._behind = asyncio.Event()
        self._behind_since: dict[int, float] = {}

    async def start(self) -> None:
        """Begin to follow at the current heads."""
        self.restart(await self._reader.heads())

    def restart(self, heads: Mapping[int, Head]) -> None:
        """Follow from these heads on and forget earlier state: the log has a different past. All readers wake up."""
        self._partitions = {number: _Partition(number, head, self._limits) for number, head in heads.items()}
        self._behind_since.clear()
        for bell in self._bells:
            bell.ring(self._partitions)

    def listen(self, listener: Listener) -> None:
        """Hand every record to `listener` from now on, in the order of each partition."""
        self._listeners.append(listener)

    def heads(self) -> dict[int, Head]:
        """Partition -> how far it has been followed."""
        return {number: partition.followed for number, partition in self._partitions.items()}

    # ------------------------------------------------------------------------------------------------- what comes in

    def publish(self, records: Mapping[int, Sequence[LogRecord]]) -> None:
        """Take an own commit: partition -> its new records."""
        for partition, its_own in records.items():
            self._offer(self._partitions[partition], its_own)

    def hint(self, partition: int, position: int, traceparent: str = "") -> None:
        """Note that a partition has reached `position`, by the commit of that trace if it is known."""
        one = self._partitions.get(partition)
        if one is None or position <= one.head:
            return
        one.traceparent = one.traceparent or traceparent
        if position > one.known_head:
            one.expect(position)
            self._note_behind(one)

    def _offer(self, partition: _Partition, records: Sequence[LogRecord]) -> None:
        new = partition.offer(records)
        self._note_behind(partition)
        if not new:
            return
        for listener in self._listeners:
            try:
                listener(new)
            except Exception as error:  # noqa: BLE001 - it holds up no other
                note_survived(_log, "listener_failed", error, partition=partition.number, position=new[0].position)
        for bell in self._bells:
            bell.ring((partition.number,))

    def _note_behind(self, partition: _Partition) -> None:
        behind = partition.known_head - partition.head
        _behind_of(partition.number).set(behind)
        if behind:
            self._behind.set()
            self._behind_since.setdefault(partition.number, time.monotonic())
            return
        partition.traceparent = ""
        if (since := self._behind_since.pop(partition.number, None)) is not None:
            metrics.TAIL_LAG_SECONDS.observe(time.monotonic() - since)

    # ------------------------------------------------------------------------------------------------- repair

    async def run(self) -> None:
        """Read missing entries until canceled. A partition that can't be read holds up no other."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            failures = {await self._catch_up(partition) for partition in self._partitions.values()} - {""}
            if failures:
                _log.warning("tail_repair_failed", reasons=sorted(failures))
                self._behind.set()
                await asyncio.sleep(self._limits.repair_retry_ms / 1000)

    async def _catch_up(self, partition: _Partition) -> str:
        """Read until nothing is missing. Returns the reason if something still is, or ""."""
        try:
            while partition.hole:
                traceparent, partition.traceparent = partition.traceparent, ""
                with follow_span(traceparent, partition.known_head - partition.head):
                    records = await self._next_page(partition)
                    if self._partitions[partition.number] is not partition:
                        return ""  # the tail has been restarted
                    if not records:
                        # The table does not show them yet, or a hint was wrong.
                        return "unavailable" if await self._is_stored(partition) else ""
                    self._offer(partition, records)
        except Refusal as refusal:
            return refusal.reason
        except Exception as error:  # noqa: BLE001 - the other partitions go on
            note_survived(_log, "partition_not_followed", error, partition=partition.number)
            return reason_of(error)
        return ""

    async def _is_stored(self, partition: _Partition) -> bool:
        """Whether something follows on the head, as the log's heads say. If not, nothing is expected any more."""
        expected = partition.known_head
        stored = (await self._reader.heads())[partition.number].position
        if stored > partition.head or partition.known_head != expected:
            return True
        _log.warning("wrong_hint", partition=partition.number, position=expected, stored=stored)
        partition.expect_nothing()
        self._note_behind(partition)
        return False

    async def _next_page(self, partition: _Partition) -> Sequence[LogRecord]:
        metrics.TAIL_REPAIRS.inc()
        limits = self._limits
        return await self._reader.log_page(partition.number, partition.head, limits.page_entries, limits.page_bytes)

    # ------------------------------------------------------------------------------------------------- readers

    async def read(self, partition: int, after: int) -> Sequence[bytes]:
        """The stored bytes of the entries after a position: a page of consecutive ones, empty at the head.

        Raises Refusal as `LogPages.bytes_page`.
        """
        limits = self._limits
        page = self._partitions[partition].slice(after + 1, limits.page_entries, limits.page_bytes)
        if page is not None:
            return [record.data for record in page]
        return await self._reader.bytes_page(partition, after, limits.page_entries, limits.page_bytes)

    def traced(self, partition: int, after: int, up_to: int) -> str:
        """`traceparent` of the first traced commit that ends in the entries after a position; else empty."""
        return self._partitions[partition].traced(after, up_to)

    def bell(self) -> TailBell:
        """Return a bell that rings when there is news."""
        return TailBell(self._bells, self._partitions)


class TailBell:
    """Tells one reader which partitions have news. Use as a context manager."""

    def __init__(self, bells: set[TailBell], partitions: Iterable[int]) -> None:
        self._bells = bells
        self._moved = set(partitions)
        self._rung = asyncio.Event()

    def __enter__(self) -> TailBell:
        self._bells.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._bells.discard(self)

    def ring(self, partitions: Iterable[int]) -> None:
        """Note that these partitions have news."""
        self._moved.update(partitions)
        self._rung.set()

    def moved(self) -> set[int]:
        """Return the partitions with news since the last call; the first call returns all. Call this before reading."""
        moved, self._moved = self._moved, set()
        self._rung.clear()
        return moved

    async def wait(self) -> None:
        """Wait until the bell has rung since the last call of `moved`."""
        await self._rung.wait()

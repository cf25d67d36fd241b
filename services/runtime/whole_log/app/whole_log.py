"""The log as readers see it: whole, from position 1 to the head, regardless of what was archived and pruned.

Above a partition's floor, nothing was pruned, and pages are rows of the log. Below it, pages combine rows and events of
artifacts. Pruning between two pages, or while one is made, changes nothing: a page below the floor comes from one
snapshot, in which each position is either a row or recorded as archived, and archived events never change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from oa_base.refusal import Refusal
from services.runtime.authority.domain import Head
from services.runtime.log.domain.records import LogRecord
from services.runtime.whole_log import metrics
from services.runtime.whole_log.app.artifact_cache import ArtifactCache, OpenArtifact
from services.runtime.whole_log.domain import (
    ArchivedEntry,
    Entry,
    available,
    consecutive,
    lost,
    runs_needed,
    within,
)


class LogRows(Protocol):
    """The rows of the log."""

    async def heads(self) -> dict[int, Head]:
        """Partition -> its head."""
        ...

    async def log_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[LogRecord]:
        """The rows of a partition after a position, in order; some may be missing."""
        ...

    async def bytes_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> Sequence[bytes]:
        """The bodies of the next rows; none unless these are the next entries and together within `max_bytes`."""
        ...


class PrunedLog(Protocol):
    """How far the log was pruned, and the entries below that."""

    async def floor(self, partition: int) -> int:
        """The highest position that was pruned: above it every position has its row. It only grows."""
        ...

    async def whole_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[Entry]:
        """The next `max_entries` positions, in order, all in one snapshot; rows only as far as they are within
        `max_bytes`."""
        ...


class WholeLog:
    """Reads the whole log."""

    def __init__(self, rows: LogRows, pruned: PrunedLog, artifact_cache: ArtifactCache) -> None:
        self._rows = rows
        self._pruned = pruned
        self._artifact_cache = artifact_cache
        self._floors: dict[int, int] = {}
        """Partition -> its last known floor: pages from above it are tried as rows first."""

    async def heads(self) -> dict[int, Head]:
        """Partition -> its head."""
        return await self._rows.heads()

    def forget(self) -> None:
        """Forget the floors and the artifacts: the log has a different past. A floor may be lower than it
        was, and a run may have ended differently."""
        self._floors.clear()
        self._artifact_cache.forget()

    async def log_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> Sequence[LogRecord]:
        """Consecutive entries after a position; empty at the head.

        Raises Refusal unavailable; archive_damaged where the next one is lost.
        """
        if after >= self._floors.get(partition, 0):
            rows = await self._rows.log_page(partition, after, max_entries, max_bytes)
            if page := consecutive(after, rows):
                return page
            # It is read after the rows, so that it covers everything that was pruned before they were read.
            self._floors[partition] = await self._pruned.floor(partition)
            if after >= self._floors[partition]:
                if rows:
                    raise lost(partition, after + 1)
                return ()
        return await self._page_below_floor(partition, after, max_entries, max_bytes)

    async def bytes_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> Sequence[bytes]:
        """Like `log_page`, but only the stored bytes. Usually, no object is made for an entry except its bytes."""
        if after >= self._floors.get(partition, 0):
            page = await self._rows.bytes_page(partition, after, max_entries, max_bytes)
            if page:
                return page
        return [record.data for record in await self.log_page(partition, after, max_entries, max_bytes)]

    async def _page_below_floor(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[LogRecord]:
        entries = consecutive(after, await self._pruned.whole_page(partition, after, max_entries, max_bytes))
        if not entries:
            raise lost(partition, after + 1)
        async with self._artifact_cache.taken(runs_needed(entries)) as found:
            artifacts = {run_id: one for run_id, one in found.items() if isinstance(one, OpenArtifact)}
            page = available(entries, artifacts)
            if not page and isinstance(refusal := found[entries[0].run_id], Refusal):
                raise refusal
            page = within(page, lambda entry: _size(entry, artifacts), max_bytes)
            records = await asyncio.to_thread(lambda: [_record(entry, artifacts) for entry in page])
        metrics.ARCHIVED_ENTRIES_READ.inc(sum(isinstance(entry, ArchivedEntry) for entry in page))
        return records


def _size(entry: Entry, artifacts: Mapping[str, OpenArtifact]) -> int:
    if isinstance(entry, LogRecord):
        return len(entry.data)
    return artifacts[entry.run_id].line_bytes(entry.seq)


def _record(entry: Entry, artifacts: Mapping[str, OpenArtifact]) -> LogRecord:
    if isinstance(entry, LogRecord):
        return entry
    kind, data = artifacts[entry.run_id].event(entry.seq)
    return LogRecord(entry.position, entry.run_id, entry.seq, kind, data)

"""The artifact cache: artifacts of archived runs, open on the temporary disk, for readers of the log below its floor.

The runs of a partition interleave, so a page of the log needs many artifacts at a time, and the next page needs mostly
the same ones. Each is fetched and its hash checked once for all readers of this replica. It stays until others need the
room; the least recently used one goes first.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from oa_base.refusal import Refusal
from oa_platform.telemetry.metrics import show_at_zero
from oa_runlog.proof.replay import read_event_line
from services.runtime.archive.app.archive import Archived
from services.runtime.archive.app.spool import Spool
from services.runtime.whole_log import metrics
from services.runtime.whole_log.domain import affordable
from services.runtime.whole_log.limits import ArtifactCacheLimits

_log = structlog.get_logger(__name__)


class ArtifactReader(Protocol):
    """Reads the archive."""

    async def read(self, archived: Archived) -> Spool:
        """The artifact in an object, its hash checked. Raises Refusal archive_damaged, unavailable."""
        ...


class ArchivedRuns(Protocol):
    """The records of the archive."""

    async def find_all(self, run_ids: Sequence[str]) -> dict[str, Archived]:
        """Run -> the archive's record of it; runs that are not archived are left out."""
        ...


@dataclass(frozen=True, slots=True)
class OpenArtifact:
    """An artifact whose events can be read in any order; `ends[n]` is where its line n ends, the header being line 0.

    The ends take 8 bytes of memory for each event, a thirtieth of the size of its line on the disk, or less.
    """

    run_id: str
    spool: Spool
    ends: array[int]

    @classmethod
    def of(cls, run_id: str, spool: Spool) -> OpenArtifact:
        """Find the lines. Blocks."""
        ends, offset = array("Q"), 0
        for piece in spool.pieces():
            end = 0
            while end := piece.find(b"\n", end) + 1:
                ends.append(offset + end)
            offset += len(piece)
        return cls(run_id, spool, ends)

    def line_bytes(self, seq: int) -> int:
        """Length of an event's line, which is more than that of the event."""
        return self.ends[seq] - self.ends[seq - 1] if seq < len(self.ends) else 0

    def event(self, seq: int) -> tuple[str, bytes]:
        """Type and stored bytes of an event. Blocks. Raises Refusal archive_damaged if the line is not the event's."""
        line = self.spool.read(self.ends[seq - 1], self.line_bytes(seq)) if self.line_bytes(seq) else b""
        try:
            found, kind, data = read_event_line(line)
            if found == seq:
                return kind, data
        except (KeyError, ValueError):
            pass
        text = f"event {seq} is not where it should be in the run's artifact; ask the operators to restore the archive"
        raise Refusal("archive_damaged", text, metadata={"run_id": self.run_id, "seq": str(seq)})


_Kept = OrderedDict[str, OpenArtifact]
"""Run -> its artifact; the one used last is the last."""


class ArtifactCache:
    """Keeps artifacts open. Its callers take turns, so that the limits hold for all of them together."""

    def __init__(self, records: ArchivedRuns, archive: ArtifactReader, limits: ArtifactCacheLimits) -> None:
        self._records = records
        self._archive = archive
        self._limits = limits
        self._kept: _Kept = OrderedDict()
        self._turn = asyncio.Lock()
        self._is_away = False
        """Whether the archive could not be read the last time, so that the log says it once, and not for each run."""
        show_at_zero(metrics.ARTIFACT_CACHE_FAILURES, ("archive_damaged", "unavailable"))

    @asynccontextmanager
    async def taken(self, run_ids: Sequence[str]) -> AsyncIterator[Mapping[str, OpenArtifact | Refusal]]:
        """The artifacts of these runs, given in the order of need, for the length of a block, which should be short.

        The last ones are left out if they would exceed the limits, but never the first one. The Refusal stands in place
        of an artifact that can't be read: archive_damaged, unavailable.
        """
        if not run_ids:
            yield {}
            return
        async with self._turn:
            kept = self._kept
            found = await self._records.find_all([one for one in run_ids if one not in kept])
            sizes = [kept[one].spool.size if one in kept else found[one].bytes for one in run_ids]
            wanted = run_ids[: affordable(sizes, self._limits.artifacts, self._limits.bytes)]
            for run_id in filter(kept.__contains__, wanted):
                kept.move_to_end(run_id)
            missing = [found[run_id] for run_id in wanted if run_id in found]
            self._make_room(kept, len(missing), sum(one.bytes for one in missing), len(wanted) - len(missing))
            at_hand = {run_id: kept[run_id] for run_id in wanted if run_id in kept}
            yield at_hand | await self._fetch(missing, kept)

    def forget(self) -> None:
        """Keep none of the artifacts that are open now. Readers that have one, or fetch one, still finish with it."""
        self._kept = OrderedDict()

    def _make_room(self, kept: _Kept, count: int, size: int, used: int) -> None:
        """Make room for `count` artifacts of `size` bytes in all; the `used` ones that were moved to the end stay."""
        limits = self._limits
        size += sum(one.spool.size for one in kept.values())
        while len(kept) > used and (len(kept) + count > limits.artifacts or size > limits.bytes):
            # Not closed, because a thread whose reader has gone may still read it. It goes with the last reference.
            _, gone = kept.popitem(last=False)
            size -= gone.spool.size

    async def _fetch(self, missing: Sequence[Archived], kept: _Kept) -> dict[str, OpenArtifact | Refusal]:
        fetching = asyncio.Semaphore(self._limits.fetches)
        async with asyncio.TaskGroup() as tasks:
            made = {one.run_id: tasks.create_task(self._fetch_one(one, kept, fetching)) for one in missing}
        return {run_id: task.result() for run_id, task in made.items()}

    async def _fetch_one(self, archived: Archived, kept: _Kept, fetching: asyncio.Semaphore) -> OpenArtifact | Refusal:
        async with fetching:
            try:
                spool = await self._archive.read(archived)
            except Refusal as refusal:
                self._note_unreadable(archived.run_id, refusal.reason)
                return refusal
            artifact = await asyncio.to_thread(OpenArtifact.of, archived.run_id, spool)
        self._is_away = False
        metrics.ARTIFACT_CACHE_FETCHES.inc()
        kept[archived.run_id] = artifact
        return artifact

    def _note_unreadable(self, run_id: str, reason: str) -> None:
        metrics.ARTIFACT_CACHE_FAILURES.labels(reason).inc()
        is_away = reason == "unavailable"
        if not (is_away and self._is_away):
            _log.warning("archived_run_unreadable", run_id=run_id, reason=reason)
        self._is_away = self._is_away or is_away

"""Topics that the runtime serves: `run:{id}:events`, from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import structlog

from oa_errors import Refusal
from oa_khala.topics import RUN_EVENTS, parse_topic, run_events
from oa_khala.wire import event_frame
from oa_runlog.chain import chain_start
from services.runtime.app import metrics
from services.runtime.app.limits import TopicLimits
from services.runtime.app.lineage import Lineage
from services.runtime.app.metrics_proof import ARCHIVE_DAMAGED
from services.runtime.app.ports import LogReader
from services.runtime.domain.batch import LogRecord

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """Where a topic stands, and whom it belongs to."""

    topic: str
    epoch: str
    floor: int
    head: int
    chain_head: bytes
    owner_user_id: str
    owner_org_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive frames of a topic: serialized KhalaFrames."""

    topic: str
    first_seq: int
    frames: Sequence[bytes]


class Topics:
    """Describes and replays topics, and hands live frames to watchers. It is a listener of the tail."""

    def __init__(self, reader: LogReader, lineage: Lineage, limits: TopicLimits) -> None:
        self._reader = reader
        self._lineage = lineage
        self.limits = limits
        self._watchers: dict[str, set[Watcher]] = {}

    @property
    def epoch(self) -> str:
        """The lineage of all topics of the log."""
        return self._lineage.epoch

    async def describe(self, topic: str) -> TopicDescription:
        """Raises Refusal invalid_topic, not_found."""
        run_id, epoch = _run_of(topic), self.epoch
        run = await self._reader.run(run_id)
        if run is None:
            raise Refusal("not_found", "there is no such topic", field="topic")
        state = run.state
        return TopicDescription(
            topic, epoch, run.floor, state.latest_seq, state.chain_head, state.user_id, state.org_id
        )

    async def replay(
        self, topic: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> tuple[Page, TopicDescription]:
        """A page of history; numbers of 0 mean the defaults. `after_chain`: the chain value at `after_seq`, if known.

        Raises Refusal epoch_mismatch, cursor_ahead_of_head, retention_floor_breach, archive_damaged.
        """
        described = await self.describe(topic)
        if epoch != described.epoch:
            raise _stale("epoch_mismatch", "the cursor counts in another lineage of the topic", "epoch", described)
        if after_seq > described.head:
            raise _stale("cursor_ahead_of_head", "the cursor claims more than there is", "after_seq", described)
        if after_chain:
            await self._check_content(described, after_seq, after_chain)
        events = await self._reader.run_page(
            _run_of(topic), after_seq, max_frames or self.limits.page_frames, max_bytes or self.limits.page_bytes
        )
        frames = [event_frame(topic, seq, data) for seq, data in _up_to_a_hole(after_seq, events)]
        if not frames and after_seq < described.head:
            raise await self._not_there(topic, after_seq + 1)
        return Page(topic, after_seq + 1, frames), described

    async def _check_content(self, described: TopicDescription, after_seq: int, after_chain: bytes) -> None:
        """The numbers of a cursor may fit another history; its chain value fits only the one that it was made from."""
        run_id = _run_of(described.topic)
        if after_seq in (0, described.head):
            chain = chain_start(run_id) if after_seq == 0 else described.chain_head
        else:
            stored = await self._reader.chain_at(run_id, after_seq)
            if stored is None:
                raise await self._not_there(described.topic, after_seq)
            chain = stored
        if chain != after_chain:
            text = "the cursor was made from other events than the topic's; start without one"
            metadata = {"chain": chain.hex(), "after_chain": after_chain.hex()}
            raise _stale("epoch_mismatch", text, "after_chain", described, metadata)

    async def _not_there(self, topic: str, seq: int) -> Refusal:
        """Why an event of a run is not in the log."""
        described = await self.describe(topic)  # it was archived, perhaps only now
        if seq <= described.floor:
            text = "the run's events have moved to the archive; ReplayService has its replay artifact"
            return _stale("retention_floor_breach", text, "after_seq", described)
        ARCHIVE_DAMAGED.inc()
        _log.error("archive_damaged", topic=topic, seq=seq, what="is neither in the log nor in the archive")
        text = "an event of the run is neither in the log nor in the archive; nothing after it is served"
        return Refusal("archive_damaged", text, field="after_seq", metadata={"seq": str(seq)})

    def watcher(self) -> Watcher:
        """A new watcher of nothing."""
        return Watcher(self)

    def on_records(self, records: Sequence[LogRecord]) -> None:
        """New records of the log: frames are made once, for all who watch."""
        for record in records:
            watchers = self._watchers.get(record.run_id)
            if watchers:
                topic = run_events(record.run_id)
                frame = event_frame(topic, record.seq, record.data)
                for watcher in watchers:
                    watcher.offer(topic, record.seq, frame)

    def restart(self) -> None:
        """The log has another past: what waits to be carried is dropped, and each topic is described anew."""
        for watcher in {watcher for watchers in self._watchers.values() for watcher in watchers}:
            watcher.restart()

    def register(self, run_id: str, watcher: Watcher) -> None:
        """Hand the run's frames to `watcher` from now on."""
        self._watchers.setdefault(run_id, set()).add(watcher)
        metrics.TOPICS_WATCHED.inc()

    def unregister(self, run_id: str, watcher: Watcher) -> None:
        """No more."""
        watchers = self._watchers.get(run_id)
        if watchers and watcher in watchers:
            watchers.discard(watcher)
            metrics.TOPICS_WATCHED.dec()
            if not watchers:
                del self._watchers[run_id]


class Watcher:
    """What one Watch stream carries: pending frames, bounded. A context manager."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._limit = topics.limits.pending_bytes
        self._watched: set[str] = set()
        self._pending: dict[str, list[tuple[int, bytes]]] = {}
        self._pending_bytes = 0
        self._overrun: set[str] = set()
        self._news = asyncio.Event()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        for run_id in self._watched:
            self._topics.unregister(run_id, self)
        self._watched.clear()

    async def add(self, topic: str) -> TopicDescription:
        """Carry a topic. What is committed after the returned head was read is offered. Raises Refusal."""
        run_id = _run_of(topic)
        if run_id not in self._watched and len(self._watched) >= self._topics.limits.watched_topics:
            raise Refusal("too_many_topics", f"one stream carries at most {len(self._watched)} topics", field="topic")
        fresh = run_id not in self._watched
        if fresh:
            # Before the head is read: what is stored in between is then offered twice rather than never.
            self._watched.add(run_id)
            self._topics.register(run_id, self)
        try:
            return await self._topics.describe(topic)
        except Refusal:
            if fresh:
                self.remove(topic)
            raise

    def remove(self, topic: str) -> None:
        """Carry it no more."""
        run_id = _run_of(topic)
        if run_id in self._watched:
            self._watched.discard(run_id)
            self._topics.unregister(run_id, self)
        self._pending_bytes -= sum(len(frame) for _, frame in self._pending.pop(topic, ()))

    def offer(self, topic: str, seq: int, frame: bytes) -> None:
        """A live frame; dropped when too much waits, which the reader is told with the topic's head."""
        self._news.set()
        if self._pending_bytes + len(frame) > self._limit:
            self._overrun.add(topic)
            metrics.FRAMES_DROPPED.inc()
            return
        self._pending_bytes += len(frame)
        self._pending.setdefault(topic, []).append((seq, frame))

    def restart(self) -> None:
        """Drop what waits; the reader is told where each topic stands now."""
        self._pending, self._pending_bytes = {}, 0
        self._overrun = {run_events(run_id) for run_id in self._watched}
        self._news.set()

    async def take(self) -> tuple[list[Page], list[str]]:
        """Wait for news; the pending frames as pages without holes, and the topics that lost some."""
        await self._news.wait()
        self._news.clear()
        pending, overrun = self._pending, self._overrun
        self._pending, self._overrun, self._pending_bytes = {}, set(), 0
        pages = [page for topic, frames in pending.items() for page in _pages(topic, frames)]
        return pages, sorted(overrun)


def _pages(topic: str, frames: list[tuple[int, bytes]]) -> list[Page]:
    """Frames as runs of consecutive ones."""
    pages: list[tuple[int, list[bytes]]] = []
    for seq, frame in frames:
        if pages and pages[-1][0] + len(pages[-1][1]) == seq:
            pages[-1][1].append(frame)
        else:
            pages.append((seq, [frame]))
    return [Page(topic, first, joined) for first, joined in pages]


def _up_to_a_hole(after_seq: int, events: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    for expected, event in enumerate(events, after_seq + 1):
        if event[0] != expected:
            return
        yield event


def _run_of(topic: str) -> str:
    parsed = parse_topic(topic)
    if parsed.topic_class is not RUN_EVENTS:
        raise Refusal("not_found", f"topics of the class {parsed.topic_class.name} are not served here", field="topic")
    return parsed.subject_id


def _stale(
    reason: str, text: str, field: str, described: TopicDescription, more: Mapping[str, str] = MappingProxyType({})
) -> Refusal:
    metadata = {"epoch": described.epoch, "floor": str(described.floor), "head": str(described.head)}
    return Refusal(reason, text, field=field, metadata={**metadata, **more})

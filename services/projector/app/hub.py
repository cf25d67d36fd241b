"""Live rows of the topics that somebody watches, in the order of their seqs.

The hub knows, for each watched topic, the last seq that it handed out. Rows that continue there go out at once.
Anything else (commits that came back in another order, another replica's, one whose answer was lost) only says
that the journal has more: the hub then reads what is missing from the journal. So nothing is parked, and there is one
way to repair whatever happened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from oa_errors import Refusal
from services.projector.app.ports import NOWHERE, JournalRow, JournalStore, TopicPosition


@dataclass(frozen=True, kw_only=True)
class TopicLimits:
    """Bounds of what watchers and readers of topics take; `services.projector.config` documents them.

    `pending_rows`: rows that wait for one watcher; past it the watcher is closed and comes again, which costs one read.
    `poll_interval_ms`: how often the heads of watched topics are compared with the journal: the longest that another
    replica's commit, or one whose answer was lost, stays unseen.
    """

    watched_topics: int = 100_000
    pending_rows: int = 4096
    poll_interval_ms: int = 500
    page_frames: int = 500
    page_bytes: int = 1 << 20


class WatcherOverrun(Exception):
    """The watcher did not take rows fast enough and was closed."""


@dataclass(eq=False)
class Watcher:
    """One Watch stream: what it watches, and the rows that wait for it."""

    pending_limit: int
    topics: set[str] = field(default_factory=set)
    _pending: list[JournalRow] = field(default_factory=list)
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _overrun: bool = False

    def offer(self, rows: Sequence[JournalRow]) -> None:
        """Queue rows, or close the watcher when too many wait. A batch on its own is taken, however large."""
        if self._pending and len(self._pending) + len(rows) > self.pending_limit:
            self._overrun = True
            self._pending.clear()
        if not self._overrun:
            self._pending.extend(rows)
        self._ready.set()

    async def take(self) -> list[JournalRow]:
        """All rows that wait, at least one. Raises WatcherOverrun."""
        await self._ready.wait()
        self._ready.clear()
        if self._overrun:
            raise WatcherOverrun
        rows, self._pending = self._pending, []
        return rows


@dataclass(eq=False)
class _Feed:
    """A watched topic. `sent` is the last seq handed out; None until the head has been read. `missed`: rows came
    before that, and the head may not cover them."""

    sent: int | None = None
    missed: bool = False
    watchers: set[Watcher] = field(default_factory=set)


class TopicHub:
    """Hands out what is committed to those who watch."""

    def __init__(self, journal: JournalStore, limits: TopicLimits) -> None:
        self._journal = journal
        self.limits = limits
        self._feeds: dict[str, _Feed] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()

    @contextlib.contextmanager
    def watcher(self) -> Iterator[Watcher]:
        """A watcher for the time of the block."""
        watcher = Watcher(self.limits.pending_rows)
        try:
            yield watcher
        finally:
            self.remove(watcher, list(watcher.topics))

    async def add(self, watcher: Watcher, topics: Collection[str]) -> dict[str, TopicPosition]:
        """Watch `topics`; returns where each stands. What is committed after that is offered.

        The order is what makes it gap-free: registered first, the head read second. Raises Refusal(too_many_topics).
        """
        if len(watcher.topics.union(topics)) > self.limits.watched_topics:
            raise Refusal("too_many_topics", f"One stream carries at most {self.limits.watched_topics} topics.")
        for topic in topics:
            self._feeds.setdefault(topic, _Feed()).watchers.add(watcher)
            watcher.topics.add(topic)
        positions = await self._journal.positions(topics)
        for topic in topics:
            feed = self._feeds.get(topic)
            if feed is not None and feed.sent is None:
                feed.sent = positions.get(topic, NOWHERE).head
                if feed.missed:
                    self._mark(topic)
        return {topic: positions.get(topic, NOWHERE) for topic in topics}

    def remove(self, watcher: Watcher, topics: Collection[str]) -> None:
        """Watch `topics` no more; those that it does not watch are ignored."""
        for topic in topics:
            watcher.topics.discard(topic)
            feed = self._feeds.get(topic)
            if feed is not None:
                feed.watchers.discard(watcher)
                if not feed.watchers:
                    del self._feeds[topic]

    def publish(self, rows: Sequence[JournalRow]) -> None:
        """Rows that were committed, sorted by topic and seq. Never waits."""
        for topic, grouped in groupby(rows, key=lambda row: row.topic):
            feed = self._feeds.get(topic)
            if feed is None:
                continue
            listed = list(grouped)
            if feed.sent is None:
                feed.missed = True
            elif listed[0].seq == feed.sent + 1:
                self._hand_out(feed, listed)
            elif listed[-1].seq > feed.sent:
                self._mark(topic)

    def _mark(self, topic: str) -> None:
        self._dirty.add(topic)
        self._wake.set()

    async def run(self) -> None:
        """Repair what is known to be missing, and look for what is not known. Runs until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.limits.poll_interval_ms / 1000):
                    await self._wake.wait()
            self._wake.clear()
            with contextlib.suppress(Refusal):  # the next round finds what this one could not read
                await self._repair_all()

    async def _repair_all(self) -> None:
        dirty, self._dirty = self._dirty, set()
        topics = dirty or set(self._feeds)
        heads = await self._journal.positions(topics) if topics else {}
        for topic, position in heads.items():
            await self._repair(topic, position.head)

    async def _repair(self, topic: str, head: int) -> None:
        """Read on from the last seq handed out. What `publish` hands out meanwhile is not handed out again."""
        while (feed := self._feeds.get(topic)) is not None and feed.sent is not None and feed.sent < head:
            rows = await self._journal.page(topic, feed.sent, self.limits.page_frames)
            fresh = [row for row in rows if row.seq > feed.sent]
            if not rows:
                return
            self._hand_out(feed, fresh)

    @staticmethod
    def _hand_out(feed: _Feed, rows: Sequence[JournalRow]) -> None:
        if rows:
            feed.sent = rows[-1].seq
            for watcher in feed.watchers:
                watcher.offer(rows)


def runs_of(rows: Sequence[JournalRow]) -> Iterator[list[JournalRow]]:
    """Rows in pieces of one topic and consecutive seqs: what a batch on the wire is made of."""
    piece: list[JournalRow] = []
    for row in rows:
        if piece and (row.topic, row.seq) != (piece[-1].topic, piece[-1].seq + 1):
            yield piece
            piece = []
        piece.append(row)
    if piece:
        yield piece

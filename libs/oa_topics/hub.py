"""Hands committed events to watchers, in the order of their seqs.

The hub knows, for each watched topic, the last seq that it handed out. Events that continue there go out at once.
Anything else (commits that came back in another order, another replica's, one whose answer was lost) only says that the
store has more: the hub then reads what is missing. So nothing is parked, and there is one way to repair whatever
happened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from oa_base.refusal import Refusal
from oa_khala.topics import Topic
from oa_khala.wire import event_frame
from oa_topics.history import History, unbroken
from oa_topics.store import TopicDescription, TopicLimits, TopicStore
from oa_topics.watcher import Head, Origin, Watcher


class HubReport(Protocol):
    """Receives the hub's measurements."""

    def watching(self, difference: int) -> None:
        """The number of topics that streams watch has changed by this much."""
        ...

    def dropped(self, frames: int) -> None:
        """A stream had no room for this many live frames."""
        ...

    def failed(self, topic: str, error: Exception) -> None:
        """A defect keeps the further events of a topic from being read, or all topics (empty) from being looked at."""
        ...


class Publisher(Protocol):
    """Another way for frames: published once for all who take them there, without a guarantee."""

    @property
    def subject(self) -> str:
        """The place where frames are published."""
        ...

    def publish(
        self, topic: str, epoch: str, first_seq: int, frames: Sequence[bytes], origin: Origin | None = None
    ) -> bool:
        """Publish consecutive frames. False when they can't be. Never waits."""
        ...


@dataclass(eq=False, slots=True)
class _Feed:
    """A watched topic. `sent` is the last seq handed out; None until its head has been read in the lineage `epoch`.
    `since` is that head: every event above it is handed out. `missed`: events came before the head was read, and it may
    not cover them."""

    topic: Topic | None = None
    epoch: str = ""
    sent: int | None = None
    since: int = 0
    missed: bool = False
    watchers: dict[Watcher, None] = field(default_factory=dict)


class TopicHub:
    """See the module. `run` repairs until canceled; with a publisher, `run_heads` has to run, too."""

    def __init__(
        self, store: TopicStore, limits: TopicLimits, report: HubReport, publisher: Publisher | None = None
    ) -> None:
        self.history = History(store, limits)
        self._publisher = publisher
        # Positions of topics at the publication of their frames: since the last report of heads, and before it.
        self._heads: dict[str, Head] = {}
        self._old_heads: dict[str, Head] = {}
        self._store = store
        self._limits = limits
        self._report = report
        self._feeds: dict[str, _Feed] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        # Counts restarts: a read of an earlier past says nothing about the current one.
        self._past = 0

    @contextlib.contextmanager
    def watcher(self, wake: Callable[[], None]) -> Iterator[Watcher]:
        """A watcher for the duration of the block. `wake` is called when it has something to do."""
        watcher = Watcher(self._limits.pending_bytes, self._limits.watched_topics, wake)
        try:
            yield watcher
        finally:
            self.remove(watcher, watcher.topics)

    def add(self, watcher: Watcher, topics: Collection[str]) -> None:
        """Pass the topics' events to `watcher` from now on. Heads are read after this, so that no event is missed."""
        for topic in topics:
            watcher.add(topic)
            if topic in watcher:
                feed = self._feeds.setdefault(topic, _Feed())
                if watcher not in feed.watchers:
                    feed.watchers[watcher] = None
                    self._report.watching(1)

    def remove(self, watcher: Watcher, topics: Collection[str]) -> None:
        """Stop passing them; topics that `watcher` does not watch are ignored."""
        for topic in topics:
            watcher.remove(topic)
            self._unregister(watcher, topic)

    async def describe(self, watcher: Watcher) -> None:
        """Answer the questions of `watcher`: where topics stand, or why they can't be carried. Raises Refusal."""
        past, asked = self._past, watcher.to_describe()
        answers: Mapping[str, TopicDescription | Refusal] = await self.history.describe_all(asked) if asked else {}
        for topic, answer in answers.items() if past == self._past else ():
            if isinstance(answer, Refusal):
                if watcher.cannot_stand(topic, answer):
                    self._unregister(watcher, topic)
                continue
            feed = self._feeds.get(topic)
            if feed is not None and feed.sent is None:
                feed.topic, feed.epoch = answer.topic, answer.state.epoch
                feed.sent = feed.since = answer.state.head
                if feed.missed:
                    self._mark(topic)
            elif feed is not None and topic in watcher and answer.state.head < feed.since:
                # Another watcher asked later and was answered earlier: the events in between are handed out to nobody.
                watcher.add(topic)
                continue
            watcher.stands(answer)

    def publish(self, topic: str, events: Sequence[tuple[int, bytes]], origin: Origin | None = None) -> None:
        """Consecutive events of a topic that were committed: seq and stored bytes, and `origin` if that is known. Never
        waits.

        No epoch comes with them: they are of the past that the topics have now, and who publishes sees to that. A
        source whose log gets another past while it lives first ends what it published of the old one, and then calls
        `restart`, with no await in between: runtime's tail begins anew, and its sequencer publishes no batch that was
        under way; the projector leaves out what was under way.
        """
        feed = self._feeds.get(topic)
        if feed is None:
            return
        if feed.sent is None:
            feed.missed = True
        elif events[0][0] == feed.sent + 1:
            self._hand_out(topic, feed, events, origin)
        elif events[-1][0] > feed.sent:
            self._mark(topic)

    def read_again(self, wanted: Callable[[str], bool]) -> None:
        """Read where the watched topics that are `wanted` stand, because they may have more events. Never waits."""
        for topic in filter(wanted, self._feeds):
            self._mark(topic)

    def watches(self, topic: str) -> bool:
        """Whether anybody watches `topic`."""
        return topic in self._feeds

    @property
    def subject(self) -> str:
        """The place where frames are also published; empty for none."""
        return self._publisher.subject if self._publisher is not None else ""

    def restart(self) -> None:
        """Drop what waits and describe each topic again, because the topics have a different past."""
        self._past += 1
        self._heads, self._old_heads = {}, {}
        watchers = {watcher: None for feed in self._feeds.values() for watcher in feed.watchers}
        for feed in self._feeds.values():
            feed.sent, feed.missed = None, False
        for watcher in watchers:
            watcher.restart()

    async def run(self) -> None:
        """Repair known holes, and look for unknown ones. Runs until canceled."""
        poll_s = self._limits.poll_interval_ms / 1000
        clock = asyncio.get_running_loop().time
        poll_at = clock() + poll_s if poll_s else None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(poll_at):
                    await self._wake.wait()
            self._wake.clear()
            # Marks don't put a look at everything off, however close they come.
            is_due = poll_at is not None and clock() >= poll_at
            try:
                await self._repair_all(everything=is_due)
            except Exception as error:  # noqa: BLE001 - streams go on, and the next look may succeed
                if not isinstance(error, Refusal):
                    self._report.failed("", error)
                await asyncio.sleep(poll_s or _RETRY_S)
                self._wake.set()
                continue
            if is_due:
                poll_at = clock() + poll_s

    async def run_heads(self) -> None:
        """Report regularly where topics with published frames stand, until canceled."""
        while True:
            await asyncio.sleep(HEADS_INTERVAL_S)
            self.tell_heads()

    def tell_heads(self) -> None:
        """Report where they stood at the previous call: frames published before it have had time to arrive."""
        told, self._old_heads, self._heads = self._old_heads, self._heads, {}
        for topic, head in told.items():
            feed = self._feeds.get(topic)
            for watcher in feed.watchers if feed is not None else ():
                watcher.tell_head(topic, head)

    def _mark(self, topic: str) -> None:
        self._dirty.add(topic)
        self._wake.set()

    async def _repair_all(self, *, everything: bool) -> None:
        # What is marked from here on has to be read again, even if it is being read.
        marked, self._dirty = self._dirty, set()
        feeds = [
            feed for name in (self._feeds if everything else marked) if (feed := self._feeds.get(name)) is not None
        ]
        topics = [feed.topic for feed in feeds if feed.topic is not None]
        try:
            for described in (await self._store.describe(topics)).values() if topics else ():
                await self._repair_one(str(described.topic), described)
        except Exception:
            self._dirty |= marked
            raise

    async def _repair_one(self, topic: str, described: TopicDescription) -> None:
        """Repair a topic. One that a defect keeps from being read holds up no other, and is read when it has news, or
        when everything is looked at."""
        try:
            await self._repair(topic, described)
        except Refusal:
            raise
        except Exception as error:  # noqa: BLE001
            self._report.failed(topic, error)

    async def _repair(self, topic: str, described: TopicDescription) -> None:
        """Read on from the last seq that was handed out. Events that `publish` hands out meanwhile are not repeated."""
        limits = self._limits
        past = self._past
        while (feed := self._feeds.get(topic)) and feed.sent is not None and feed.sent < described.state.head:
            events = await self._store.page(described.topic, feed.sent, limits.page_frames, limits.page_bytes)
            if past != self._past:
                return
            sent = feed.sent
            fresh = [event for event in events if event[0] > sent]
            following = list(unbroken(fresh, sent))
            if not events or (fresh and not following):
                if described.state.floor > feed.sent:
                    self._say_again(topic, feed)
                return  # pruned, or missing: whoever replays is told which
            self._hand_out(topic, feed, following)

    def _say_again(self, topic: str, feed: _Feed) -> None:
        """Tell the watchers where the topic stands now, because the next events were pruned."""
        feed.sent, feed.missed = None, False
        for watcher in feed.watchers:
            watcher.add(topic)

    def _hand_out(
        self, topic: str, feed: _Feed, events: Sequence[tuple[int, bytes]], origin: Origin | None = None
    ) -> None:
        if not events:
            return
        first_seq, frames = events[0][0], [event_frame(topic, seq, payload) for seq, payload in events]
        feed.sent = events[-1][0]
        publisher = self._publisher
        published = publisher is not None and self._publish(publisher, topic, feed, first_seq, frames, origin)
        for watcher in feed.watchers:
            if published and watcher.takes_published(topic):
                continue
            before = watcher.dropped
            watcher.offer(topic, first_seq, frames, origin)
            if watcher.dropped > before:
                self._report.dropped(watcher.dropped - before)

    def _publish(
        self,
        publisher: Publisher,
        topic: str,
        feed: _Feed,
        first_seq: int,
        frames: Sequence[bytes],
        origin: Origin | None,
    ) -> bool:
        """Publish frames if anybody takes them there. Returns False if they were not published."""
        if not any(watcher.takes_published(topic) for watcher in feed.watchers):
            return False
        if not publisher.publish(topic, feed.epoch, first_seq, frames, origin):
            return False
        self._heads[topic] = Head(feed.epoch, first_seq + len(frames) - 1)
        return True

    def _unregister(self, watcher: Watcher, topic: str) -> None:
        feed = self._feeds.get(topic)
        if feed is not None and watcher in feed.watchers:
            del feed.watchers[watcher]
            self._report.watching(-1)
            if not feed.watchers:
                del self._feeds[topic]


HEADS_INTERVAL_S = 1.0
"""Interval between two reports of where topics with published frames stand."""
_RETRY_S = 0.5
"""Pause after a failed read of a source that is not polled."""

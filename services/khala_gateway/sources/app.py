"""What the gateway asks a source for, and what a source tells."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import structlog

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_khala.cursors import STALE_REASONS
from oa_khala.frames import TopicState
from oa_topics.publisher import CHECK
from oa_topics.watcher import Origin
from services.khala_gateway.sources.domain import FrameRoute
from services.khala_gateway.sources.limits import SourceLimits
from services.khala_gateway.sources.metrics import FRAMES_BY_SUBJECT, FRAMES_CONNECTED

_log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WatchedTopic:
    """A source carries `topic` from now on; it stands at `state` and belongs to these owners."""

    topic: str
    state: TopicState
    owner_user_id: str
    owner_org_id: str


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Consecutive serialized KhalaFrames from `first_seq` on; `floor` and `head` are the topic's at that moment."""

    epoch: str
    first_seq: int
    frames: Sequence[bytes]
    floor: int
    head: int


@dataclass(frozen=True, slots=True)
class TopicSnapshot:
    """A topic's state at `seq` of the lineage `epoch`; `chain` is the chain value there, if the topic has one."""

    epoch: str
    seq: int
    payload: bytes
    chain: bytes = b""


def state_said(refusal: Refusal) -> TopicState | None:
    """Where the topic stands by the refusal of a cursor that can't be continued; None when the source doesn't say."""
    said = refusal.metadata
    if refusal.reason not in STALE_REASONS or not {"epoch", "floor", "head"} <= said.keys():
        return None
    return TopicState(said["epoch"], int(said["floor"]), int(said["head"]))


class TopicSource(Protocol):
    """A server of topics: runtime or projector."""

    @property
    def away(self) -> bool:
        """Whether it does not answer at present: a topic may have more than it was heard of."""
        ...

    def add(self, topics: Iterable[str]) -> None:
        """Carry `topics`; each is answered by `watched` or `refused`, one that is carried already too."""
        ...

    def remove(self, topics: Iterable[str]) -> None:
        """Carry `topics` no longer."""
        ...

    async def replay(
        self, topic: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> HistoryPage:
        """The page from `after_seq + 1` on, if the topic's chain value there is `after_chain`. Raises Refusal."""
        ...

    async def snapshot(self, topic: str, max_bytes: int) -> TopicSnapshot:
        """The topic's state, a list's in so many bytes; 0 for what finds room in one frame. Raises Refusal."""
        ...


class SourceEvents(Protocol):
    """What a source tells. Nothing about order or completeness is promised."""

    def watched(self, watched: WatchedTopic) -> None:
        """A topic is carried now."""
        ...

    def refused(self, topic: str, refusal: Refusal) -> None:
        """A topic can't be carried."""
        ...

    def frames(
        self, topic: str, epoch: str, first_seq: int, frames: Sequence[bytes], origin: Origin | None = None
    ) -> None:
        """Live frames, consecutive among themselves, and where they come from, if the source says so."""
        ...


class Hedges:
    """Asks a second time where an answer takes long, and takes the one that comes first.

    Calls go to the replicas of a source in turn, so the second one reaches another, where there is one. So many second
    calls are under way at most: a source that is slow as a whole does not get all its work twice.
    """

    def __init__(self, patience_ms: int, most: int) -> None:
        """`patience_ms`: how long the first call has before the second; 0 for no second call."""
        self._patience_s = patience_ms / 1000
        self._free = most

    async def first(self, call: Callable[[], Awaitable[T]], asked_again: Callable[[], None]) -> T:
        """What comes first of the calls: an answer or a refusal. One that may be tried again counts only if all end so.

        `asked_again` hears of a second call.
        """
        calls = [asyncio.ensure_future(call())]
        try:
            await asyncio.wait(calls, timeout=self._patience_s or None)
            if not calls[0].done() and self._free:
                self._free -= 1
                asked_again()
                calls.append(asyncio.ensure_future(call()))
            while (first := _answer_of(calls)) is None:
                await asyncio.wait([one for one in calls if not one.done()], return_when=asyncio.FIRST_COMPLETED)
            return first.result()
        finally:
            self._free += len(calls) - 1
            for one in calls:
                one.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


def _answer_of(calls: Sequence[asyncio.Future[T]]) -> asyncio.Future[T] | None:
    """The first call that has said something, or the last one when all have failed."""
    ended = [one for one in calls if one.done()]
    said = next((one for one in ended if not _failed(one)), None)
    return said or (calls[-1] if len(ended) == len(calls) else None)


def _failed(call: asyncio.Future[T]) -> bool:
    error = None if call.cancelled() else call.exception()
    return isinstance(error, Refusal) and error.info.action is ClientAction.RETRY


class Subscriptions(Protocol):
    """What is published on subjects. It may get lost, repeat, and come late or in another order."""

    def subscribe(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """Hear what is published there from soon on; of subjects in the order in which they were added."""
        ...

    def unsubscribe(self, subject: str) -> None:
        """No more."""
        ...


class PublishedFrames:
    """What a source publishes beside its stream, of the topics that are wanted, and whether frames are taken there.

    It begins when the stream says where the source publishes, and ends with the stream. The subject of the checks is
    subscribed after those of the topics, so that a check comes only where frames would.
    """

    def __init__(self, source: str, subscriptions: Subscriptions, limits: SourceLimits) -> None:
        self._source = source
        self._subscriptions = subscriptions
        self._route = FrameRoute(limits)
        self._subject = ""
        self._topics: dict[str, None] = {}
        self._take: Callable[[bytes], None] = _nobody
        self._changed: Callable[[], None] = _nothing
        FRAMES_BY_SUBJECT.labels(source).set(0)

    def bind(self, take: Callable[[bytes], None], changed: Callable[[], None]) -> None:
        """`take` gets what is published; `changed` is called when `by_subject` has changed."""
        self._take, self._changed = take, changed

    @property
    def by_subject(self) -> bool:
        """Whether frames are taken here, and not on the stream."""
        return self._route.by_subject

    def announced(self, subject: str, topics: Iterable[str]) -> None:
        """The stream says where the source publishes; empty for nowhere. `topics` are those that are wanted."""
        if subject == self._subject:
            return
        self.ended()
        self._subject = subject
        if subject:
            self.add(topics)
            self._subscribe(CHECK)

    def ended(self) -> None:
        """The stream has ended."""
        for name in (*self._topics, CHECK) if self._subject else ():
            self._subscriptions.unsubscribe(f"{self._subject}.{name}")
        self._subject = ""
        self._topics.clear()
        self.lost("its stream is another one")

    def add(self, topics: Iterable[str]) -> None:
        """Take frames of `topics` too."""
        for topic in topics if self._subject else ():
            if topic not in self._topics:
                self._topics[topic] = None
                self._subscribe(topic)

    def remove(self, topics: Iterable[str]) -> None:
        """Take frames of `topics` no longer."""
        for topic in topics:
            if topic in self._topics:
                del self._topics[topic]
                self._subscriptions.unsubscribe(f"{self._subject}.{topic}")

    def lost(self, why: str) -> None:
        """There is no way to what is published at present."""
        self._then(self._route.lost, why)

    def came(self, number: int, now_s: float) -> None:
        """A delivery check was published."""
        self._then(partial(self._route.came, number, now_s))

    def came_on_stream(self, now_s: float) -> None:
        """A delivery check came on the stream."""
        self._then(partial(self._route.came_on_stream, now_s), "no delivery checks are published any more")

    def _subscribe(self, name: str) -> None:
        subject = self._subject
        self._subscriptions.subscribe(f"{subject}.{name}", lambda data: self._heard(subject, data))

    def _heard(self, subject: str, data: bytes) -> None:
        if subject == self._subject:
            self._take(data)

    def _then(self, change: Callable[[], None], why: str = "") -> None:
        """Make a change, and tell of what it changes."""
        before = self.by_subject
        change()
        if self.by_subject == before:
            return
        FRAMES_BY_SUBJECT.labels(self._source).set(1 if self.by_subject else 0)
        if self.by_subject:
            _log.info("frames_by_subject", source=self._source)
        else:
            _log.warning("frames_on_stream", source=self._source, why=why)
        self._changed()


def note_connected(why: str) -> None:
    """The server where frames are published is there, or is not and why."""
    FRAMES_CONNECTED.set(0 if why else 1)
    if why:
        _log.warning("frames_disconnected", why=why)
    else:
        _log.info("frames_connected")


def _nobody(_: bytes) -> None:
    """Takes what comes before `bind`: nothing does."""


def _nothing() -> None:
    """Nobody waits for a change yet."""

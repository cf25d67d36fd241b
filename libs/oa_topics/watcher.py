"""What one Watch stream carries. Pure: `hub` offers frames, `servicer` describes topics and takes what is to be sent.

A topic of a stream is in one of two states:

    add ──> AWAITING ──stands──> CARRIED ──remove──> (gone)
                ^                   │
                └─overrun, restart──┘

While it is awaiting, where it stands is still to be said, and its frames wait: so a topic's frames never overtake its
`watched`. A frame that finds no room is dropped, and its topic is awaiting again: what it says then covers the frame.

Whoever takes the frames of carried topics from elsewhere is told heads instead: of frames that may have got lost there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from oa_base.refusal import Refusal
from oa_topics.store import TopicDescription


class Head(NamedTuple):
    """Where a topic stands in a lineage."""

    epoch: str
    seq: int


class Origin(NamedTuple):
    """Where live events come from: when the first of them was recorded, in nanoseconds since 1970 or 0 if they are no
    records, and the W3C trace context of the commit, if that is traced."""

    recorded_ns: int = 0
    traceparent: str = ""


class Frames(NamedTuple):
    """Consecutive serialized KhalaFrames of one topic. None say that everything below `first_seq` exists."""

    topic: str
    epoch: str
    first_seq: int
    frames: list[bytes]
    origin: Origin | None = None


@dataclass(slots=True)
class Answer:
    """The next things to send: first where topics stand, then frames."""

    watched: list[TopicDescription] = field(default_factory=list)
    refused: list[tuple[str, Refusal]] = field(default_factory=list)
    batches: list[Frames] = field(default_factory=list)
    delivery_check: int = 0

    def __bool__(self) -> bool:
        return bool(self.watched or self.refused or self.batches or self.delivery_check)


@dataclass(slots=True)
class _Carried:
    """One topic. `head`: its reported position; frames up to it are not sent."""

    awaiting: bool = True
    asked: bool = False
    missed: bool = False
    epoch: str = ""
    head: int = 0
    pending: list[tuple[int, bytes]] = field(default_factory=list)
    # The origins of pending frames, each with the last seq that it covers.
    origins: list[tuple[int, Origin]] = field(default_factory=list)


class Watcher:
    """See the module. `wake` is called whenever there is something to do; it must not block."""

    def __init__(self, pending_bytes: int, max_topics: int, wake: Callable[[], None]) -> None:
        self._limit_bytes = pending_bytes
        self._max_topics = max_topics
        self._wake = wake
        self._topics: dict[str, _Carried] = {}
        self._refused: list[tuple[str, Refusal]] = []
        self._watched: list[TopicDescription] = []
        self._with_frames: dict[str, None] = {}
        self._awaiting: dict[str, None] = {}
        self._pending_bytes = 0
        self._delivery_check = 0
        self._heads: dict[str, Head] = {}
        self._by_subject = False
        # Earlier frames may have been lost elsewhere, so this stays.
        self._has_been_by_subject = False
        self.dropped = 0
        """Number of frames for which there was no room."""

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    @property
    def topics(self) -> list[str]:
        """The topics that are carried, or about to be."""
        return list(self._topics)

    def add(self, topic: str) -> None:
        """Carry `topic`. If it is carried already, report its position again."""
        carried = self._topics.get(topic)
        if carried is None:
            if len(self._topics) >= self._max_topics:
                text = f"one stream carries at most {self._max_topics} topics; use another one"
                self.refuse(topic, Refusal("too_many_topics", text, field="topic"))
                return
            carried = self._topics[topic] = _Carried()
        self._await(topic, carried)

    def remove(self, topic: str) -> None:
        """Stop carrying `topic`; one that isn't carried is ignored."""
        carried = self._topics.pop(topic, None)
        if carried is not None:
            self._forget_frames(topic, carried)
            self._awaiting.pop(topic, None)
            self._watched = [one for one in self._watched if str(one.topic) != topic]

    def refuse(self, topic: str, refusal: Refusal) -> None:
        """Report that `topic` can't be carried."""
        self.remove(topic)
        self._refused.append((topic, refusal))
        self._wake()

    def offer(self, topic: str, first_seq: int, frames: Sequence[bytes], origin: Origin | None = None) -> None:
        """Take consecutive live frames of a topic."""
        carried = self._topics.get(topic)
        if carried is None or carried.missed:
            return
        size = sum(map(len, frames))
        if self._pending_bytes and self._pending_bytes + size > self._limit_bytes:
            self.dropped += len(frames)
            carried.missed = True
            self._await(topic, carried)
            return
        self._pending_bytes += size
        carried.pending.extend(enumerate(frames, first_seq))
        if origin is not None:
            carried.origins.append((first_seq + len(frames) - 1, origin))
        if not carried.awaiting:
            self._with_frames[topic] = None
            self._wake()

    def take_by_subject(self, by_subject: bool) -> None:
        """Set whether frames of carried topics are taken where they are published, or on the stream."""
        self._by_subject = by_subject
        self._has_been_by_subject |= by_subject

    def takes_published(self, topic: str) -> bool:
        """Whether frames of `topic` need not be offered once they are published."""
        return self._by_subject and not self._topics[topic].awaiting

    def tell_head(self, topic: str, head: Head) -> None:
        """Report where a topic stands. This is skipped if all its frames have come on the stream."""
        if self._has_been_by_subject and topic in self._topics:
            self._heads[topic] = head
            self._wake()

    def check_delivery(self, number: int) -> None:
        """Report a delivery check; of several that wait only the newest is sent."""
        self._delivery_check = number
        self._wake()

    def restart(self) -> None:
        """Drop what waits and report each topic's position again, because the topics have a different past."""
        for topic, carried in self._topics.items():
            self._forget_frames(topic, carried)
            self._await(topic, carried)
        self._watched.clear()

    def to_describe(self) -> list[str]:
        """The topics whose positions have to be reported; answer each with `stands` or `cannot_stand`."""
        asked, self._awaiting = list(self._awaiting), {}
        for topic in asked:
            self._topics[topic].asked = True
            self._topics[topic].missed = False
        return asked

    def stands(self, described: TopicDescription) -> None:
        """Where a topic stands, read after `to_describe` named it."""
        topic = str(described.topic)
        carried = self._answered(topic)
        if carried is None:
            return
        carried.awaiting = False
        carried.epoch, carried.head = described.state.epoch, described.state.head
        self._watched.append(described)
        if carried.pending:
            self._with_frames[topic] = None

    def cannot_stand(self, topic: str, refusal: Refusal) -> bool:
        """Why `topic` can't be carried, read after `to_describe` named it. False if that does not count any more."""
        if self._answered(topic) is None:
            return False
        self.refuse(topic, refusal)
        return True

    def take(self) -> Answer:
        """The next things to send, which are then no longer pending."""
        answer = Answer(self._watched, self._refused, delivery_check=self._delivery_check)
        self._watched, self._refused, self._delivery_check = [], [], 0
        with_frames, self._with_frames = self._with_frames, {}
        for topic in with_frames:
            carried = self._topics[topic]
            pending, carried.pending = carried.pending, []
            origins, carried.origins = carried.origins, []
            self._pending_bytes -= sum(len(frame) for _, frame in pending)
            answer.batches.extend(_runs(topic, carried, pending, origins))
        heads, self._heads = self._heads, {}
        for topic, head in heads.items():
            carried_now = self._topics.get(topic)
            if carried_now is not None and not carried_now.awaiting and carried_now.epoch == head.epoch:
                answer.batches.append(Frames(topic, head.epoch, head.seq + 1, []))
        return answer

    def _answered(self, topic: str) -> _Carried | None:
        """Take an answer about `topic`; return the topic if the answer counts."""
        carried = self._topics.get(topic)
        if carried is None or not carried.asked:
            return None  # removed meanwhile
        carried.asked = False
        # Frames were dropped meanwhile, or it was added again, or has another past: it is asked about once more.
        return None if topic in self._awaiting else carried

    def _await(self, topic: str, carried: _Carried) -> None:
        carried.awaiting = True
        self._with_frames.pop(topic, None)
        self._awaiting[topic] = None
        self._wake()

    def _forget_frames(self, topic: str, carried: _Carried) -> None:
        self._pending_bytes -= sum(len(frame) for _, frame in carried.pending)
        carried.pending, carried.origins = [], []
        self._with_frames.pop(topic, None)


def _runs(
    topic: str,
    carried: _Carried,
    pending: Sequence[tuple[int, bytes]],
    origins: Sequence[tuple[int, Origin]] = (),
) -> list[Frames]:
    """The frames above the topic's reported position, as runs of consecutive ones. The first run has their origin."""
    runs: list[Frames] = []
    for seq, frame in pending:
        if seq <= carried.head:
            continue
        if runs and runs[-1].first_seq + len(runs[-1].frames) == seq:
            runs[-1].frames.append(frame)
        else:
            origin = None if runs else _first_of([one for last, one in origins if last > carried.head])
            runs.append(Frames(topic, carried.epoch, seq, [frame], origin))
    return runs


def _first_of(origins: Sequence[Origin]) -> Origin | None:
    """When the first was recorded, with the first trace context."""
    if len(origins) < 2:
        return origins[0] if origins else None
    return Origin(origins[0].recorded_ns, next((one.traceparent for one in origins if one.traceparent), ""))

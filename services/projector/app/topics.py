"""Topics: where one stands, and a page of its history."""

from __future__ import annotations

from dataclasses import dataclass

from oa_errors import Refusal
from oa_khala.topics import Topic, parse_topic
from services.projector.app.hub import TopicLimits
from services.projector.app.ports import NOWHERE, JournalRow, JournalStore, TopicPosition

FRAME_OVERHEAD_BYTES = 192
"""What a KhalaFrame adds to its payload at most: the topic (160), four tags, seq, kind, length and version."""


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """Where a topic stands and whom it belongs to; the owner that does not apply is empty."""

    topic: str
    epoch: str
    position: TopicPosition
    owner_user_id: str
    owner_org_id: str


@dataclass(frozen=True, slots=True)
class TopicPage:
    """Consecutive rows of a topic, and where it stands."""

    topic: str
    epoch: str
    position: TopicPosition
    rows: tuple[JournalRow, ...]


def served_topic(text: str, field: str = "topic") -> Topic:
    """The topic that `text` names. Raises Refusal(invalid_topic) when it is not one that the projector serves."""
    topic = parse_topic(text, field=field)
    if topic.source != "projector":
        raise Refusal("invalid_topic", f"{topic} is served by {topic.source}, not by the projector", field=field)
    return topic


def describe(topic: Topic, epoch: str, position: TopicPosition) -> TopicDescription:
    """The owner stands in the topic's name."""
    owner = topic.subject_id
    by_user = topic.topic_class.prefix == "user:"
    return TopicDescription(str(topic), epoch, position, owner if by_user else "", "" if by_user else owner)


class Topics:
    """Describe and Replay, from the journal. A topic that nothing was written to yet has head 0."""

    def __init__(self, journal: JournalStore, limits: TopicLimits) -> None:
        self._journal = journal
        self._limits = limits
        self._epoch = ""

    async def epoch(self) -> str:
        """Lineage of every topic here; it never changes while the process lives."""
        if not self._epoch:
            self._epoch = await self._journal.epoch()
        return self._epoch

    async def describe(self, text: str) -> TopicDescription:
        """Where the topic stands. Raises Refusal(invalid_topic)."""
        topic = served_topic(text)
        return describe(topic, await self.epoch(), await self._position(topic))

    async def replay(self, text: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int) -> TopicPage:
        """At most `max_frames` rows and `max_bytes` bytes after `after_seq`; 0 means the default, `TopicLimits`.

        Raises Refusal: invalid_topic, epoch_mismatch, retention_floor_breach, cursor_ahead_of_head.
        """
        topic = served_topic(text)
        ours = await self.epoch()
        position = await self._position(topic)
        _check_cursor(ours, position, epoch, after_seq)
        limit = min(max_frames or self._limits.page_frames, position.head - after_seq)
        rows = await self._journal.page(str(topic), after_seq, limit) if limit else []
        return TopicPage(str(topic), ours, position, _bounded(rows, after_seq, max_bytes or self._limits.page_bytes))

    async def _position(self, topic: Topic) -> TopicPosition:
        return (await self._journal.positions([str(topic)])).get(str(topic), NOWHERE)


def _check_cursor(ours: str, position: TopicPosition, epoch: str, after_seq: int) -> None:
    where = {"epoch": ours, "floor": str(position.floor), "head": str(position.head)}
    if epoch != ours:
        raise Refusal("epoch_mismatch", "the topic has another epoch; start without a cursor", metadata=where)
    if after_seq < position.floor:
        message = f"what follows seq {after_seq} is not kept any more; the floor is {position.floor}"
        raise Refusal("retention_floor_breach", message, field="after_seq", metadata=where)
    if after_seq > position.head:
        message = f"the topic's head is {position.head}, below {after_seq}"
        raise Refusal("cursor_ahead_of_head", message, field="after_seq", metadata=where)


def _bounded(rows: list[JournalRow], after_seq: int, max_bytes: int) -> tuple[JournalRow, ...]:
    """The first rows that fit, at least one. The journal has no holes: one would be a defect, not a page."""
    page: list[JournalRow] = []
    size = 0
    for expected, row in enumerate(rows, start=after_seq + 1):
        if row.seq != expected:
            raise Refusal("internal", f"the journal of {row.topic} has no seq {expected}")
        size += len(row.payload) + FRAME_OVERHEAD_BYTES
        if page and size > max_bytes:
            break
        page.append(row)
    return tuple(page)

"""Where topics stand, and pages of their history: one set of rules for all sources."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from oa_base.refusal import Refusal
from oa_khala.topics import Topic, parse_topic
from oa_khala.wire import event_frame
from oa_topics.store import StateAt, TopicDescription, TopicLimits, TopicStore

FRAME_OVERHEAD_BYTES = 192
"""Maximum bytes that a KhalaFrame adds to its payload: the topic (160), four tags, seq, kind, length and version."""


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive serialized KhalaFrames from `first_seq` on, and where the topic stands."""

    described: TopicDescription
    first_seq: int
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A topic's state in the lineage `epoch`."""

    epoch: str
    state: StateAt


class History:
    """Describes and replays topics."""

    def __init__(self, store: TopicStore, limits: TopicLimits) -> None:
        self._store = store
        self._limits = limits

    def parse(self, text: str) -> Topic:
        """The topic that `text` names. Raises Refusal `invalid_topic` when it is none that this source serves."""
        topic = parse_topic(text)
        if topic.source != self._store.source:
            raise Refusal("invalid_topic", f"such topics are served by {topic.source}; ask there", field="topic")
        return topic

    async def describe(self, text: str) -> TopicDescription:
        """Where a topic stands. Raises Refusal invalid_topic, not_found."""
        return await self._describe(self.parse(text))

    async def describe_all(self, texts: Collection[str]) -> Mapping[str, TopicDescription | Refusal]:
        """The state of each topic by its name, or the refusal for it. Raises Refusal when no state can be read."""
        topics: dict[str, Topic] = {}
        answers: dict[str, TopicDescription | Refusal] = {}
        for text in texts:
            try:
                topics[text] = self.parse(text)
            except Refusal as refusal:
                answers[text] = refusal
        found = await self._store.describe(topics.values()) if topics else {}
        answers.update((text, found.get(topic, _NOT_FOUND)) for text, topic in topics.items())
        return answers

    async def replay(
        self, text: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> Page:
        """A page of history; numbers of 0 mean the defaults. `after_chain`: the chain value at `after_seq`, if known.

        Raises Refusal invalid_topic, not_found, epoch_mismatch, cursor_ahead_of_head, retention_floor_breach, and what
        the store says of an event that is missing, after everything before it.
        """
        topic = self.parse(text)
        described = await self._describe(topic)
        _check_cursor(described, epoch, after_seq)
        if after_chain:
            await self._check_content(described, after_seq, after_chain)
        frames_limit, bytes_limit = max_frames or self._limits.page_frames, max_bytes or self._limits.page_bytes
        events = await self._store.page(topic, after_seq, frames_limit, bytes_limit)
        if await self._store.epoch() != described.state.epoch:
            # The page may be from a different past than the description.
            _check_cursor(await self._describe(topic), epoch, after_seq)
        frames: list[bytes] = []
        size = 0
        for seq, payload in unbroken(events, after_seq):
            size += len(payload) + FRAME_OVERHEAD_BYTES
            if frames and size > bytes_limit:
                break
            frames.append(event_frame(text, seq, payload))
        if not frames and after_seq < described.state.head:
            raise await self._not_there(topic, after_seq + 1)
        return Page(described, after_seq + 1, frames)

    async def snapshot(self, text: str, max_bytes: int = 0) -> Snapshot:
        """A topic's state. Raises Refusal invalid_topic, not_found; unavailable while its lineage changes."""
        topic, epoch = self.parse(text), await self._store.epoch()
        found = await self._store.snapshot(topic, max_bytes)
        if found is None:
            raise Refusal("not_found", "the topic has no snapshot; read its history", field="topic")
        if await self._store.epoch() != epoch:
            raise Refusal("unavailable", "the topic has got another lineage; ask again")
        return Snapshot(epoch, found)

    async def _describe(self, topic: Topic) -> TopicDescription:
        described = (await self._store.describe([topic])).get(topic)
        if described is None:
            raise _NOT_FOUND
        return described

    async def _check_content(self, described: TopicDescription, after_seq: int, after_chain: bytes) -> None:
        """A cursor's numbers may fit several histories. Its chain value fits only the history that it was made from."""
        if not described.topic.topic_class.chained:
            raise Refusal("invalid_value", "topics of this class have no chain; leave it empty", field="after_chain")
        chain = await self._store.chain_at(described.topic, after_seq)
        if chain is None:
            raise await self._not_there(described.topic, after_seq)
        if chain != after_chain:
            text = "the cursor was made from other events than the topic's; start without one"
            both = {"chain": chain.hex(), "after_chain": after_chain.hex()}
            raise _stale("epoch_mismatch", text, "after_chain", described, both)

    async def _not_there(self, topic: Topic, seq: int) -> Refusal:
        """Why an expected event is not there: its topic was pruned in the meantime, or the event is missing."""
        described = await self._describe(topic)
        if seq <= described.state.floor:
            return _below_floor(described, seq - 1)
        return self._store.missing(topic, seq)


def unbroken(events: Iterable[tuple[int, bytes]], after_seq: int) -> Iterator[tuple[int, bytes]]:
    """Those of `events`, seqs with their bytes in order, that follow on `after_seq` and on each other."""
    return (event for expected, event in enumerate(events, after_seq + 1) if event[0] == expected)


_NOT_FOUND = Refusal("not_found", "there is no such topic; check its name", field="topic")


def _check_cursor(described: TopicDescription, epoch: str, after_seq: int) -> None:
    state = described.state
    if epoch != state.epoch:
        text = "the cursor counts in another lineage of the topic; start without one"
        raise _stale("epoch_mismatch", text, "epoch", described)
    if after_seq > state.head:
        text = f"the head of the topic is {state.head}, below {after_seq}; start without a cursor"
        raise _stale("cursor_ahead_of_head", text, "after_seq", described)
    if after_seq < state.floor:
        raise _below_floor(described, after_seq)


def _below_floor(described: TopicDescription, after_seq: int) -> Refusal:
    text = f"what follows seq {after_seq} is no longer kept; start without a cursor, or from {described.state.floor}"
    if described.topic.topic_class.chained:
        text += ", and ReplayService has the run's replay artifact"
    return _stale("retention_floor_breach", text, "after_seq", described)


def _stale(
    reason: str, text: str, field: str, described: TopicDescription, more: Mapping[str, str] | None = None
) -> Refusal:
    state = described.state
    metadata = {"epoch": state.epoch, "floor": str(state.floor), "head": str(state.head), **(more or {})}
    return Refusal(reason, text, field=field, metadata=metadata)

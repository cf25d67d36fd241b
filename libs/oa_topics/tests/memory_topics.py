"""A source of topics in memory, and what tests of its streams share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from oa_base.refusal import Refusal
from oa_khala.frames import TopicState
from oa_khala.topics import Source, Topic, parse_topic
from oa_topics.store import StateAt, TopicDescription
from openagents.sync.v1 import topic_service_pb2 as pb


@dataclass
class MemoryTopics:
    """`TopicStore`: topics as lists of payloads. `away` makes every read fail. `meanwhile` is called once: when
    the next answer is read, and before it is given."""

    events: dict[str, list[bytes]] = field(default_factory=dict)
    lineage: str = "e1"
    away: bool = False
    floor: int = 0
    lost: int = 0
    """A seq that no topic has any more."""
    source: Source = "runtime"
    meanwhile: Callable[[], Awaitable[None]] | None = None
    defects: dict[str, Exception] = field(default_factory=dict)
    """Topic -> what reading its events raises; empty: what asking where topics stand raises."""

    def append(self, topic: str, *payloads: bytes) -> list[tuple[int, bytes]]:
        """Commit events; what a hub is told of it."""
        known = self.events.setdefault(topic, [])
        first = len(known) + 1
        known.extend(payloads)
        return list(enumerate(payloads, first))

    async def epoch(self) -> str:
        """See TopicStore."""
        self._check()
        return self.lineage

    async def describe(self, topics: Collection[Topic]) -> Mapping[Topic, TopicDescription]:
        """See TopicStore."""
        self._check()
        if "" in self.defects:
            raise self.defects[""]
        found = {
            topic: TopicDescription(topic, TopicState(self.lineage, self.floor, len(self.events[str(topic)])))
            for topic in topics
            if str(topic) in self.events
        }
        await self._given()
        return found

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """See TopicStore."""
        self._check()
        if str(topic) in self.defects:
            raise self.defects[str(topic)]
        after_seq = max(after_seq, self.floor)
        events = self.events[str(topic)][after_seq : after_seq + max_events]
        await self._given()
        return [event for event in enumerate(events, after_seq + 1) if event[0] != self.lost]

    async def snapshot(self, topic: Topic, max_bytes: int) -> StateAt | None:
        """See TopicStore."""
        return None

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """See TopicStore."""
        raise NotImplementedError

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """See TopicStore."""
        return Refusal("internal", f"{topic} has no {seq}")

    async def _given(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()

    def _check(self) -> None:
        if self.away:
            raise Refusal("unavailable", "the store is away")


def described(topic: str, head: int, epoch: str = "e1") -> TopicDescription:
    """A topic that stands at `head`."""
    return TopicDescription(parse_topic(topic), TopicState(epoch, 0, head))


class Counted:
    """A HubReport that counts."""

    def __init__(self) -> None:
        self.watched = self.frames_dropped = 0
        self.failures: list[tuple[str, Exception]] = []

    def watching(self, difference: int) -> None:
        """See HubReport."""
        self.watched += difference

    def dropped(self, frames: int) -> None:
        """See HubReport."""
        self.frames_dropped += frames

    def failed(self, topic: str, error: Exception) -> None:
        """See HubReport."""
        self.failures.append((topic, error))


def seqs(answer: pb.WatchTopicsResponse) -> list[int]:
    """Seqs of all frames of a message."""
    return [batch.first_seq + place for batch in answer.batches for place in range(len(batch.frames))]

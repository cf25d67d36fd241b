"""The requests that the gateway makes to a source, and the events that a source reports."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from oa_base.refusal import Refusal
from oa_khala.cursors import STALE_REASONS
from oa_khala.frames import TopicState
from oa_topics.watcher import Origin


@dataclass(frozen=True, slots=True)
class WatchedTopic:
    """A topic that a source carries from now on; it stands at `state` and belongs to these owners."""

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


def state_said(refusal: Refusal, known: TopicState) -> TopicState:
    """Where the topic stands, according to the refusal of a stale cursor; `known` where the source doesn't say."""
    said = refusal.metadata
    if refusal.reason not in STALE_REASONS or not {"epoch", "floor", "head"} <= said.keys():
        return known
    return replace(known, epoch=said["epoch"], floor=int(said["floor"]), head=int(said["head"]))


class TopicSource(Protocol):
    """A server of topics: runtime or projector."""

    @property
    def away(self) -> bool:
        """Whether it does not answer at present, so that its topics may have more than is known."""
        ...

    def add(self, topics: Iterable[str]) -> None:
        """Carry `topics`. Each is answered by `watched` or `refused`, even if it is carried already."""
        ...

    def remove(self, topics: Iterable[str]) -> None:
        """Stop carrying `topics`."""
        ...

    async def replay(
        self, topic: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> HistoryPage:
        """The page from `after_seq + 1` on, if the topic's chain value there is `after_chain`. Raises Refusal."""
        ...

    async def snapshot(self, topic: str, max_bytes: int) -> TopicSnapshot:
        """The topic's state; a list's in at most `max_bytes`, or in one frame if that is 0. Raises Refusal."""
        ...


class SourceEvents(Protocol):
    """The events that a source reports. Neither order nor completeness is promised."""

    def watched(self, watched: WatchedTopic) -> None:
        """Note that a topic is carried now."""
        ...

    def refused(self, topic: str, refusal: Refusal) -> None:
        """Note that a topic can't be carried."""
        ...

    def frames(
        self, topic: str, epoch: str, first_seq: int, frames: Sequence[bytes], origin: Origin | None = None
    ) -> None:
        """Take live frames, which are consecutive among themselves, and their origin, if the source gives it."""
        ...

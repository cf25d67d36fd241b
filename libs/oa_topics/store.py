"""What a source of topics provides: the interface between `oa_topics` and the service that stores the topics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from oa_base.refusal import Refusal
from oa_khala.frames import TopicState
from oa_khala.topics import Source, Topic


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """Where a topic stands, and who owns it; an owner that does not apply is empty."""

    topic: Topic
    state: TopicState
    owner_user_id: str = ""
    owner_org_id: str = ""


@dataclass(frozen=True, slots=True)
class StateAt:
    """A topic's state at `seq`, as the payload of a SNAPSHOT, and the chain value there if the topic has one."""

    seq: int
    payload: bytes
    chain: bytes = b""


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """Limits for watchers and readers of topics."""

    watched_topics: int = 100_000
    """Maximum number of topics on one Watch stream."""
    pending_bytes: int = 8 << 20
    """Maximum bytes of frames that wait for a Watch stream; more are dropped, and the caller is told the head."""
    page_frames: int = 500
    """Number of frames in a page of history if the caller names none."""
    page_bytes: int = 1 << 20
    """Size of a page in bytes if the caller names none."""
    poll_interval_ms: int = 0
    """Interval between checks of where the watched topics stand. 0: never, for a source that hears of every commit."""


class TopicStore(Protocol):
    """The topics of one source. Every method may raise Refusal `unavailable` or `deadline_exceeded`."""

    @property
    def source(self) -> Source:
        """The service that these topics belong to."""
        ...

    async def epoch(self) -> str:
        """The lineage of what is read now. Must be cheap, because it is asked after each page."""
        ...

    async def describe(self, topics: Collection[Topic]) -> Mapping[Topic, TopicDescription]:
        """Where the topics stand; topics that don't exist are left out."""
        ...

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """Events after `after_seq`, in order: seq and stored bytes. A store may give more bytes than asked for."""
        ...

    async def snapshot(self, topic: Topic, max_bytes: int) -> StateAt | None:
        """The topic's state and the seq that it stands at, read together; None for a topic that has none.

        `max_bytes`: of a list's documents; the oldest are left out. 0 for what finds room in one frame.
        """
        ...

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """Chain value of a topic that has one; None when what had that seq is not kept."""
        ...

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """The refusal for an event above the floor that is not there: a loss or a defect, which is also reported."""
        ...

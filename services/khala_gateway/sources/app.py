"""What the gateway asks a source for, and what a source tells."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_khala.cursors import STALE_REASONS
from oa_khala.frames import TopicState

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

    def frames(self, topic: str, epoch: str, first_seq: int, frames: Sequence[bytes]) -> None:
        """Live frames, consecutive among themselves."""
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

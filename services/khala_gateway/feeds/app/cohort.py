"""Subscribers of one topic that are delivered to together.

Most subscribers of a topic have been given all of it, and wait for what comes next. For them, only the bytes are
written, in one loop: where they stand, and what they get, is decided once for all.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from oa_khala.server.commands import Position, Subscription
from services.khala_gateway.feeds.app.entries import Segment
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.domain import Encoding

Write = Callable[[bytes], None]


class Member(Protocol):
    """One connection's subscription to one topic."""

    @property
    def subscription(self) -> Subscription:
        """What the session knows of it."""
        ...

    @property
    def encoding(self) -> Encoding:
        """The encoding of its messages."""
        ...

    @property
    def write(self) -> Write:
        """Writes complete messages to its socket."""
        ...


M = TypeVar("M", bound=Member)


class Cohort(Generic[M]):
    """Subscribers that stand at the same seq, in the same encoding, and whose sockets accept more."""

    __slots__ = ("_writes", "encoding", "position")

    def __init__(self, encoding: Encoding, next_seq: int) -> None:
        self.encoding = encoding
        self.position = Position(next_seq)
        self._writes: dict[M, Write] = {}

    def __len__(self) -> int:
        return len(self._writes)

    def __contains__(self, member: object) -> bool:
        return member in self._writes

    @property
    def members(self) -> list[M]:
        """All members, in the order in which they came."""
        return list(self._writes)

    def join(self, member: M) -> bool:
        """Take in `member`. Returns False if it does not stand where the others do."""
        if not member.subscription.share(self.position):
            return False
        self._writes[member] = member.write
        return True

    def leave(self, member: M) -> None:
        """Let `member` go, for example because its socket accepts no more. If that happens while something is being
        delivered, the member has been given that, or still is."""
        del self._writes[member]
        member.subscription.part()

    def deliver(self, segment: Segment, flusher: Flusher) -> None:
        """Write `segment`, which is next, to all members. Raises DeliveryBroken if it is not next."""
        self.position.advance(segment.first_seq, segment.frames)
        data, size = segment.data, len(segment.data)
        first, *others = self._writes.values()
        first(data)
        flusher.delivered(segment.frames, size)
        for write in others:
            write(data)
        flusher.delivered(segment.frames * len(others), size * len(others))

"""One topic in a gateway: a ring of the newest entries, and the repair of what the fanout lost.

A source promises nothing about live order. An entry at `head + 1` is appended, one at or below the head is dropped,
and one above is parked. `hole` says what to read from history; the entries read there are offered in the same way. So
a fanout that loses, repeats and reorders is enough, and a gateway joins a running topic by the same code.

A subscriber is a number here, its next seq, not a queue; `slice` gives the entries that it can have now.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from oa_base.ring import Hole, Ring
from oa_khala.frames import TopicState

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """What one feed may hold. The newest entry stays even when it alone is larger than `ring_bytes`."""

    ring_events: int = 1_024
    ring_bytes: int = 4 * 1024 * 1024
    parked_events: int = 1_024
    parked_bytes: int = 1024 * 1024


class Feed(Ring[E]):
    """A ring of entries by seq that keeps the entries after a hole until the hole is closed."""

    def __init__(self, state: TopicState, size: Callable[[E], int], limits: FeedLimits | None = None) -> None:
        self.limits = limits or FeedLimits()
        super().__init__(state.head, size, self.limits.ring_events, self.limits.ring_bytes)
        self.epoch = state.epoch
        self.floor = state.floor
        self.snapshot_available = state.snapshot_available
        self.snapshot_on_request = state.snapshot_on_request
        # Entries that wait behind a hole, by seq.
        self.parked: dict[int, E] = {}
        self._parked_bytes = 0

    @property
    def state(self) -> TopicState:
        """Where the topic stands, up to the head that can be delivered."""
        return TopicState(self.epoch, self.floor, self.head, self.snapshot_available, self.snapshot_on_request)

    @property
    def hole(self) -> Hole | None:
        """The hole to read from history before the feed can move on; None when nothing is missing."""
        if self.known_head <= self.head:
            return None
        return Hole(self.head, min(self.parked, default=self.known_head + 1) - 1)

    def observe(self, state: TopicState) -> bool:
        """Note that the source says the topic is at `state`. False if that is another lineage: this feed is over."""
        if state.epoch != self.epoch:
            return False
        self.floor = max(self.floor, state.floor)
        self.snapshot_available = self.snapshot_available or state.snapshot_available
        self.snapshot_on_request = self.snapshot_on_request or state.snapshot_on_request
        self.expect(state.head)
        return True

    def offer(self, first_seq: int, entries: Sequence[E]) -> bool:
        """Offer entries `first_seq`, `first_seq + 1`, … of this lineage, live or from history. True if the head moved.

        An empty `entries` says that everything below `first_seq` exists.
        """
        if not entries:
            self.expect(first_seq - 1)
            return False
        if self.take(first_seq, entries):
            if self.parked:
                self._unpark()
            return True
        if first_seq > self.head + 1:
            self._park(first_seq, entries)
        return False

    def _park(self, first_seq: int, entries: Sequence[E]) -> None:
        # Entries without room are read from history like the rest: `known_head` remembers that they exist.
        for seq, entry in enumerate(entries, first_seq):
            size = self._size(entry)
            full = len(self.parked) >= self.limits.parked_events or self._parked_bytes + size > self.limits.parked_bytes
            if not full and seq not in self.parked:
                self.parked[seq] = entry
                self._parked_bytes += size

    def _unpark(self) -> None:
        for seq in sorted(self.parked):
            if seq > self.head + 1:
                break
            entry = self.parked.pop(seq)
            self._parked_bytes -= self._size(entry)
            if seq == self.head + 1:
                self.take(seq, (entry,))

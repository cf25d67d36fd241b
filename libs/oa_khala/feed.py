"""One topic in a gateway: a ring of the newest entries, and the repair of what the fanout lost.

A source promises nothing about live order. An entry at `head + 1` is appended, one at or below the head is dropped,
one above is parked, and `hole` says what to read from history; what that gives is offered in the same way. So a
fanout that loses, repeats and reorders is enough, and a gateway joins a running topic by the same code.

A subscriber is no queue here but a number, its next seq; `slice` gives what it can have now.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from oa_khala.frames import TopicState

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """What one feed may hold. The newest entry stays even when it alone is larger than `ring_bytes`."""

    ring_events: int = 1_024
    ring_bytes: int = 4 * 1024 * 1024
    parked_events: int = 1_024
    parked_bytes: int = 1024 * 1024


class Hole(NamedTuple):
    """Seqs `after + 1` to `up_to` are missing."""

    after: int
    up_to: int


class Feed(Generic[E]):
    """`head` is the newest seq that can be delivered, `known_head` the newest that is known to exist."""

    def __init__(self, state: TopicState, size: Callable[[E], int], limits: FeedLimits | None = None) -> None:
        self.epoch = state.epoch
        self.floor = state.floor
        self.head = state.head
        self.known_head = state.head
        self.limits = limits or FeedLimits()
        self._size = size
        # The ring is `_ring[_gone:]`; what has gone is cut off in bulk, so that an eviction is O(1).
        self._ring: list[E] = []
        self._gone = 0
        # Size of what the ring holds, as `size` counts it.
        self.ring_bytes = 0
        # What waits behind a hole, by seq.
        self.parked: dict[int, E] = {}
        self._parked_bytes = 0

    @property
    def state(self) -> TopicState:
        """Where the topic stands, as far as it can be delivered."""
        return TopicState(self.epoch, self.floor, self.head)

    @property
    def ring_start(self) -> int:
        """Lowest seq in the ring; `head + 1` when it is empty."""
        return self.head + 1 - (len(self._ring) - self._gone)

    @property
    def hole(self) -> Hole | None:
        """What has to be read from history before the feed can move on; None when nothing is missing."""
        if self.known_head <= self.head:
            return None
        return Hole(self.head, min(self.parked, default=self.known_head + 1) - 1)

    def observe(self, state: TopicState) -> bool:
        """The source says that the topic stands at `state`. False when that is another lineage: this feed is over."""
        if state.epoch != self.epoch:
            return False
        self.floor = max(self.floor, state.floor)
        self.known_head = max(self.known_head, state.head)
        return True

    def offer(self, first_seq: int, entries: Sequence[E]) -> bool:
        """Entries `first_seq`, `first_seq + 1`, … of this lineage, live or from history. True when the head moved."""
        if not entries:
            return False
        self.known_head = max(self.known_head, first_seq + len(entries) - 1)
        if first_seq > self.head + 1:
            self._park(first_seq, entries)
            return False
        fresh = entries[self.head + 1 - first_seq :]
        self._append(fresh)
        if fresh and self.parked:
            self._unpark()
        return bool(fresh)

    def slice(self, next_seq: int, max_entries: int, max_bytes: int) -> list[E] | None:
        """Consecutive entries from `next_seq` on, within both limits but at least one.

        Empty when `next_seq` is above the head, None when it is below the ring.
        """
        start = next_seq - self.ring_start
        if start < 0:
            return None
        taken = self._ring[self._gone + start : self._gone + start + max_entries]
        total = 0
        for count, entry in enumerate(taken):
            total += self._size(entry)
            if total > max_bytes and count > 0:
                return taken[:count]
        return taken

    def _append(self, entries: Sequence[E]) -> None:
        self._ring.extend(entries)
        self.head += len(entries)
        self.ring_bytes += sum(map(self._size, entries))
        limits = self.limits
        while (held := len(self._ring) - self._gone) > limits.ring_events or (
            self.ring_bytes > limits.ring_bytes and held > 1
        ):
            self.ring_bytes -= self._size(self._ring[self._gone])
            self._gone += 1
        if self._gone > len(self._ring) // 2:
            del self._ring[: self._gone]
            self._gone = 0

    def _park(self, first_seq: int, entries: Sequence[E]) -> None:
        # What finds no room is read from history like the rest: `known_head` remembers that it exists.
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
                self._append([entry])

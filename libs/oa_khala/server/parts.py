"""A snapshot on its way to one client: whole, or in parts of a bounded size, one after the other.

The payload is shared with everybody who gets the same snapshot. A part is cut out of it when it is sent, so a
slow client costs no more than a fast one.
"""

from __future__ import annotations

from dataclasses import dataclass

from oa_khala.frames import Snapshot


@dataclass(slots=True)
class UnsentSnapshot:
    """The rest of a snapshot, not sent yet. `part_bytes`: maximum size of a part; 0 for a client that takes no parts.

    A snapshot that fits into one part is sent whole: every client reads that.
    """

    topic: str
    seq: int
    payload: bytes
    part_bytes: int
    sent: int = 0

    @property
    def parts(self) -> int:
        """How many frames the snapshot is."""
        return max(1, -(-len(self.payload) // self.part_bytes)) if self.part_bytes else 1

    def next(self) -> Snapshot:
        """Return the next frame. There is one as long as `sent` is less than `parts`."""
        self.sent += 1
        if self.parts == 1:
            return Snapshot(self.topic, self.seq, self.payload)
        end = self.sent * self.part_bytes
        part = self.payload[end - self.part_bytes : end]
        return Snapshot(self.topic, self.seq, part, part=self.sent, parts=self.parts)

"""A snapshot on its way to one client: whole, or in parts of a bounded size, one after the other.

The payload is shared with everybody who gets the same snapshot. A part is cut out of it when it is sent, so a client
that takes its time costs no more than one that does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from oa_khala.frames import Snapshot


@dataclass(slots=True)
class UnsentSnapshot:
    """What of a snapshot has not been sent yet. `part_bytes`: maximum size of a part; 0 for a client that takes none.

    A snapshot that finds room in one part goes as a whole: every client reads that.
    """

    topic: str
    seq: int
    payload: bytes
    part_bytes: int
    sent: int = 0

    @property
    def parts(self) -> int:
        """How many frames it is."""
        return max(1, -(-len(self.payload) // self.part_bytes)) if self.part_bytes else 1

    def next(self) -> Snapshot:
        """The next frame. There is one as long as `sent` is less than `parts`."""
        self.sent += 1
        if self.parts == 1:
            return Snapshot(self.topic, self.seq, self.payload)
        end = self.sent * self.part_bytes
        part = self.payload[end - self.part_bytes : end]
        return Snapshot(self.topic, self.seq, part, part=self.sent, parts=self.parts)
